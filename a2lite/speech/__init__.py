"""Speech tokens: a waveform in, one of 1000 codes every 40 ms out, and back.

The roles of Step-Audio 2's S3 tokenizer and flow detokenizer in A2-LLM (Sec. 5.1, 5.3); built in
notebooks/04_audio_language_model.ipynb. In reading order: ``layers`` (FSQ, the convolutions), ``inversion``
(magnitudes to sound), ``tokenizer`` (the whole, and its stream), ``training``. ``step_audio`` has the same for the
published checkpoint's tokens, with the paper's detokenizer behind ``detokenizer`` and ``worker``.
"""

from a2lite.speech.inversion import SpectrogramInversion, invert
from a2lite.speech.layers import FSQ
from a2lite.speech.step_audio import StepAudioSpeech
from a2lite.speech.tokenizer import SpeechTokenizer, Stream, log_spectrum
from a2lite.speech.training import evaluate, load, speech_loss, train

__all__ = [
    "FSQ",
    "SpectrogramInversion",
    "SpeechTokenizer",
    "StepAudioSpeech",
    "Stream",
    "evaluate",
    "invert",
    "load",
    "log_spectrum",
    "speech_loss",
    "train",
]
