"""Step-Audio 2's token2wav (flow matching, HiFT) in a process and an environment of its own.

It needs torchaudio, which breaks transformers wherever its release does not fit torch's, and packages of its own.
So ``worker.py`` runs the official code under the interpreter that ``A2LITE_SPEECH_PYTHON`` names, and this file talks
to it through pipes. Nothing of it is imported here.
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import subprocess
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import BinaryIO

import numpy as np

from a2lite.speech import worker
from a2lite.speech.worker import Message

PYTHON, CODE = "A2LITE_SPEECH_PYTHON", "A2LITE_STEP_AUDIO_CODE"
FILES = ("speech_tokenizer_v2_25hz.onnx", "campplus.onnx", "flow.yaml", "flow.pt", "hift.pt")
SECTION = "README, Speech at full size"
POINTER = b"version https://git-lfs"
TAG = re.compile(r"!new:cosyvoice2\.[\w.]+")  # all that flow.yaml may ask for; hyperpyyaml would call anything
LOAD_SECONDS, ANSWER_SECONDS = 600.0, 120.0  # a silent worker is given up
PCM = 32767.0


class Detokenizer:
    """One worker with Token2wav loaded; it ends with this object, and with this process however that ends.

    ``folder`` is the checkpoint's ``token2wav/``, ``python`` the speech environment's interpreter, ``code`` the clone
    of stepfun-ai/Step-Audio2, ``voice`` a wav file with the voice to speak in; the last three by default as
    ``A2LITE_SPEECH_PYTHON`` and ``A2LITE_STEP_AUDIO_CODE`` say, and the clone's default female voice. One line in
    FileNotFoundError or ValueError for what is missing or a Git LFS pointer, in ChildProcessError where the worker
    fails, dies or falls silent; nothing of it is then left running.
    """

    def __init__(
        self, folder: Path, python: str | Path | None = None, code: str | Path | None = None,
        voice: str | Path | None = None,
    ):
        code = _place(code, CODE, "the clone of stepfun-ai/Step-Audio2")
        check_file(code / "token2wav.py", f"{CODE} is to name the clone of stepfun-ai/Step-Audio2")
        voice = Path(voice).expanduser() if voice else code / "assets" / "default_female.wav"
        check_file(voice, "give the voice to speak in as a wav file")
        for name in FILES:
            check_file(folder / name)
        check_flow(folder / "flow.yaml")
        self.python = _place(python, PYTHON, "the speech environment's python")
        if not self.python.is_file():
            raise FileNotFoundError(f"{self.python}: no such interpreter; {PYTHON} is to name one ({SECTION})")
        places = [str(path.absolute()) for path in (Path(worker.__file__), folder, code, voice)]
        try:
            self.process = subprocess.Popen(
                [str(self.python.absolute()), "-I", "-X", "utf8", *places],  # -I: nothing of this environment
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        except OSError as error:
            reason = error.strerror or error
            raise FileNotFoundError(f"{self.python}: cannot be run ({reason}); {PYTHON} is to name a python") from None
        self.replies: queue.Queue[Message | None] = queue.Queue()
        self.said: deque[bytes] = deque(maxlen=20)  # the last lines of its stderr
        self.dropped: list[int] = []  # streams that nobody holds any more
        self.ids, self.pending, self.lock = itertools.count(), 1, threading.Lock()
        threading.Thread(target=_collect, args=(self.process.stdout, self.replies), daemon=True).start()
        self.listener = threading.Thread(target=_overhear, args=(self.process.stderr, self.said), daemon=True)
        self.listener.start()
        self.close = weakref.finalize(self, _end, self.process)
        self._reply("loading", LOAD_SECONDS)

    @property
    def ended(self) -> bool:
        """Whether it is closed; another has to be made."""
        return not self.close.alive

    def start(self) -> int:
        """Begin an answer, without waiting for it; its number."""
        stream = next(self.ids)
        with self.lock:
            self._send(dict(do="start", stream=stream))
        return stream

    def feed(self, stream: int, tokens: list[int], last: bool) -> np.ndarray:
        """The next tokens of an answer to the samples that they settle, float32 (samples,) at 24 kHz in [-1, 1].

        All but the ``last`` call give three tokens of look-ahead, which the next call gives again.
        """
        with self.lock:
            self._send(dict(do="feed", stream=stream, last=last), tokens)
            while self.pending:
                body = self._reply("speaking", ANSWER_SECONDS)
        return np.frombuffer(body, "<i2").astype(np.float32) / PCM

    def _send(self, header: dict, tokens: list[int] = ()) -> None:
        if self.ended:
            raise ChildProcessError("the speech worker has ended; begin the answer anew")
        gone = [self.dropped.pop() for _ in range(len(self.dropped))]
        try:
            worker.send(self.process.stdin, dict(header, forget=gone), np.array(tokens, "<i4").tobytes())
        except OSError:  # it has ended, and perhaps said why
            while True:
                self._reply("speaking", ANSWER_SECONDS)
        self.pending += 1

    def _reply(self, doing: str, seconds: float) -> bytes:
        try:
            message = self.replies.get(timeout=seconds)
        except queue.Empty:
            raise self._failure(f"is silent after {seconds:g} s of {doing}") from None
        except BaseException:  # an interrupt: the answer that is still to come would be taken for the next one's
            self.close()
            raise
        if message is None:
            raise self._failure(f"{self._end_of_it()} while {doing}")
        header, body = message
        if "error" in header:
            self.said.clear()  # the traceback of what is told here
            raise self._failure(_told(header, doing))
        self.pending -= 1
        return body

    def _end_of_it(self) -> str:
        try:
            return f"ended with code {self.process.wait(2)}"
        except subprocess.TimeoutExpired:
            return "said what no worker says"

    def _failure(self, what: str) -> ChildProcessError:
        """Ends the worker; its last line on stderr is told too."""
        self.close()
        self.listener.join(1)
        lines = b"".join(self.said).decode("utf-8", "replace").split("\n")
        last = next((": " + " ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        return ChildProcessError(f"speech worker ({self.python}) {what}{last[:300]}")


def check_file(path: Path, remedy: str = "download it again") -> None:
    """FileNotFoundError for no file, ValueError for a Git LFS pointer in its place."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; {remedy}")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(f"{path}: is a Git LFS pointer, not the file; fetch it with git lfs pull")


