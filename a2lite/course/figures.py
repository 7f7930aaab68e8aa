"""Every figure that a notebook reports, with the paper's beside it: ``runs/<profile>/metrics.json``.

The file maps notebook -> figure -> ``{"value": ..., "paper": ..., "where": ...}``; ``paper`` and ``where``
are null for a figure that the paper does not give. Every notebook's last cell writes here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from a2lite import ROOT
from a2lite.config import PROFILES


def run_folder(profile: str, size: str = "", output_dir: str | Path = "") -> Path:
    """Where a run puts what it makes: ``output_dir``, else ``runs/<profile>``, or ``runs/<profile>-nano``."""
    if output_dir:
        return Path(output_dir).expanduser().absolute()
    return ROOT / "runs" / (f"{profile}-{size}" if size else profile)


def report(notebook: str, profile: str, figures: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Merge ``figures`` into ``runs/<profile>/metrics.json``, or that of another ``folder``, and return its path.

    ``figures`` maps a name to a value, or to (value, the paper's value, where it stands: "Table 3"). A value
    is a finite number, a truth or a text; tensors and arrays of one element count as numbers. Figures of the
    same name are replaced, all others stay, also when two notebooks report at once. Else ValueError.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r}: expected one of {', '.join(PROFILES)}")
    entries = {name: _entry(f"{notebook}, figure {name!r}", figure) for name, figure in figures.items()}
    path = (folder or run_folder(profile)) / "metrics.json"
    _update(path, lambda all_figures: all_figures.setdefault(notebook, {}).update(entries))
    return path


def read_figures(folder: Path) -> dict[str, dict[str, dict]]:
    """What has been reported so far into a run's folder: notebook -> figure -> value, paper, where."""
    return _load(folder / "metrics.json")


def forget(notebook: str, folder: Path) -> None:
    """Drop what ``notebook`` reported: it is about to run again."""
    _update(folder / "metrics.json", lambda all_figures: all_figures.pop(notebook, None))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON so that a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _update(path: Path, change) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        content = _load(path)
        change(content)
        write_json(path, content)


def _load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _entry(name: str, figure: Any) -> dict[str, Any]:
    value, paper, where = figure if isinstance(figure, tuple) else (figure, None, None)
    return {"value": _plain(name, value), "paper": _plain(name, paper), "where": where}


def _plain(name: str, value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{name}: expected a number, a truth or a text, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}: a figure must be finite, look at what computed it")
    return value
