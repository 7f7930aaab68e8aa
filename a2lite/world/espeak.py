"""A voice by rule: espeak-ng through ctypes, with the exact start of every phoneme.

Part of the synthetic world (Sec. 4, where the paper has recorded clips and a neural text-to-speech model);
notebook 02. espeak-ng is GPL-3.0 and comes in the wheel ``espeakng-loader`` (extra ``world``); it is loaded
here only, when something is spoken.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from a2lite.audio import resample

_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 1, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_PHONEME, _END_OF_LIST = 7, 0
_SEED = 1


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Identity),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speak(text: str, voice: str, rate: int = 165, pitch: int = 50, span: int = 50) -> tuple[np.ndarray, list]:
    """Say ``text``: (samples,) float32 at 16 kHz and the phonemes as (start in seconds, espeak's symbol).

    ``voice`` is a language and a variant ("en-us+f3"), ``rate`` words per minute, ``pitch`` and ``span`` (pitch
    range) 0..99. The same arguments give the same samples: the library is loaded anew for each call (about
    3 ms), because it keeps the phase of its pitch flutter from one utterance to the next.
    ValueError for an unknown voice; ImportError with the remedy where the wheel is missing.
    """
    pieces: list[np.ndarray] = []
    phonemes: list[tuple[float, str]] = []

    def collect(samples, count, events) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _END_OF_LIST:
            if events[i].type == _PHONEME:
                phonemes.append((events[i].audio_position / 1000, events[i].id.string.decode("utf8", "ignore")))
            i += 1
        return 0

    callback = _Callback(collect)
    library, native_rate = _load(callback)
    try:
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"voice {voice!r}: espeak-ng does not know it; expected a name such as 'en-us+f3'")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, span)):
            library.espeak_SetParameter(parameter, int(value), 0)
        data = text.encode("utf8")
        library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
        _unload(library)
    if not pieces:
        raise ValueError(f"text {text!r}: espeak-ng said nothing; expected words")
    return resample(np.concatenate(pieces).astype(np.float32) / 32768, native_rate), phonemes


def _load(callback) -> tuple[ctypes.CDLL, int]:
    try:
        import espeakng_loader
    except ImportError:
        raise ImportError(
            "espeakng_loader is not installed, nothing can be spoken; run: pip install 'a2lite[world]'"
        ) from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    folder = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _PHONEME_EVENTS)
    if rate <= 0:
        raise ValueError(f"{folder.decode()}: no espeak-ng data; run: pip install --force-reinstall espeakng-loader")
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
    library.espeak_SetSynthCallback(callback)
    return library, rate


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
