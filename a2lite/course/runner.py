"""Every notebook, headless: what ``make course`` and ``python -m a2lite course`` run.

Each notebook is executed by papermill in a process of its own, under a time limit; one that fails does not
stop the rest. ``runs/<profile>/``, or ``output_dir``, receives the executed notebooks (also as HTML), what they
printed (``logs/``), their figures (``metrics.json``) and ``index.html``. A notebook whose source, parameters, library
and inputs are those of its last good run is skipped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

import a2lite
from a2lite import ROOT
from a2lite.config import PROFILES
from a2lite.course.figures import forget, run_folder, write_json
from a2lite.course.page import write_page

GIVEN = ("model_dir", "flame_path", "data_dir")  # parameters that name what a run reads
PLACES = (*GIVEN, "output_dir")  # relative ones are meant from here, not from the notebook's folder
LIMIT_MINUTES = {"tiny": 5.0, "laptop": 80.0, "a100": 7 * 24 * 60.0}  # per notebook


@dataclass
class Outcome:
    """How one notebook's last run went; ``course.json`` keeps one per notebook."""

    status: str  # "ok", "failed", "over limit" or "interrupted"
    seconds: float
    error: str = ""
    key: str = ""  # of source, parameters, library and inputs
    wrote: list[str] = field(default_factory=list)  # artefacts that are new or changed since it began


# ---------------------------------------------------------------- what to run


def notebooks(chosen: list[str]) -> list[Path]:
    """The course's notebooks in order, or those whose names begin with one of ``chosen`` ("03", "05_c")."""
    every = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not every:
        raise FileNotFoundError(f"no notebooks in {ROOT / 'notebooks'}: run this in a clone of the kit")
    for prefix in chosen:
        if not any(path.stem.startswith(prefix) for path in every):
            names = ", ".join(path.stem for path in every)
            raise ValueError(f"no notebook begins with {prefix!r}; there are {names}")
    return [path for path in every if not chosen or path.stem.startswith(tuple(chosen))]


def check_parameters(path: Path, given: dict[str, str]) -> dict[str, Any]:
    """``given`` texts as values of the types that the notebook's ``parameters`` cell has.

    Raises ValueError for a name that the cell lacks (papermill would only warn) or a value of another type.
    """
    import papermill

    known = papermill.inspect_notebook(str(path))
    values = {}
    for name, text in given.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(f"notebook {path.stem} has no parameter {name!r}; it has: {listed}")
        default, value = _literal(known[name]["default"]), _literal(text)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            expected = f"{type(default).__name__} (default {default!r})"
            raise ValueError(f"notebook {path.stem}, parameter {name!r}: expected {expected}, got {text!r}")
        values[name] = value
    return values


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# ---------------------------------------------------------------- what is done already


def run_key(path: Path, parameters: dict[str, Any], inputs: dict[str, list]) -> str:
    """Hash of all that a run depends on: cells (not outputs), parameters, the library, the input files."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = [[cell["cell_type"], cell["source"], cell["metadata"].get("tags", [])] for cell in cells]
    content = json.dumps([source, parameters, _library(), inputs], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _library() -> str:
    folder, digest = Path(a2lite.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _stamps(place: Path) -> dict[str, list]:
    """Name -> [size, time of change] of a file, or of every file under a folder."""
    files = {path: path.stat() for path in sorted([place, *place.rglob("*")]) if path.is_file()}
    return {path.as_posix(): [s.st_size, s.st_mtime_ns] for path, s in files.items()}


def _inputs(path: Path, done: dict[str, Outcome], folder: Path, parameters: dict[str, Any]) -> dict[str, list]:
    """Stamps of samples, given files and artefacts, less those that this notebook or a later one writes."""
    own = {name for stem, outcome in done.items() if stem >= path.stem for name in outcome.wrote}
    given = [Path(parameters[name]) for name in GIVEN if parameters.get(name)]
    stamps = {}
    for place in (ROOT / "data_samples", folder / "artefacts", *given):
        stamps |= _stamps(place)
    return {name: stamp for name, stamp in stamps.items() if name not in own}


def _load_done(folder: Path) -> dict[str, Outcome]:
    path = folder / "course.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {stem: Outcome(**entry) for stem, entry in entries.items()}


def _save_done(folder: Path, done: dict[str, Outcome]) -> None:
    write_json(folder / "course.json", {stem: asdict(done[stem]) for stem in sorted(done)})


# ---------------------------------------------------------------- one notebook


def run_notebook(path: Path, folder: Path, parameters: dict[str, Any], limit: float) -> Outcome:
    """Execute ``path`` into ``folder`` in a process of its own, for at most ``limit`` seconds."""
    target, log = folder / path.name, folder / "logs" / f"{path.stem}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    for old in (target, target.with_suffix(".html")):
        old.unlink(missing_ok=True)
    forget(path.stem, folder)
    before, start = _stamps(folder / "artefacts"), time.perf_counter()
    command = [sys.executable, "-m", "a2lite.course.execute", str(path), str(target)]
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out)
        try:
            child.communicate(json.dumps(parameters).encode(), timeout=limit)
            status = "ok" if child.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "over limit"
        finally:
            _end(child)
    error = _what_failed(target, log) if status == "failed" else ""
    if status == "over limit":
        error = f"stopped after {limit:.0f} s; --minutes allows more"
    after = _stamps(folder / "artefacts")
    wrote = [name for name, stamp in after.items() if before.get(name) != stamp]
    return Outcome(status, round(time.perf_counter() - start, 1), error, wrote=wrote)


def _end(child: subprocess.Popen) -> None:
    """End ``child`` and its kernel, whatever state they are in."""
    try:
        family = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def _what_failed(target: Path, log: Path) -> str:
    """The first error among the executed notebook's outputs, else the last line that the process printed."""
    try:
        cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):  # it never got that far, or was cut off while writing
        cells = []
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                message = " ".join(output["evalue"].split())[:200]
                return f"In [{cell['execution_count']}]: {output['ename']}: {message}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


