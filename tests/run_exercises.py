"""Run a notebook's code cells once, each exercise first with its stub and then with its answer.

``python run_exercises.py NOTEBOOK RESULT`` (in the notebook's folder) writes RESULT, a JSON list with one
entry per exercise: ``stub`` and ``answer`` hold what the check cell raised, or null where it passed.
"""

import json
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from a2lite.course.student import cut_solutions, tags


def raised(shell, source):
    """What running ``source`` raised, as text; None if it went through."""
    result = shell.run_cell(source)
    error = result.error_before_exec or result.error_in_exec
    return None if error is None else f"{type(error).__name__}: {error}"


def run(cells):
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    exercises = []
    for place, (source, tagged) in enumerate(cells):
        if "exercise" in tagged:
            check = cells[place + 1][0]
            error = raised(shell, cut_solutions(source))
            assert error is None, f"the stub itself raises at the top level: {error}"
            exercises.append({"stub": raised(shell, check)})
        error = raised(shell, source)
        if "check" in tagged:
            exercises[-1]["answer"] = error
        else:
            assert error is None, f"code cell {place} raises {error}:\n{source}"
    return exercises


if __name__ == "__main__":
    notebook = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    result = run([("".join(cell["source"]), tags(cell)) for cell in code])
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