def check_flow(path: Path) -> None:
    """ValueError if a flow.yaml asks for anything but the flow's own parts: the official code would run it."""
    for tag in re.findall(r"!\S+", path.read_text(encoding="utf-8", errors="replace")):
        if not TAG.fullmatch(tag):
            raise ValueError(f"{path}: asks for {tag}; expected !new:cosyvoice2... alone, as published")


def _place(given: str | Path | None, variable: str, what: str) -> Path:
    given = given or os.environ.get(variable)
    if not given:
        raise FileNotFoundError(f"{variable}: is not set; let it name {what} ({SECTION})")
    return Path(given).expanduser()


def _told(header: dict, doing: str) -> str:
    if header.get("missing"):
        return f"lacks {header['missing']}; pip install -r requirements-speech.txt there ({SECTION})"
    gpu = "; token2wav needs an NVIDIA GPU" if re.search("CUDA enabled|NVIDIA driver", header["error"]) else ""
    return f"failed while {doing}: {header['error']}{gpu}"


def _collect(pipe: BinaryIO, replies: queue.Queue[Message | None]) -> None:
    try:
        with pipe:
            while (message := worker.receive(pipe)) is not None:
                replies.put(message)
    except (ValueError, OSError):
        pass  # as good as ended
    replies.put(None)


def _overhear(pipe: BinaryIO, said: deque[bytes]) -> None:
    with pipe:
        said.extend(pipe)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    try:
        process.stdin.close()
    except OSError:
        pass  # what was not sent any more