# ---------------------------------------------------------------- the command


def run_course(paths: list[Path], profile: str, given: dict[str, str], limit: float, again: bool) -> int:
    """Run ``paths`` in order, one summary line each; returns 1 if one failed, else 0."""
    given = {name: str(Path(text).expanduser().absolute()) if name in PLACES and text else text
             for name, text in given.items()}  # fmt: skip
    parameters = {path: check_parameters(path, {"profile": profile, **given}) for path in paths}
    folder = run_folder(profile, given.get("size", ""), given.get("output_dir", ""))
    failed, start = 0, time.perf_counter()
    width = max(len(path.stem) for path in paths)
    for path in paths:
        done = _load_done(folder)
        last, inputs = done.get(path.stem), _inputs(path, done, folder, parameters[path])
        print(f"{path.stem:{width}}  ", end="", flush=True)
        unchanged = last and (last.status, last.key) == ("ok", run_key(path, parameters[path], inputs))
        if unchanged and not again:
            print(f"{'done':10} {last.seconds:7.1f} s when it ran; nothing has changed since", flush=True)
            continue
        written = last.wrote if last else []
        _save_done(folder, done | {path.stem: Outcome("interrupted", 0.0, wrote=written)})
        outcome = run_notebook(path, folder, parameters[path], limit)
        outcome.wrote = sorted({*written, *outcome.wrote})
        inputs = {name: stamp for name, stamp in inputs.items() if name not in outcome.wrote}
        outcome.key = run_key(path, parameters[path], inputs)
        _save_done(folder, done | {path.stem: outcome})
        write_page(profile, folder)
        print(f"{outcome.status:10} {outcome.seconds:7.1f} s  {outcome.error}".rstrip(), flush=True)
        failed += outcome.status != "ok"
    page = write_page(profile, folder)
    print(f"{len(paths) - failed} of {len(paths)} notebooks in {time.perf_counter() - start:.0f} s: {page}")
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    """``python -m a2lite course``."""
    parser = argparse.ArgumentParser(prog="python -m a2lite course", description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", help="numbers or names to run (default: every notebook)")
    parser.add_argument("--profile", default="tiny", choices=PROFILES)
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--minutes", type=float, help="limit per notebook (default: the profile's)")
    parser.add_argument("--again", action="store_true", help="run also what is done and unchanged")
    choice = parser.parse_args(argv)
    if importlib.util.find_spec("papermill") is None:
        raise ValueError('the runner needs the extra "course": pip install -e ".[course]"')
    given = {}
    for item in choice.given:
        name, equals, value = item.partition("=")
        if not equals or name == "profile":
            raise ValueError(f"-p {item}: expected NAME=VALUE; the profile is chosen by --profile")
        given[name] = value
    limit = 60 * (choice.minutes or LIMIT_MINUTES[choice.profile])
    return run_course(notebooks(choice.notebooks), choice.profile, given, limit, choice.again)
