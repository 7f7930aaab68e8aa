"""Closed-grammar speech recognition: which sentence of a known list was spoken?

pocketsphinx (extra ``test``) with a JSGF grammar of whole sentences is the kit's independent ear: nothing in
it was trained on the synthetic voices. Its stock language model cannot read them (measured: WER .69 on the
original audio), so the sentences must be known. Used for the tokenizer's round trip and for free generation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

MARGIN = 3200  # samples of silence before and after
DITHER = 1e-3  # noise on every wave: the recogniser is lost on digital silence (.72 right, .98 with noise)
BEAMS = dict(beam=1e-64, pbeam=1e-64, wbeam=1e-48)  # wider than its own, which lose sentences of 8 s


def words(text: str) -> list[str]:
    """Lower-case words of a sentence, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


class SentenceRecogniser:
    """Recognises one of ``sentences``.

    Raises ImportError without pocketsphinx, ValueError for no sentence or a word its dictionary lacks.
    """

    def __init__(self, sentences: Sequence[str]):
        from pocketsphinx import Decoder

        self.sentences = {" ".join(words(text)): text for text in sentences}
        if not self.sentences:
            raise ValueError("sentences: the list is empty; expected at least one to recognise")
        self.decoder = Decoder(lm=None, loglevel="FATAL", **BEAMS)
        for word in sorted({word for text in self.sentences for word in text.split()}):
            if self.decoder.lookup_word(word) is None:
                raise ValueError(f"sentences: {word!r} is not in pocketsphinx's dictionary; use another word")
        alternatives = " | ".join(sorted(self.sentences))
        grammar = f"#JSGF V1.0; grammar world; public <sentence> = {alternatives};"
        self.decoder.add_jsgf_string("world", grammar)
        self.decoder.activate_search("world")

    def recognise(self, wave: np.ndarray) -> str | None:
        """(samples,) at 16 kHz in [-1, 1] to a sentence of the list; None where none was heard to its end."""
        padded = np.pad(np.asarray(wave, np.float32), MARGIN)
        noise = np.random.default_rng(0).standard_normal(len(padded))
        pcm = (np.clip(padded + DITHER * noise, -1, 1) * 32767).astype(np.int16)
        self.decoder.start_utt()
        self.decoder.process_raw(pcm.tobytes(), full_utt=True)
        self.decoder.end_utt()
        heard = self.decoder.hyp()
        return None if heard is None else self.sentences.get(heard.hypstr)

    def hits(self, waves: Iterable[np.ndarray], texts: Iterable[str]) -> list[bool]:
        """For each wave, whether it was recognised as its text."""
        pairs = zip(waves, texts, strict=True)
        return [words(self.recognise(wave) or "") == words(text) for wave, text in pairs]
