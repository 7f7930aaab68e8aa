"""``python -m a2lite doctor``: is this machine ready? One line per thing, with the remedy where it is not.

Nothing that may be broken is imported at the top, and what may hang or take the interpreter down with it
(transformers, torchaudio) is imported in a process of its own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from a2lite import ROOT

OK, WARN, FAIL = "OK", "WARN", "FAIL"
ANSWER_NEEDS = tuple(f"{name}.safetensors" for name in ("rvq", "speech", "backbone", "a2llm"))
INSTALL = 'pip install -e ".[all]"'
SPEAKING = "import torch, torchaudio, s3tokenizer, onnxruntime, hyperpyyaml, librosa, soundfile"  # with another python
SECONDS = 120  # an import that takes longer counts as broken


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` says what to do unless all is well."""

    status: str
    thing: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"  ->  {self.remedy}" if self.remedy else ""
        return f"{'[' + self.status + ']':6} {self.thing:14} {self.found}{remedy}"


def check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    oldest = (3, 10)
    if sys.version_info < oldest:
        yield Finding(FAIL, "python", version, "install Python 3.10 or newer and make the environment anew")
    else:
        yield Finding(OK, "python", f"{version} in {sys.prefix}")


def check_packages() -> Iterator[Finding]:
    """Every package that pyproject.toml names, against the bounds that it states."""
    try:
        from packaging.requirements import Requirement

        lines = importlib.metadata.requires("a2lite")
    except ModuleNotFoundError as error:
        yield Finding(FAIL, "a2lite", f"not installed in {sys.prefix} ({error})", INSTALL)
        return
    for line in lines:
        need = Requirement(line)
        optional = need.marker is not None
        if optional and (need.name == "a2lite" or not need.marker.evaluate({"extra": "course"})):
            continue
        extra = ' (extra "course")' if optional else ""
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(WARN if optional else FAIL, need.name, "not installed" + extra, INSTALL)
            continue
        if need.specifier.contains(version, prereleases=True):
            yield Finding(OK, need.name, version + extra)
        else:
            yield Finding(WARN, need.name, f"{version} is outside {need.specifier}{extra}", INSTALL)


def check_torch() -> Iterator[Finding]:
    error = _import_error("import torch")
    if error:
        yield Finding(FAIL, "torch imports", error, "pip install --force-reinstall torch==2.13.0")
        return
    import torch

    if torch.cuda.is_available():
        device, reason = "cuda", torch.cuda.get_device_name(0)
    else:
        why = "this build has no CUDA" if torch.version.cuda is None else "no CUDA device answers"
        device, reason = "cpu", f"{why}; tiny and laptop need none"
    yield Finding(OK, "torch device", f"{device} ({reason}), {torch.get_num_threads()} threads")


def check_transformers() -> Iterator[Finding]:
    """transformers imports torchaudio wherever it is installed, and fails with it; a2lite needs none."""
    if importlib.util.find_spec("torchaudio") is not None:
        error = _import_error("import torchaudio")
        if error:
            remedy = "pip uninstall torchaudio (a2lite does not need it, and transformers fails with it)"
            yield Finding(FAIL, "torchaudio", f"is installed and does not import: {error}", remedy)
            return
        yield Finding(OK, "torchaudio", "imports (not needed)")
    error = _import_error("from transformers import Qwen2ForCausalLM")
    if error:
        yield Finding(FAIL, "Qwen2", f"does not import: {error}", f"{INSTALL} in a fresh environment")
    else:
        yield Finding(OK, "Qwen2", "transformers imports it")


def check_imports() -> Iterator[Finding]:
    """Packages with compiled parts, which may be installed and broken; and espeak-ng, which is optional."""
    for name in ("soundfile", "peft", "datasets"):
        error = _import_error(f"import {name}")
        if error:
            yield Finding(FAIL, f"{name} imports", error, f"pip install --force-reinstall {name}")
    if importlib.util.find_spec("espeakng_loader") is None:
        remedy = 'pip install -e ".[world]" to synthesise the world yourself; nothing else needs it'
        yield Finding(WARN, "espeak-ng", "not installed (optional)", remedy)
    else:
        yield Finding(OK, "espeak-ng", importlib.metadata.version("espeakng-loader"))


def check_files() -> Iterator[Finding]:
    """The shipped head (its hash is checked as it is loaded) and the shipped checkpoints."""
    try:
        if error := _import_error("import a2lite.flame"):  # in a process of its own: torch may hang
            raise ImportError(error)
        head = importlib.import_module("a2lite.flame").load_head()
        yield Finding(OK, "head", f"{len(head.v_template)} vertices, hash as shipped")
    except Exception as error:
        remedy = "take the shipped one back: git checkout -- a2lite/flame"
        yield Finding(FAIL, "head", _line(f"{type(error).__name__}: {error}"), remedy)
    folder = ROOT / "data_samples" / "checkpoints"
    files = sorted(folder.glob("*.safetensors"))
    if files:
        size = sum(path.stat().st_size for path in files) / 1e6
        yield Finding(OK, "checkpoints", f"{len(files)} files, {size:.0f} MB in {folder}")
        missing = sorted(set(ANSWER_NEEDS) - {path.name for path in files})
        if missing:
            remedy = "take the shipped ones back: git checkout -- data_samples"
            yield Finding(FAIL, "answer", f"cannot run without {' and '.join(missing)}", remedy)
    else:
        remedy = "run in a whole clone: git checkout -- data_samples"
        yield Finding(FAIL, "checkpoints", f"none in {folder}", remedy)


