"""Step-Audio 2's own Token2wav behind two pipes: run by path, in the speech environment, for ``speech.detokenizer``.

A message is two lengths (uint32), a JSON header and raw bytes, all little-endian: int32 tokens come in, int16 samples
at 24 kHz go out. This file imports nothing but the standard library, so that the two environments stay apart.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import queue
import struct
import sys
import threading
import traceback
from typing import Any, BinaryIO

LENGTHS = struct.Struct("<II")
Message = tuple[dict[str, Any], bytes]


def send(pipe: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    pipe.write(LENGTHS.pack(len(text), len(body)) + text + body)
    pipe.flush()


def receive(pipe: BinaryIO) -> Message | None:
    """Read one message; None at the pipe's end, also in the middle of one. ValueError for bytes that are no message."""
    lengths = pipe.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, rest = LENGTHS.unpack(lengths)
    if head > 1 << 20:
        raise ValueError("the other side does not speak this protocol")
    text, body = pipe.read(head), pipe.read(rest)
    return (json.loads(text), body) if len(text) == head and len(body) == rest else None


class Streams:
    """Several answers through one Token2wav, which remembers one: its memory is put aside while another speaks.

    The memory is copied, since the model's attention caches are views of buffers that it overwrites. The vocoder's
    noise is seeded by the chunk's place, so that the same tokens always sound the same.
    """

    def __init__(self, model: Any, voice: str):
        self.model, self.voice = model, voice
        self.chunks: dict[int, int] = {}  # given to each answer
        self.current: int | None = None
        self.aside: dict[int, list[dict[str, Any]]] = {}

    def start(self, stream: int) -> None:
        self._leave()
        self.current, self.chunks[stream] = stream, 0
        self.model.set_stream_cache(self.voice)

    def feed(self, stream: int, tokens: list[int], last: bool) -> bytes:
        if stream != self.current:
            self._leave()
            self.current = stream
            self.model.stream_cache, self.model.hift_cache_dict = self.aside.pop(stream)
        self.chunks[stream] += 1
        seed(self.chunks[stream])
        if last:
            self.forget(stream)
        return self.model.stream(tokens, self.voice, last_chunk=last)

    def forget(self, stream: int) -> None:
        self.aside.pop(stream, None)
        self.chunks.pop(stream, None)
        self.current = None if stream == self.current else self.current

    def _leave(self) -> None:
        if self.current is not None:
            memory = (self.model.stream_cache, self.model.hift_cache_dict)
            self.aside[self.current] = [{name: value.clone() for name, value in part.items()} for part in memory]


def seed(number: int) -> None:
    """The random numbers of all that follows."""
    importlib.import_module("torch").manual_seed(number)


def tokens_of(body: bytes) -> list[int]:
    """int32, little-endian, to ints."""
    tokens = array.array("i", body)
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens.tolist()


def answer(streams: Streams, header: dict[str, Any], body: bytes) -> bytes:
    """What one request gives: samples, or nothing."""
    for stream in header["forget"]:
        streams.forget(stream)
    if header["do"] == "start":
        streams.start(header["stream"])
        return b""
    return streams.feed(header["stream"], tokens_of(body), header["last"])


def listen(requests: queue.Queue[Message]) -> None:
    """Requests as they come; the process ends with its parent, even in the middle of its work."""
    try:
        while (message := receive(sys.stdin.buffer)) is not None:
            requests.put(message)
    finally:
        os._exit(0)


def main(folder: str, code: str, voice: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print goes to stderr, not between the messages
    requests: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=listen, args=(requests,), daemon=True).start()
    sys.path.insert(0, code)
    try:
        seed(0)  # the flow draws its noise once, as it is loaded
        streams = Streams(importlib.import_module("token2wav").Token2wav(folder), voice)
        send(answers, {"ready": True})
        while True:
            send(answers, {}, answer(streams, *requests.get()))
    except Exception as error:  # of any of the libraries: told in one line, and the parent starts anew
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        reason += f" ({os.path.basename(place.filename)}, line {place.lineno})"
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        send(answers, {"error": reason, "missing": missing})
        os._exit(1)  # the thread still reads


if __name__ == "__main__":
    main(*sys.argv[1:])
