"""A run's ``index.html``: the notebooks' outcomes, their figures beside the paper's, and the players.

One page without scripts or outside parts; the executed notebooks and the players lie beside it.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from a2lite import __version__
from a2lite.course.figures import read_figures

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #2a8a4a; --bad: #c43c3c; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
p, td.soft, figcaption { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: var(--good); } .failed { color: var(--bad); }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; }
iframe { width: 100%; height: 30rem; border: 1px solid var(--line); border-radius: 8px; }
"""


def write_page(profile: str, folder: Path) -> Path:
    """Write the page for what lies in the ``folder`` of a run at ``profile`` now, and return its path."""
    state = folder / "course.json"
    outcomes = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    good = sum(outcome["status"] == "ok" for outcome in outcomes.values())
    seconds = sum(outcome["seconds"] for outcome in outcomes.values())
    body = [
        "<h1>a2lite</h1>",
        f"<p>Profile {escape(profile)}, version {__version__}: {good} of {len(outcomes)} notebooks ran "
        f"through, {_clock(seconds)} in all. The world that these figures speak of is synthetic.</p>",
        _players(folder),
        "<h2>Notebooks</h2>",
        _table(["notebook", "", "time", ""], [_notebook(folder, *item) for item in outcomes.items()]),
        "<h2>Figures</h2>",
        _table(["notebook", "figure", "here", "paper", "where"], _figures(folder)),
    ]
    title = f"<title>a2lite, profile {escape(profile)}</title>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>'
    path = folder / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *body, "</html>\n"]), encoding="utf-8")
    return path


def _notebook(folder: Path, stem: str, outcome: dict) -> list[str]:
    shown = folder / f"{stem}.html"
    name = f'<a href="{escape(shown.name)}">{escape(stem)}</a>' if shown.exists() else escape(stem)
    status = "ok" if outcome["status"] == "ok" else "failed"
    mark = f'<span class="{status}">{escape(outcome["status"])}</span>'
    return [name, mark, _clock(outcome["seconds"]), escape(outcome["error"])]


def _figures(folder: Path) -> list[list[str]]:
    rows = []
    for notebook, figures in sorted(read_figures(folder).items()):
        for place, (name, figure) in enumerate(figures.items()):
            where = escape(figure["where"] or "")
            value, paper = _number(figure["value"]), _number(figure["paper"])
            rows.append([escape(notebook) if place == 0 else "", escape(name), value, paper, where])
    return rows


def _players(folder: Path) -> str:
    pages = sorted((folder / "players").glob("*.html"))
    if not pages:
        return ""
    frames = []
    for page in pages:
        source, name = f"players/{escape(page.name)}", escape(page.stem)
        frame = f'<iframe src="{source}" loading="lazy" title="{name}"></iframe>'
        frames.append(f'<figure>{frame}<figcaption><a href="{source}">{name}</a></figcaption></figure>')
    return '<h2>Players</h2>\n<div class="players">' + "\n".join(frames) + "</div>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    kinds = [' class="number"' if name in ("time", "here", "paper") else "" for name in head]
    lines = [
        "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
        for tag, row in [("th", head), *(("td", row) for row in rows)]
    ]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _number(value) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