def check_flame() -> Iterator[Finding]:
    """The official FLAME, which is optional: in folders FLAME* of the clone."""
    if _import_error("import a2lite.flame"):
        return  # told by check_files
    official = importlib.import_module("a2lite.flame.official")
    files = [path for name in official.FILES for path in sorted(ROOT.glob(f"FLAME*/{name}"))]
    if not files:
        remedy = "optional, https://flame.is.tue.mpg.de, after registration (README, Optional downloads)"
        yield Finding(OK, "FLAME", f"the head of our own; no file in {ROOT / 'FLAME*'}: {remedy}")
    for path in files:
        place = path.relative_to(ROOT)
        try:
            yield Finding(OK, "FLAME", f"{official.flame_version(path)} in {place}")
        except (ValueError, OSError) as error:
            remedy = "download it again (https://flame.is.tue.mpg.de, after registration) or take it away"
            yield Finding(WARN, "FLAME", f"{place}: " + _line(str(error).removeprefix(f"{path}: ")), remedy)


def check_speech() -> Iterator[Finding]:
    """Step-Audio-2's speech, which is optional: onnxruntime for its tokens, another environment to speak them."""
    if importlib.util.find_spec("onnxruntime") is None:
        remedy = 'pip install -e ".[speech]" for Step-Audio-2\'s speech tokens; nothing else needs it'
        yield Finding(WARN, "onnxruntime", "not installed (optional)", remedy)
    elif error := _import_error("import onnxruntime"):
        yield Finding(FAIL, "onnxruntime", error, "pip install --force-reinstall onnxruntime")
    else:
        yield Finding(OK, "onnxruntime", importlib.metadata.version("onnxruntime"))
    python, code = os.environ.get("A2LITE_SPEECH_PYTHON"), os.environ.get("A2LITE_STEP_AUDIO_CODE")
    if not python and not code:
        yield Finding(OK, "token2wav", "no environment for it: optional (README, Speech at full size)")
        return
    remedy = "README, Speech at full size"
    if not python or not os.path.isfile(python):
        yield Finding(WARN, "token2wav", f"A2LITE_SPEECH_PYTHON names no interpreter ({python})", remedy)
    elif error := _import_error(SPEAKING, python):
        remedy = f"pip install -r requirements-speech.txt there ({remedy})"
        yield Finding(WARN, "token2wav", f"{python}: {error}", remedy)
    elif error := _import_error("import torch; assert torch.cuda.is_available(), 'no CUDA device answers'", python):
        yield Finding(WARN, "token2wav", f"{python}: {error}", "token2wav needs an NVIDIA GPU and its driver")
    else:
        yield Finding(OK, "token2wav", python)
    if not code or not os.path.isfile(os.path.join(code, "token2wav.py")):
        remedy = "let it name a clone of stepfun-ai/Step-Audio2"
        yield Finding(WARN, "token2wav", f"A2LITE_STEP_AUDIO_CODE has no token2wav.py ({code})", remedy)


def check_disk() -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 5:
        status, remedy = (FAIL if free < 0.5 else WARN), "free some: the profile laptop writes about 2 GB"
        yield Finding(status, "disk", f"{free:.1f} GB free at {ROOT}", remedy)
    else:
        yield Finding(OK, "disk", f"{free:.0f} GB free at {ROOT}")
    runs = ROOT / "runs"
    try:
        runs.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            yield Finding(OK, "write access", str(runs))
    except OSError as error:
        remedy = "make it writable, or set A2LITE_ROOT to a copy of the clone that is"
        yield Finding(FAIL, "write access", f"{runs}: {error.strerror}", remedy)


CHECKS: list[Callable[[], Iterator[Finding]]] = [
    check_python,
    check_packages,
    check_torch,
    check_transformers,
    check_imports,
    check_files,
    check_flame,
    check_speech,
    check_disk,
]


def _import_error(statement: str, python: str = "") -> str:
    """The last line of what ``statement`` raises in a process of its own; empty when it goes through.

    ``python`` is another environment's interpreter, which sees nothing of this one.
    """
    command = [python, "-I", "-c", statement] if python else [sys.executable, "-c", statement]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"still importing after {SECONDS} s"
    except OSError as error:
        return f"cannot be run ({error.strerror})"
    if result.returncode == 0:
        return ""
    lines = result.stderr.decode("utf-8", "replace").strip().split("\n")
    return _line(lines[-1]) or f"ended with code {result.returncode}"


def _line(text: str) -> str:
    return " ".join(text.split())[:160]


def main(argv: list[str]) -> int:
    """``python -m a2lite doctor``: prints the findings as they come; 1 if something fails."""
    if argv:
        raise ValueError(f"doctor takes no arguments, got {' '.join(argv)}")
    counts = {OK: 0, WARN: 0, FAIL: 0}
    for check in CHECKS:
        for finding in check():
            print(finding, flush=True)
            counts[finding.status] += 1
    print(f"{counts[OK]} in order, {counts[WARN]} to know, {counts[FAIL]} to mend")
    return 1 if counts[FAIL] else 0
