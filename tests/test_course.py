"""The batch runner and the student's version, on a course of a few cells built here."""

import json
import os
import subprocess
import sys

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from a2lite.__main__ import main
from a2lite.course import figures, report, runner, student

PARAMETERS = 'profile = "tiny"  # tiny | laptop | a100\nsteps = 3  # how many\nfast = False  # or not'
GOOD = """from a2lite import ROOT, course
folder = ROOT / "runs" / profile / "artefacts"
folder.mkdir(parents=True, exist_ok=True)
(folder / "{name}.txt").write_text("x" * steps)
course.report("{name}", profile, {{"steps": steps, "usage": (0.97, 0.99, "Table 3")}})"""
BAD = "profile = profile + '!'\nraise RuntimeError('the codebook\\ncollapsed')"
ENDLESS = "print('begun', flush=True)\nimport time\ntime.sleep(600)"
EXERCISE = """def double(x):
    if x:
        ### BEGIN SOLUTION
        y = 2 * x
        return y
        ### END SOLUTION
    return 0"""
CHECK = "assert double(2) == 4, 'twice two is four'"


def write_notebook(path, *sources):
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {path.stem}"), parameters, *map(new_code_cell, sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A folder in the place of the clone, and a library that does not change under the test."""
    monkeypatch.setattr(runner, "_library", lambda: "as it is")
    for module in (figures, runner, student):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("A2LITE_ROOT", str(tmp_path))
    return tmp_path


def run(capsys, *arguments):
    """``python -m a2lite course ...``: exit code, lines, stderr."""
    code = main(["course", *arguments])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err


# ---------------------------------------------------------------- the runner


def test_a_failure_does_not_stop_the_rest_and_done_work_is_skipped(kit, capsys):
    write_notebook(kit / "notebooks" / "00_first.ipynb", GOOD.format(name="00_first"))
    write_notebook(kit / "notebooks" / "01_bad.ipynb", BAD)
    write_notebook(kit / "notebooks" / "02_last.ipynb", GOOD.format(name="02_last"))

    code, lines, stderr = run(capsys)
    assert (code, stderr) == (1, "")
    assert [line.split()[0] for line in lines[:3]] == ["00_first", "01_bad", "02_last"]
    assert [line.split()[1] for line in lines[:3]] == ["ok", "failed", "ok"]
    assert "RuntimeError: the codebook collapsed" in lines[1]
    assert lines[3].startswith("2 of 3 notebooks")

    folder = kit / "runs" / "tiny"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["00_first"]["usage"] == {"value": 0.97, "paper": 0.99, "where": "Table 3"}
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert all(word in index for word in ("00_first", "RuntimeError", "0.97", "0.99", "Table 3"))
    assert (folder / "02_last.html").stat().st_size > 1000

    os.utime(folder / "artefacts" / "02_last.txt")  # its own product: no reason to run again
    code, lines, _ = run(capsys, "00", "02")
    assert (code, [line.split()[1] for line in lines[:2]]) == (0, ["done", "done"])
    os.utime(folder / "artefacts" / "00_first.txt")  # the first one's product is an input of the last
    code, lines, _ = run(capsys, "00", "02")
    assert (code, [line.split()[1] for line in lines[:2]]) == (0, ["done", "ok"])


def test_a_notebook_over_its_limit_is_stopped_with_its_kernel(kit):
    write_notebook(kit / "notebooks" / "00_endless.ipynb", ENDLESS)
    path = kit / "notebooks" / "00_endless.ipynb"
    outcome = runner.run_notebook(path, kit / "runs" / "tiny", {}, limit=15)
    assert outcome.status == "over limit"
    assert "begun" in (kit / "runs" / "tiny" / "logs" / "00_endless.txt").read_text(encoding="utf-8")
    assert not [child for child in psutil.Process().children(recursive=True) if "ipykernel" in str(child)]


