"""One notebook in a process of its own: ``python -m a2lite.course.execute SOURCE TARGET < parameters.json``.

A process per notebook, since kernels started one after the other in the same process leave threads and
memory behind. What the cells print goes to this process's stdout while they run; the executed notebook is
saved after every cell, and as HTML at the end, also when a cell failed. Exit code 1 means that one did.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError


def execute(source: Path, target: Path, parameters: dict) -> bool:
    """Run ``source`` with ``parameters`` into ``target`` and ``target``.html; False when a cell failed."""
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
            cwd=str(source.parent),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stdout,
            coalesce_streams=True,
            store_widget_state=False,
        )
        return True
    except PapermillExecutionError as error:
        print(f"{error.ename}: {error.evalue}")
        return False
    finally:
        if target.exists():
            html, _ = HTMLExporter().from_filename(str(target))
            target.with_suffix(".html").write_text(html, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("A2LITE_HEADLESS", "1")  # pictures for live views
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    finished = execute(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.stdin.read()))
    sys.exit(0 if finished else 1)
