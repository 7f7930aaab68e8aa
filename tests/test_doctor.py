"""The doctor names what is wrong and the remedy, and ends with 1 only when something must be mended."""

import hashlib
import subprocess
import sys

import pytest

from a2lite import doctor
from a2lite.__main__ import main
from a2lite.flame import official

BROKEN_TORCHAUDIO = 'raise RuntimeError("PyTorch has CUDA version 13.2 whereas TorchAudio has 13.0")\n'


@pytest.fixture
def broken_torchaudio(tmp_path, monkeypatch):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(BROKEN_TORCHAUDIO, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_broken_torchaudio_is_named_with_its_remedy(broken_torchaudio):
    run = subprocess.run([sys.executable, "-m", "a2lite", "doctor"], capture_output=True, text=True)
    (line,) = [line for line in run.stdout.splitlines() if "torchaudio " in line]
    assert line.startswith("[FAIL] torchaudio")
    assert "CUDA version 13.2" in line
    assert "pip uninstall torchaudio" in line
    assert run.returncode == 1
    assert run.stderr == ""
    names = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("[")]
    assert {"python", "torch", "transformers", "smplx", "head", "FLAME", "checkpoints", "disk"} <= set(names)


def test_an_import_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    assert "still importing" in doctor._import_error("import time; time.sleep(30)")


def test_a_crash_without_a_message_is_told_by_its_code():
    assert "3" in doctor._import_error("import os; os._exit(3)")
    assert doctor._import_error("import json") == ""


def test_a_package_outside_the_tested_bounds_is_a_warning(monkeypatch):
    needs = ["numpy<1.0", "no-such-package>=1", "smplx<0.1; extra == 'course'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needs)
    findings = {finding.thing: finding for finding in doctor.check_packages()}
    assert findings["numpy"].status == doctor.WARN
    assert "<1.0" in findings["numpy"].found
    assert findings["no-such-package"].status == doctor.FAIL
    assert findings["smplx"].status == doctor.WARN


def test_without_flame_one_line_tells_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (finding,) = doctor.check_flame()
    assert (finding.status, finding.thing) == (doctor.OK, "FLAME")
    assert "optional" in finding.found and "flame.is.tue.mpg.de" in finding.found


def test_flame_files_are_found_named_and_left_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    good, pointer = tmp_path / "FLAME2020" / "generic_model.pkl", tmp_path / "FLAME2023" / "flame2023.pkl"
    for path in (good, pointer):
        path.parent.mkdir()
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setitem(official.KNOWN, hashlib.sha256(good.read_bytes()).hexdigest(), "FLAME 2020")
    pointer.write_bytes(pointer.read_bytes() + b"size 1\n")
    first, second = doctor.check_flame()
    assert first.status == doctor.OK and "FLAME 2020 in" in first.found and "generic_model.pkl" in first.found
    assert second.status == doctor.WARN and "Git LFS pointer" in second.found and second.remedy
    assert sorted(tmp_path.rglob("*.*")) == [good, pointer]


def speaking(monkeypatch, python=None, code=None):
    """What the doctor finds about token2wav."""
    for variable, value in (("A2LITE_SPEECH_PYTHON", python), ("A2LITE_STEP_AUDIO_CODE", code)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, str(value))
    return [finding for finding in doctor.check_speech() if finding.thing == "token2wav"]


def test_step_audios_speech_is_optional(monkeypatch):
    (finding,) = speaking(monkeypatch)
    assert finding.status == doctor.OK and "optional" in finding.found
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = next(iter(doctor.check_speech()))
    assert finding.status == doctor.WARN and '".[speech]"' in finding.remedy


def test_the_speech_environment_is_tried_with_its_own_python(tmp_path, monkeypatch):
    (tmp_path / "token2wav.py").write_text("")
    (finding,) = speaking(monkeypatch, tmp_path / "python", tmp_path)
    assert finding.status == doctor.WARN and "names no interpreter" in finding.found
    (finding,) = speaking(monkeypatch, tmp_path / "token2wav.py", tmp_path)
    assert "cannot be run" in finding.found
    monkeypatch.setattr(doctor, "SPEAKING", "import json, a_package_that_is_not_there")
    finding, other = speaking(monkeypatch, sys.executable, tmp_path / "nowhere")
    assert "No module named 'a_package_that_is_not_there'" in finding.found
    assert "requirements-speech.txt" in finding.remedy
    assert other.status == doctor.WARN and "A2LITE_STEP_AUDIO_CODE has no token2wav.py" in other.found


def test_a_torchaudio_that_does_not_fit_is_found_there_too(broken_torchaudio, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "SPEAKING", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torchaudio")
    (tmp_path / "token2wav.py").write_text("")
    (finding,) = speaking(monkeypatch, sys.executable, tmp_path)
    assert finding.status == doctor.WARN and "TorchAudio has 13.0" in finding.found


def test_a_read_only_clone_is_told(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (finding,) = [finding for finding in doctor.check_disk() if finding.thing == "write access"]
    assert finding.status == doctor.FAIL
    assert "A2LITE_ROOT" in finding.remedy


def test_the_exit_code_tells_whether_something_fails(monkeypatch, capsys):
    warning = doctor.Finding(doctor.WARN, "thing", "somewhat odd", "look at it")
    failure = doctor.Finding(doctor.FAIL, "thing", "broken", "mend it")
    monkeypatch.setattr(doctor, "CHECKS", [lambda: iter([warning])])
    assert main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "CHECKS", [lambda: iter([warning, failure])])
    assert main(["doctor"]) == 1
    assert "[FAIL] thing          broken  ->  mend it" in capsys.readouterr().out
