"""Step-Audio-2-mini's own speech tokens in ``SpeechTokenizer``'s place: S3 tokenizer, and token2wav in 25 + 3 tokens.

The published checkpoint's folder ``token2wav/`` holds both (A2-LLM, Sec. 5.1, 5.3). Encoding needs onnxruntime (extra
``speech``); decoding runs in an environment of its own (``detokenizer``). S3 tokenizer: Du et al. 2024, CosyVoice 2
(arXiv:2412.10117); it hears Whisper's mel and gives one of 3^8 FSQ codes every 40 ms.
"""

from __future__ import annotations

import hashlib
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import firwin, upfirdn
from torch import Tensor

from a2lite.audio import whisper_mel
from a2lite.speech.detokenizer import FILES, Detokenizer, check_file
from a2lite.speech.tokenizer import FRAMES, pad

CODES = 3**8
CHUNK, LOOKAHEAD = 25, 3  # tokens that token2wav settles at a time, and those it hears beyond them
WINDOW, OVERLAP = 3000, 400  # mel frames: the S3 tokenizer hears 30 s at a time, and 4 s again


class StepAudioSpeech:
    """Waveform (B, samples) at 16 kHz <-> tokens (B, A) int64 in 0 .. 6560 at 25 Hz, as ``SpeechTokenizer``.

    ``folder`` is that of the checkpoint, or its ``token2wav/``. What speaks is started with the first ``stream`` or
    ``decode`` and kept; ``python``, ``code`` and ``voice`` are ``Detokenizer``'s. FileNotFoundError or ValueError in
    one line for a file that is missing or not what it should be, ModuleNotFoundError for onnxruntime.
    """

    codes, lookahead = CODES, LOOKAHEAD

    def __init__(
        self, folder: str | Path, python: str | Path | None = None, code: str | Path | None = None,
        voice: str | Path | None = None,
    ):
        folder = Path(folder).expanduser()
        inner = folder / "token2wav"
        self.folder = inner if inner.is_dir() else folder
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; expected the files of stepfun-ai/Step-Audio-2-mini")
        check_file(self.folder / FILES[0])
        self.places = dict(python=python, code=code, voice=voice)
        self.detokenizer: Detokenizer | None = None

    @cached_property
    def identity(self) -> str:
        """Tells it from other speech tokenizers: twelve hex digits of the tokenizer file's sha256."""
        digest = hashlib.sha256()
        with (self.folder / FILES[0]).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:12]

    @cached_property
    def session(self) -> Any:
        """The S3 tokenizer in onnxruntime, on a GPU where onnxruntime has one."""
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ModuleNotFoundError('onnxruntime: is not installed; pip install -e ".[speech]"') from None
        path = self.folder / FILES[0]
        gpu = torch.cuda.current_device() if torch.cuda.is_available() else 0  # each of several processes has its own
        wanted = {"CUDAExecutionProvider": {"device_id": gpu}, "CPUExecutionProvider": {}}
        providers = [(name, wanted[name]) for name in wanted if name in onnxruntime.get_available_providers()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # and its share of the processor
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers)
        except Exception as error:  # a class of its own for every reason
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: onnxruntime cannot read it ({reason}); download it again") from None
        names = [node.name for node in (*session.get_inputs(), *session.get_outputs())]
        if names != ["feats", "feats_length", "indices"]:
            raise ValueError(f"{path}: has {', '.join(names)}; expected an S3 tokenizer's feats, feats_length, indices")
        return session

    def encode(self, wave: Tensor) -> Tensor:
        """(B, samples) to tokens (B, A) int64, A = samples / 640 rounded up: the end is padded with silence.

        ValueError for an empty wave, another shape, or samples that are NaN or infinite.
        """
        if wave.ndim != 2 or not wave.is_floating_point():
            shape = f"{tuple(wave.shape)} {wave.dtype}"
            raise ValueError(f"wave {shape}: expected (batch, samples), floats in [-1, 1] at 16 kHz")
        if wave.shape[1] == 0:
            raise ValueError("wave: has no samples; expected speech at 16 kHz")
        if not torch.isfinite(wave).all():
            raise ValueError("wave: holds NaN or infinite samples; expected numbers in [-1, 1]")
        return torch.stack([self._encode(row) for row in pad(wave.detach().float().cpu())])

    def _encode(self, wave: Tensor) -> Tensor:
        """(640 A,) to (A,): the middle of each window, whose edges its neighbours hear better."""
        mel = whisper_mel(wave).T.numpy()  # (128, 4 A)
        spans, half, pieces = windows(mel.shape[1]), OVERLAP // 2 // FRAMES, []
        for i, (start, end) in enumerate(spans):
            feats = np.ascontiguousarray(mel[None, :, start:end])
            length = np.array([end - start], np.int32)
            codes = self.session.run(["indices"], {"feats": feats, "feats_length": length})[0].reshape(-1)
            if len(codes) != (end - start) // FRAMES or codes.min() < 0 or codes.max() >= CODES:
                told = f"{len(codes)} codes of {codes.min()} to {codes.max()} for {end - start} frames"
                raise ValueError(f"{self.folder / FILES[0]}: gives {told}; expected 0 to {CODES - 1}, one per 4 frames")
            pieces.append(codes[half if i else 0 : len(codes) - (half if i + 1 < len(spans) else 0)])
        return torch.from_numpy(np.concatenate(pieces).astype(np.int64))

    def stream(self) -> Stream:
        """A decoder that takes tokens as they come and speaks a second at a time, three tokens behind."""
        if self.detokenizer is None or self.detokenizer.ended:
            self.detokenizer = Detokenizer(self.folder, **self.places)
        return Stream(self.detokenizer)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, A) to the wave (B, 640 A) at 16 kHz, in [-1, 1]; ValueError for an id out of range."""
        check_tokens(tokens)
        stream = self.stream()
        return torch.cat([stream.step(tokens), stream.flush()], 1)


class Stream:
    """Wave from tokens as they arrive; all steps and the ``flush`` together give what ``decode`` gives.

    However the tokens come, token2wav is given 25 and the 3 that follow, then the next 25, and at the end the rest.
    """

    def __init__(self, detokenizer: Detokenizer):
        self.detokenizer = detokenizer
        self.rows = [_Row(detokenizer)]
        self.given = False

    def step(self, tokens: Tensor) -> Tensor:
        """The next tokens (B, n), n > 0, to what they settle: (B, 16000) for each second, or no samples yet."""
        check_tokens(tokens)
        if not self.given:
            self.rows += [_Row(self.detokenizer) for _ in range(len(tokens) - 1)]
            self.given = True
        if len(tokens) != len(self.rows):
            raise ValueError(f"tokens {tuple(tokens.shape)}: expected {len(self.rows)} rows, as in the first step")
        return torch.stack([row.step(more) for row, more in zip(self.rows, tokens.tolist())])

    def flush(self) -> Tensor:
        """The rest of the wave, (B, samples); ValueError if there was no token."""
        if not self.given:
            raise ValueError("flush: no token was given; call step first")
        return torch.stack([row.flush() for row in self.rows])


class _Row:
    """One voice of a batch."""

    def __init__(self, detokenizer: Detokenizer):
        self.detokenizer, self.number = detokenizer, detokenizer.start()
        weakref.finalize(self, detokenizer.dropped.append, self.number)
        self.waiting: list[int] = []
        self.resampler = Resampler()

    def step(self, tokens: list[int]) -> Tensor:
        self.waiting += tokens
        waves = [torch.zeros(0)]
        while len(self.waiting) >= CHUNK + LOOKAHEAD:
            given, self.waiting = self.waiting[: CHUNK + LOOKAHEAD], self.waiting[CHUNK:]
            waves.append(self.resampler.step(self.detokenizer.feed(self.number, given, last=False)))
        return torch.cat(waves)

    def flush(self) -> Tensor:
        last = self.resampler.step(self.detokenizer.feed(self.number, self.waiting, last=True))
        return torch.cat([last, self.resampler.flush()])


class Resampler:
    """24 kHz to 16 kHz chunk by chunk; all steps and the ``flush`` together give what ``audio.resample`` gives."""

    UP, DOWN, REACH = 2, 3, 15  # REACH: samples to either side that the filter hears

    def __init__(self):
        self.filter = firwin(4 * self.REACH + 1, 1 / self.DOWN, window=("kaiser", 5.0)) * self.UP
        self.heard = np.zeros(self.REACH)  # from REACH samples before the first that is still to be given
        self.taken = self.given = 0

    def step(self, wave: np.ndarray) -> Tensor:
        """(samples,) at 24 kHz to what they settle, (samples,) float32 at 16 kHz, in [-1, 1]."""
        self.taken += len(wave)
        self.heard = np.concatenate([self.heard, wave])
        groups = max(0, (len(self.heard) - 2 * self.REACH + 1) // self.DOWN)  # 3 samples in, 2 out
        first = 2 * self.UP * self.REACH // self.DOWN  # the filter's delay and the history, in output samples
        out = upfirdn(self.filter, self.heard, self.UP, self.DOWN)[first : first + self.UP * groups]
        self.heard = self.heard[self.DOWN * groups :]
        self.given += len(out)
        return torch.from_numpy(out.astype(np.float32)).clamp(-1, 1)

    def flush(self) -> Tensor:
        """The rest, as if silence followed."""
        taken, given = self.taken, self.given
        rest = self.step(np.zeros(2 * self.REACH + self.DOWN))
        return rest[: -(-taken * self.UP // self.DOWN) - given]


def windows(frames: int) -> list[tuple[int, int]]:
    """Where the S3 tokenizer's windows begin and end: 3000 frames each, 400 shared, the last one shorter."""
    starts = range(0, max(frames - OVERLAP, 1), WINDOW - OVERLAP)
    return [(start, min(start + WINDOW, frames)) for start in starts]


def check_tokens(tokens: Tensor) -> None:
    """ValueError unless (batch, tokens), with at least one token, all of them in 0 .. 6560."""
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"tokens {tuple(tokens.shape)}: expected (batch, tokens), at least one token")
    if tokens.min() < 0 or tokens.max() >= CODES:
        found = f"{int(tokens.min())} to {int(tokens.max())}"
        raise ValueError(f"tokens {found}: expected speech tokens 0 to {CODES - 1}")
