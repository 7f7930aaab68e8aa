"""Rules that hold for the whole repository: licences, bounds, safety of what is loaded, the front door."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import a2lite
from a2lite.__main__ import main

FILES = sorted(Path(a2lite.__file__).parent.rglob("*.py"))
LIBRARY = {path.relative_to(a2lite.ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
CODE = r"pickle\.loads?\(|torch\.load\((?!.*weights_only=True)|allow_pickle=True|trust_remote_code=True"
NETWORK = r"\burlopen\(|\burlretrieve\(|import (requests|urllib|http|socket)|from (requests|urllib|http|socket)"


def imported(tree):
    """Names of the packages that a module or a part of one imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_what_others_license_stays_outside():
    """smplx (non-commercial) is never imported, espeak-ng (GPL) only inside a function of the world."""
    for name, source in LIBRARY.items():
        tree = ast.parse(source)
        assert "smplx" not in set(imported(tree)), name
        if "espeakng_loader" in set(imported(tree)):
            assert name.startswith("a2lite/world"), name
            top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert "espeakng_loader" not in {found for node in top for found in imported(node)}, name


def test_files_from_outside_are_data_never_code_and_nothing_is_fetched():
    found = [f"{name}: {match[0]}" for name, text in LIBRARY.items() for match in re.finditer(CODE, text)]
    found += [f"{name}: {match[0]}" for name, text in LIBRARY.items() for match in re.finditer(NETWORK, text)]
    assert not found
    readers = [name for name, text in LIBRARY.items() if "pickle" in set(imported(ast.parse(text)))]
    assert readers == ["a2lite/flame/pickles.py"]  # whose unpickler builds inert records only


def test_a_file_fits_on_a_few_screens_and_says_what_it_is():
    assert {name: len(text.splitlines()) for name, text in LIBRARY.items() if text.count("\n") > 400} == {}
    assert [name for name, text in LIBRARY.items() if not ast.get_docstring(ast.parse(text))] == []


def test_conda_and_pip_give_the_same_environment():
    content = yaml.safe_load((a2lite.ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    lines = [line for line in content if isinstance(line, str)] + content[-1]["pip"]
    conda = {need.name: need.specifier for need in map(Requirement, lines[:-1])}
    conda["torch"] = conda.pop("pytorch")
    assert lines[-1] == "-e ."
    needs = map(Requirement, importlib.metadata.requires("a2lite"))
    apart = 'extra == "quantised"'  # a large package that few need
    pip = {need.name: need.specifier for need in needs if need.name != "a2lite" and str(need.marker) != apart}
    assert {name: conda[name] for name in conda if name not in ("python", "pip")} == pip
    assert all("<" in str(bounds) and ">=" in str(bounds) for bounds in pip.values())


def test_whatever_is_imported_is_declared():
    names = {"PIL": "pillow", "espeakng_loader": "espeakng-loader"}
    declared = {Requirement(line).name for line in importlib.metadata.requires("a2lite")}
    found = {name for source in LIBRARY.values() for name in imported(ast.parse(source))}
    ours = {"a2lite"} | set(sys.stdlib_module_names)
    assert {names.get(name, name) for name in found - ours} <= declared


def test_the_readme_names_what_exists():
    readme = (a2lite.ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("```")[-2]
    named = [name for line in tree.splitlines() for name in line[:24].split() if line.startswith("  ")]
    assert named
    assert [name for name in named if not (a2lite.ROOT / "a2lite" / name).exists()] == []
    assert [name for name in re.findall(r"data_samples/\S+", readme) if not (a2lite.ROOT / name).exists()] == []
    makefile = (a2lite.ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in re.findall(r"`make (\w+)", readme) if f"\n{target}:" not in makefile] == []


def test_the_version_stands_once():
    assert importlib.metadata.version("a2lite") == a2lite.__version__


def test_the_front_door_opens_without_torch():
    script = "import sys, a2lite.__main__, a2lite.doctor, a2lite.course; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_mistake_ends_in_one_line_and_code_2(capsys):
    assert main(["dance"]) == 2
    assert capsys.readouterr().err.startswith("a2lite: no command 'dance'; there are answer, course, ")
    assert main(["doctor", "me"]) == 2
    assert capsys.readouterr().err == "a2lite: doctor takes no arguments, got me\n"
    assert main([]) == 0
    assert "python -m a2lite COMMAND" in capsys.readouterr().out


def test_the_traceback_shows_on_request(monkeypatch):
    monkeypatch.setenv("A2LITE_DEBUG", "1")
    with pytest.raises(ValueError, match="takes no arguments"):
        main(["doctor", "me"])