def test_a_notebook_that_was_cut_off_while_it_was_written_is_told_from_its_log(tmp_path):
    (tmp_path / "00.ipynb").write_text('{"cells": [{"outp', encoding="utf-8")
    (tmp_path / "00.txt").write_bytes(b"starting\nNo space left: caf\xe9\n")
    assert runner._what_failed(tmp_path / "00.ipynb", tmp_path / "00.txt").startswith("No space left")
    assert runner._what_failed(tmp_path / "none.ipynb", tmp_path / "00.txt").startswith("No space left")


def test_parameters_are_checked_before_anything_runs(kit, capsys):
    path = kit / "notebooks" / "03_rvq.ipynb"
    write_notebook(path, "steps")
    good = {"steps": "20", "fast": "true", "profile": "laptop"}
    assert runner.check_parameters(path, good) == {"steps": 20, "fast": True, "profile": "laptop"}
    with pytest.raises(ValueError, match="03_rvq has no parameter 'stepz'; it has: profile, steps, fast"):
        runner.check_parameters(path, {"stepz": "20"})
    with pytest.raises(ValueError, match=r"expected int \(default 3\), got 'many'"):
        runner.check_parameters(path, {"steps": "many"})
    code, lines, stderr = run(capsys, "-p", "stepz=20")
    assert (code, lines) == (2, [])
    assert stderr == "a2lite: notebook 03_rvq has no parameter 'stepz'; it has: profile, steps, fast\n"


def test_a_run_goes_to_its_own_folder_and_takes_up_what_it_is_given(kit, capsys, monkeypatch):
    parameters = PARAMETERS + '\ndata_dir = ""  # samples\noutput_dir = ""  # results'
    report_it = "from pathlib import Path; from a2lite import course\n"
    report_it += "course.report('00_first', profile, {'data': Path(data_dir).name}, Path(output_dir))"
    write_notebook(kit / "notebooks" / "00_first.ipynb", report_it)
    book = nbformat.read(kit / "notebooks" / "00_first.ipynb", 4)
    book.cells[1].source = parameters
    nbformat.write(book, kit / "notebooks" / "00_first.ipynb")
    (kit / "mine").mkdir()
    (kit / "mine" / "a.parquet").touch()
    monkeypatch.chdir(kit)  # where relative paths begin
    given = ["-p", "data_dir=mine", "-p", "output_dir=out"]
    assert [run(capsys, *given)[1][0].split()[1] for _ in range(2)] == ["ok", "done"]
    assert figures.read_figures(kit / "out")["00_first"]["data"]["value"] == "mine"
    assert (kit / "out" / "index.html").exists() and not (kit / "runs").exists()
    os.utime(kit / "mine" / "a.parquet", (0, 0))
    assert run(capsys, *given)[1][0].split()[1] == "ok"


def test_the_key_follows_cells_parameters_and_inputs_but_not_outputs(kit):
    path = kit / "notebooks" / "00_first.ipynb"
    write_notebook(path, "print(1)")
    key = runner.run_key(path, {"steps": 3}, {"a": [1, 2]})
    notebook = nbformat.read(path, 4)
    notebook.cells[-1]["outputs"] = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(notebook, path)
    assert runner.run_key(path, {"steps": 3}, {"a": [1, 2]}) == key
    assert runner.run_key(path, {"steps": 4}, {"a": [1, 2]}) != key
    assert runner.run_key(path, {"steps": 3}, {"a": [1, 3]}) != key
    write_notebook(path, "print(2)")
    assert runner.run_key(path, {"steps": 3}, {"a": [1, 2]}) != key


def test_a_name_that_begins_no_notebook_is_refused(kit):
    with pytest.raises(FileNotFoundError, match="no notebooks in"):
        runner.notebooks([])
    write_notebook(kit / "notebooks" / "00_first.ipynb")
    assert [path.stem for path in runner.notebooks(["00"])] == ["00_first"]
    with pytest.raises(ValueError, match="no notebook begins with '07'; there are 00_first"):
        runner.notebooks(["07"])


