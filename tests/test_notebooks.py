"""Every notebook keeps the course's rules, its exercises can be failed and solved, and nbval sees a fault."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebook_rules
from a2lite import ROOT
from notebook_rules import PARAMETERS, PLACE, RULES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@BY_NAME
@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_the_rules_hold(path, rule):
    complaints = list(rule(json.loads(path.read_text(encoding="utf-8"))))
    assert not complaints, f"{path.name}: " + "\n".join(complaints)


@BY_NAME
def test_checks_fail_on_the_stub_and_pass_on_the_answer(path, tmp_path):
    exercises = run_exercises(path, tmp_path / "result.json")
    for number, exercise in enumerate(exercises, 1):
        assert exercise["stub"] is not None, f"exercise {number}: its check passes on the stub"
        assert exercise["answer"] is None, f"exercise {number}: its answer fails: {exercise['answer']}"


def run_exercises(path, result):
    command = [sys.executable, str(Path(__file__).with_name("run_exercises.py")), str(path), str(result)]
    run = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"{path.name}: {(run.stdout + run.stderr)[-3000:]}"
    return json.loads(result.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- a planted fault

RVQ = ROOT / "notebooks" / "03_rvq_tokenization.ipynb"
FAULTS = {
    "nothing": ("stride=5", "stride=5"),
    "groups of four": ("kernel_size=5, stride=5", "kernel_size=4, stride=4"),
    "swapped axes": ("layer.weight.transpose(1, 2).reshape", "layer.weight.reshape"),
    "another output": ("print(tuple(toy.shape)", "print(tuple(toy.shape)[::-1]"),
}


def plant(notebook, old, new):
    """Parameters, imports, and the code cell that has ``old``, with ``new`` in its place."""
    cut = copy.deepcopy(notebook)
    code = [cell for cell in cut.cells if cell.cell_type == "code"]
    (faulty,) = [cell for cell in code if old in cell.source]
    faulty.source = faulty.source.replace(old, new)
    cut.cells = [*code[:2], faulty]
    return cut


@pytest.mark.skipif(not RVQ.exists(), reason="notebook 03 is not there yet")
def test_nbval_turns_red_on_a_planted_fault(tmp_path):
    notebook = nbformat.read(RVQ, 4)
    for name, (old, new) in FAULTS.items():
        nbformat.write(plant(notebook, old, new), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--nbval-lax", "--nbval-current-env", "."]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    failed = [line for line in printed.splitlines() if line.startswith("FAILED")]
    red = {name for name in FAULTS if any(f"{name}.ipynb" in line for line in failed)}
    assert red == set(FAULTS) - {"nothing"}, printed[-3000:]
    assert len(failed) == 3, "a fault must show in its own cell alone"


# ---------------------------------------------------------------- the rules themselves

GOOD_PARAMETERS = PARAMETERS + "steps = 3  # how many"
PAPER_MAP = """## Paper map
| paper | here | symbol | status |
|---|---|---|---|
| Sec. 3.2 | by hand | `a2lite.config.MotionConfig.fps` | reproduced |
| Sec. 9 | nowhere | | not attempted (no room) |"""
ANSWER = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
PROSE = "What is said here takes many more words than the code does, and says why before it says how. " * 5


def code(text, *tags, output=None):
    outputs = [] if output is None else [new_output("stream", text=output)]
    return new_code_cell(text, metadata={"tags": list(tags)}, outputs=outputs)


@pytest.fixture
def good():
    """The smallest notebook that keeps every rule."""
    check = "assert double(2) == 4"
    cells = [
        new_markdown_cell("# A room\nSec. 3.2. Time: tiny 5 s, laptop 2 min."),
        code(GOOD_PARAMETERS, "parameters"),
        new_markdown_cell(PROSE),
        code(f"from a2lite.workplace import Workplace\n\n{PLACE}"),
        *[code(f"print({n})", "nbval-check-output", output=f"{n}\n") for n in range(3)],
        code("draw()"),
        new_markdown_cell("*Figure: what to see.*"),
        code(ANSWER, "exercise"),
        code(check, "check"),
        code(ANSWER, "exercise"),
        code(check, "check"),
        new_markdown_cell(PAPER_MAP),
        code("place.report('x', {})\nassert steps < 9"),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    cells[7].outputs = [new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    return new_notebook(cells=cells)


def test_a_good_notebook_has_no_complaints(good):
    nbformat.validate(good)
    assert [complaint for rule in RULES for complaint in rule(good)] == []




def set_source(place, text):
    return lambda cells: cells[place].update(source=text)


def print_also(place, text):
    return lambda cells: cells[place].outputs.append(new_output("stream", text=text))


def untag(place):
    return lambda cells: cells[place].metadata.update(tags=[])


ERROR = new_output("error", ename="ValueError", evalue="", traceback=[])
BREAK = {
    "no paper section": ("opening", set_source(0, "# A room\nTime: tiny 5 s, laptop 2 min")),
    "no time for laptop": ("opening", set_source(0, "# A room\nSec. 3.2. Time: tiny 5 s")),
    "another profile": ("parameters", set_source(1, GOOD_PARAMETERS.replace("tiny", "a100", 1))),
    "a computed parameter": ("parameters", set_source(1, GOOD_PARAMETERS + "\nn = len('x')  # n")),
    "no comment": ("parameters", set_source(1, GOOD_PARAMETERS + "\nn = 3")),
    "a long line": ("code_size", set_source(4, "print(0)  # " + "x" * 79)),
    "a long cell": ("code_size", set_source(4, "print(0)\n" * 26)),
    "little prose": ("prose", set_source(2, "Short.")),
    "not executed": ("executed", lambda cells: cells[4].update(execution_count=None)),
    "an error": ("executed", lambda cells: cells[7].outputs.append(ERROR)),
    "too large": ("executed", print_also(4, "x" * 500_000)),
    "two outputs to compare": ("compared", untag(4)),
    "nothing to compare": ("compared", lambda cells: cells[4].update(outputs=[])),
    "a home folder": ("portable", set_source(4, "open('/home/me/x.wav')")),
    "a printed folder": ("portable", print_also(4, "C:\\me")),
    "a shell command": ("portable", set_source(4, "!pip install x")),
    "no caption": ("captions", set_source(8, "And so on.")),
    "no such symbol": ("paper_map", set_source(13, PAPER_MAP.replace("Config.fps", "Config.gps"))),
    "no such status": ("paper_map", set_source(13, PAPER_MAP.replace("reproduced", "done"))),
    "one exercise": ("exercises", untag(11)),
    "no check": ("exercises", untag(10)),
    "no markers": ("exercises", set_source(9, "def double(x):\n    return 2 * x")),
    "no report": ("closing", set_source(14, "assert True")),
    "no bounds": ("closing", set_source(14, "place.report('x', {})")),
    "no workplace": ("workplace", set_source(3, "import torch")),
    "past the workplace": ("workplace", set_source(4, "load_samples(profile, 'train')")),
    "a shared name for something else": ("workplace", set_source(4, "for size in (1, 2):\n    print(size)")),
    "another order": ("parameters", set_source(1, "size = ''  # x\n" + GOOD_PARAMETERS)),
}


@pytest.mark.parametrize("fault", BREAK)
def test_a_rule_sees_the_fault(good, fault):
    rule, damage = BREAK[fault]
    damage(good.cells)
    assert list(getattr(notebook_rules, rule)(good)), f"{rule} does not see: {fault}"


def test_a_check_that_passes_on_the_stub_is_seen(good, tmp_path, monkeypatch):
    monkeypatch.setenv("A2LITE_ROOT", str(tmp_path))
    good.cells[7].source = "print('drawn')"
    good.cells[12].source = "assert callable(double)"
    nbformat.write(good, tmp_path / "00_good.ipynb")
    first, second = run_exercises(tmp_path / "00_good.ipynb", tmp_path / "result.json")
    assert first == {"stub": "NotImplementedError: ", "answer": None}
    assert second == {"stub": None, "answer": None}
