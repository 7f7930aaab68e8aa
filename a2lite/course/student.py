"""The course without its answers: what ``make student`` and ``python -m a2lite student`` write.

Answers stand between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` in cells tagged ``exercise``; the cell
after one, tagged ``check``, tells at once whether an answer holds. The markers and the cell metadata are
nbgrader's, so that a class that uses it can take the notebooks as they are.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
from pathlib import Path

from a2lite import ROOT

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = ["# YOUR CODE HERE", "raise NotImplementedError()"]


def cut_solutions(source: str) -> str:
    """``source`` with every solution region replaced by a stub at its indentation, as nbgrader does.

    Raises ValueError for markers that do not come in pairs.
    """
    kept, inside = [], False
    for line in source.split("\n"):
        if line.strip() in (BEGIN, END):
            if inside == (line.strip() == BEGIN):
                raise ValueError(f"{line.strip()!r} without its pair: {BEGIN} and {END} must alternate")
            inside = not inside
            if inside:
                indent = line[: len(line) - len(line.lstrip())]
                kept += [indent + stub for stub in STUB]
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"{BEGIN!r} without {END!r}")
    return "\n".join(kept)


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def student_version(notebook: dict, name: str) -> dict:
    """A copy of ``notebook`` (its JSON) without answers, and without outputs from the first exercise on."""
    notebook = copy.deepcopy(notebook)
    exercises = started = 0
    for cell in notebook["cells"]:
        exercises += "exercise" in tags(cell)
        started = started or exercises
        if "exercise" in tags(cell):
            cell["source"] = cut_solutions("".join(cell["source"]))
            cell["metadata"]["nbgrader"] = _nbgrader(f"{name}-exercise-{exercises}", grade=False)
        elif "check" in tags(cell):
            cell["metadata"]["nbgrader"] = _nbgrader(f"{name}-check-{exercises}", grade=True)
        if started and cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return notebook


def _nbgrader(identity: str, grade: bool) -> dict:
    """nbgrader's mark on an answer cell, or (``grade``) on the cell that tests it, worth one point."""
    identity = re.sub(r"[^\w-]", "-", identity)
    mark = {"grade_id": identity, "grade": grade, "locked": grade, "solution": not grade, "task": False}
    return {**mark, **({"points": 1} if grade else {}), "schema_version": 3}


def write_student(out: Path) -> list[Path]:
    """Write the student's version of every notebook, and the files beside them, under ``out``.

    Raises ValueError when something of that name is there already: it may hold a student's work.
    """
    folder = ROOT / "notebooks"
    hidden = {".ipynb_checkpoints", "__pycache__"}
    sources = [p for p in sorted(folder.rglob("*")) if p.is_file() and not hidden & set(p.parts)]
    targets = [out / path.relative_to(folder) for path in sources]
    for target in targets:
        if target.exists():
            raise ValueError(f"{target} exists and may hold work: remove {out} or choose another --out")
    for source, target in zip(sources, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".ipynb":
            shutil.copyfile(source, target)
            continue
        notebook = student_version(json.loads(source.read_text(encoding="utf-8")), source.stem)
        target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return targets


def main(argv: list[str]) -> int:
    """``python -m a2lite student``."""
    parser = argparse.ArgumentParser(prog="python -m a2lite student", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("student"), help="where to (default: student)")
    out = parser.parse_args(argv).out
    written = write_student(out)
    print(f"{sum(path.suffix == '.ipynb' for path in written)} notebooks without answers in {out}")
    return 0