# ---------------------------------------------------------------- figures


def test_figures_merge_by_name(kit):
    report("03_rvq", "tiny", {"usage": 0.5, "codes": 256})
    report("03_rvq", "tiny", {"usage": (torch.tensor(0.75), 0.99, "Table 3")})
    report("07_metrics", "tiny", {"passed": True})
    read = figures.read_figures(kit / "runs" / "tiny")
    assert read["03_rvq"]["usage"] == {"value": 0.75, "paper": 0.99, "where": "Table 3"}
    assert read["03_rvq"]["codes"]["value"] == 256
    assert read["07_metrics"]["passed"]["value"] is True


def test_a_figure_must_be_finite_and_plain(kit):
    with pytest.raises(ValueError, match="03_rvq, figure 'usage' is nan"):
        report("03_rvq", "tiny", {"usage": float("nan")})
    with pytest.raises(ValueError, match="expected a number, a truth or a text, got list"):
        report("03_rvq", "tiny", {"usage": [1, 2]})
    with pytest.raises(ValueError, match="profile 'huge'"):
        report("03_rvq", "huge", {"usage": 1})
    assert figures.read_figures(kit / "runs" / "tiny") == {}


def test_figures_of_two_processes_do_not_overwrite_each_other(kit):
    script = """import sys; from a2lite.course import report
for number in range(50): report(sys.argv[1], "tiny", {f"figure {number}": number})"""
    names = ["03_rvq", "07_metrics"]
    workers = [subprocess.Popen([sys.executable, "-c", script, name]) for name in names]
    assert [worker.wait() for worker in workers] == [0, 0]
    read = figures.read_figures(kit / "runs" / "tiny")
    assert {name: len(entries) for name, entries in read.items()} == dict.fromkeys(names, 50)


# ---------------------------------------------------------------- the student's version


def test_answers_are_cut_at_their_indentation():
    stub = student.cut_solutions(EXERCISE)
    assert stub.split("\n")[2:4] == ["        # YOUR CODE HERE", "        raise NotImplementedError()"]
    assert stub.endswith("    return 0")
    assert "2 * x" not in stub
    for broken in (student.BEGIN, student.END, f"{student.BEGIN}\n{student.BEGIN}"):
        with pytest.raises(ValueError, match="SOLUTION"):
            student.cut_solutions(broken)


def test_the_students_version_keeps_checks_and_drops_outputs(kit):
    path = kit / "notebooks" / "03_rvq.ipynb"
    write_notebook(path, "1 + 1", EXERCISE, CHECK)
    notebook = nbformat.read(path, 4)
    for count, cell in enumerate(notebook.cells[1:], 1):
        cell.update(execution_count=count, outputs=[nbformat.v4.new_output("stream", text="kept?\n")])
    notebook.cells[3].metadata["tags"], notebook.cells[4].metadata["tags"] = ["exercise"], ["check"]
    nbformat.write(notebook, path)
    (kit / "notebooks" / "figures").mkdir()
    (kit / "notebooks" / "figures" / "one.png").write_bytes(b"png")

    student.write_student(kit / "student")
    assert (kit / "student" / "figures" / "one.png").exists()
    cut = nbformat.read(kit / "student" / "03_rvq.ipynb", 4)
    nbformat.validate(cut)
    assert [bool(cell.outputs) for cell in cut.cells[1:]] == [True, True, False, False]
    exercise, check = cut.cells[3], cut.cells[4]
    assert "raise NotImplementedError()" in exercise.source
    assert check.source == CHECK
    marks = [exercise.metadata.nbgrader, check.metadata.nbgrader]
    assert [mark.solution for mark in marks] == [True, False]
    assert [mark.grade for mark in marks] == [False, True]
    assert check.metadata.nbgrader.points == 1
    with pytest.raises(ValueError, match="may hold work"):
        student.write_student(kit / "student")
