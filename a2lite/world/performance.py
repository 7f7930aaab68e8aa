"""The face of an answer as a known function: phonemes, loudness and emotion to 58 numbers a frame.

phonemes -> visemes (targets in action units) -> coarticulation (a Gaussian over time) -> lips and jaw;
the dialogue's emotion -> brows, lids, cheeks, mouth corners; loudness -> accents; chance -> blinks, sway, noise.
Stands in for SMIRK's tracking of recorded clips (Sec. 4); notebook 02 builds it by hand.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from a2lite.audio import RATE
from a2lite.config import MotionConfig, WorldConfig
from a2lite.flame import load_head

FPS = MotionConfig.fps
FINE = 200  # Hz, the clock on which visemes are laid out
JAW = 0.32  # rad, jaw rotation of the most open viseme at full loudness
CLOSURE_WIDTH = 0.026  # s, lip closure is quick
OPENERS = ("upper_lip", "lower_lip", "part", "funnel", "stretch")

VISEMES = {
    "rest": {},
    "closed": {"jaw": 0.12, "closure": 1.0},  # p b m
    "bite": {"jaw": 0.12, "closure": 0.35, "upper_lip": 0.25},  # f v
    "open": {"jaw": 1.0, "lower_lip": 0.25},  # a A V
    "mid": {"jaw": 0.6, "stretch": 0.2, "lower_lip": 0.15},  # E @ 3
    "front": {"jaw": 0.3, "stretch": 0.65, "part": 0.2},  # i I
    "round": {"jaw": 0.6, "funnel": 0.65, "pucker": 0.2},  # O o
    "tight": {"jaw": 0.25, "funnel": 0.25, "pucker": 0.8},  # u U w
    "hush": {"jaw": 0.18, "funnel": 0.6, "part": 0.3},  # S Z tS dZ
    "hiss": {"jaw": 0.12, "stretch": 0.35, "part": 0.45},  # s z
    "tongue": {"jaw": 0.25, "part": 0.3},  # t d n l T D
    "back": {"jaw": 0.35, "part": 0.15},  # k g N h j
    "r": {"jaw": 0.3, "funnel": 0.35},
}
CHANNELS = ("jaw", "closure", "upper_lip", "lower_lip", "stretch", "part", "funnel", "pucker")

_FIRST_LETTER = {
    letter: name
    for name, letters in {
        "closed": "pbm", "bite": "fv", "open": "aAV0", "mid": "eE@3", "front": "iI", "round": "oO",
        "tight": "uUw", "hush": "SZ", "hiss": "sz", "tongue": "tdnlTD", "back": "kgNhjx?", "r": "r*",
    }.items()
    for letter in letters
}  # fmt: skip
_GLIDES = {"aI": "front", "eI": "front", "oI": "front", "OI": "front", "aU": "tight", "oU": "tight"}

# Strengths of the action units at full emotion; "lid" closes the eyelid, "jaw" opens the jaw (rad).
EMOTION_UNITS = {
    "neutral": {"smile": 0.06},
    "happy": {"smile": 0.85, "cheek": 0.8, "squint": 0.25, "outer_brow": 0.2},
    "sad": {"inner_brow": 0.95, "brow_lower": 0.25, "corner_down": 0.75, "chin": 0.4, "lid": 0.22},
    "angry": {"brow_lower": 1.0, "nose_wrinkle": 0.45, "squint": 0.55, "upper_lip": 0.2, "corner_down": 0.25},
    "surprised": {"inner_brow": 1.1, "outer_brow": 1.2, "lid_up": 1.0, "jaw": 0.02},
    "afraid": {"inner_brow": 1.1, "brow_lower": 0.6, "lid_up": 0.7, "stretch": 0.65, "lower_lip": 0.2},
}
ARTICULATION = {"neutral": 1.0, "happy": 1.05, "sad": 0.88, "angry": 1.1, "surprised": 1.08, "afraid": 0.94}
ACCENT = 0.6  # how much loudness swells the emotion
BEAT = {"outer_brow": 0.55, "inner_brow": 0.45, "cheek": 0.2}  # brows that beat time with stressed syllables
NOD = {"neutral": 0.0, "happy": -0.03, "sad": 0.11, "angry": 0.06, "surprised": -0.08, "afraid": -0.04}  # rad
BLINKS = {"neutral": 0.35, "happy": 0.4, "sad": 0.3, "angry": 0.2, "surprised": 0.25, "afraid": 0.6}  # per second
BLINK = np.array([0.3, 0.9, 1.0, 0.6, 0.2])  # frames

# What a gesture adds while the first clause lasts: (action units, beats per second, share that beats, nod in rad).
GESTURES = {
    "laughter": ({"smile": 0.35, "cheek": 0.5, "squint": 0.5, "jaw": 0.04}, 4.0, 0.5, -0.08),
    "sob": ({"inner_brow": 0.3, "chin": 0.6, "corner_down": 0.4, "squint": 0.5}, 2.5, 0.6, 0.08),
    "contempt": ({"upper_lip_left": 0.7, "dimple_left": 0.8, "squint_left": 0.4}, 0.0, 0.0, -0.05),
    "gasp": ({"inner_brow": 0.4, "outer_brow": 0.5, "lid_up": 0.4, "jaw": 0.04}, 0.0, 0.0, -0.1),
    "tremble": ({"stretch": 0.4, "lid_up": 0.4, "brow_lower": 0.3}, 5.0, 0.5, -0.04),
}


def viseme(symbol: str) -> tuple[str, str]:
    """espeak's phoneme symbol to the names of its first and its last viseme (equal but in a diphthong)."""
    bare = symbol.strip("',%=_:;|#")
    if not bare:
        return "rest", "rest"
    if bare[:2] in ("tS", "dZ"):
        return "hush", "hush"
    first = _FIRST_LETTER.get(bare[0], "mid")
    return first, _GLIDES.get(bare[:2], first)


def score(phonemes: list[tuple[float, str]], seconds: float) -> np.ndarray:
    """Viseme targets without coarticulation: (ceil(seconds * 200), len(CHANNELS))."""
    targets = np.zeros((int(np.ceil(seconds * FINE)), len(CHANNELS)))
    ends = [start for start, _ in phonemes[1:]] + [seconds]
    for (start, symbol), end in zip(phonemes, ends):
        first, last = viseme(symbol)
        turn = start + 0.6 * (end - start)
        for name, a, b in ((first, start, turn), (last, turn, end)):
            row = [VISEMES[name].get(channel, 0.0) for channel in CHANNELS]
            targets[round(a * FINE) : round(b * FINE)] = row
    return targets


def articulate(phonemes: list[tuple[float, str]], frames: int, width: float = 0.035) -> dict[str, np.ndarray]:
    """What speech asks of lips and jaw: each of CHANNELS as (frames,), smoothed by a Gaussian of ``width`` s.

    The closure of the lips is quicker than the rest, as in a bilabial stop.
    """
    targets = score(phonemes, frames / FPS)
    at = ((np.arange(frames) + 0.5) * FINE / FPS).astype(int)
    channels = {}
    for name, target in zip(CHANNELS, targets.T):
        sigma = (min(width, CLOSURE_WIDTH) if name == "closure" else width) * FINE
        channels[name] = (gaussian_filter1d(target, sigma) if sigma else target)[at]
    return channels


def close_lips(units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Let "closure" overrule, for as long as it lasts, all that would part the lips, jaw and emotion included."""
    closed = (1.3 * units["closure"]).clip(0, 1)
    free = {name: units[name] * (1 - closed) for name in ("jaw", *OPENERS) if name in units}
    return {**{k: v for k, v in units.items() if k != "closure"}, **free, "press": 0.4 * closed}


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    """RMS of each frame, smoothed over 60 ms; about 0 (silence) to 1 (a stressed vowel)."""
    rms = np.sqrt(np.square(wave[: frames * RATE // FPS], dtype=np.float64).reshape(frames, -1).mean(1))
    return gaussian_filter1d(rms / 0.15, 1.5).clip(0, 1.2)


def perform(
    wave: np.ndarray,
    phonemes: list[tuple[float, str]],
    emotion: str,
    gesture: str,
    draw: np.random.Generator,
    config: WorldConfig,
) -> np.ndarray:
    """The motion of an answer, (T, 58) float32 with T = samples / 640, rounded to what float16 can hold."""
    frames = len(wave) * FPS // RATE
    loud = loudness(wave, frames)
    accent = gaussian_filter1d(loud, 2.0)
    units = articulate(phonemes, frames, config.coarticulation)
    units["jaw"] = JAW * ARTICULATION[emotion] * units["jaw"] * (0.75 + 0.2 * loud)
    nod = NOD[emotion] + 0.06 * (accent - 0.5)

    feeling = 1 - 0.6 * np.exp(-np.arange(frames) / (0.3 * FPS))
    feeling = draw.uniform(0.85, 1.1) * feeling * (1 + ACCENT * (accent - 0.5))
    add(units, EMOTION_UNITS[emotion], feeling)
    add(units, BEAT, accent - 0.4)
    if gesture:
        strengths, beat, share, tilt = GESTURES[gesture]
        course = gesture_course(phonemes, frames, beat, share)
        add(units, strengths, course)
        nod = nod + tilt * course
    units = close_lips(units)
    jaw, lids = units.pop("jaw"), units.pop("lid", np.zeros(frames))

    motion = np.zeros((frames, MotionConfig.dim), np.float32)
    jitter = config.noise * smooth_noise(draw, frames, len(load_head().action_units), 3)
    motion[:, MotionConfig.expression] = expression(units, jitter)
    motion[:, 50] = jaw
    motion[:, 51:53] = 0.004 * smooth_noise(draw, frames, 2, 5)
    motion[:, 53:56] = np.array([0.012, 0.03, 0.02]) * smooth_noise(draw, frames, 3, 12)
    motion[:, 53] += nod
    motion[:, MotionConfig.eyelid] = (1 - (1 - lids) * (1 - blinks(draw, frames, BLINKS[emotion])))[:, None]
    return motion.astype(np.float16).astype(np.float32)


def add(units: dict[str, np.ndarray], strengths: dict[str, float], course: np.ndarray) -> None:
    """Put ``strength * course`` on top of each named track."""
    for name, strength in strengths.items():
        units[name] = units.get(name, 0.0) + strength * course


def expression(units: dict[str, np.ndarray], jitter: np.ndarray) -> np.ndarray:
    """Tracks of named action units, each (T,), on top of ``jitter`` (T, 36), to (T, 50) coefficients."""
    head, strengths = load_head(), jitter.copy()
    for name, track in units.items():
        sides = [i for i, unit in enumerate(head.action_units) if unit in (name, f"{name}_left", f"{name}_right")]
        strengths[:, sides] += np.asarray(track)[:, None]
    return strengths @ head.au_expression.numpy()  # (T, 36) -> (T, 50)


def gesture_course(phonemes: list[tuple[float, str]], frames: int, beat: float, share: float) -> np.ndarray:
    """(frames,) in 0..1: up with the first clause, down after its pause, beating ``beat`` times a second."""
    pauses = [i for i, (start, symbol) in enumerate(phonemes) if symbol.startswith("_") and start > 0.3]
    after = pauses[0] + 1 if pauses else len(phonemes)
    end = phonemes[after][0] if after < len(phonemes) else frames / FPS
    time = np.arange(frames) / FPS
    window = 1 / (1 + np.exp(-(time - 0.15) / 0.05)) / (1 + np.exp((time - end - 0.1) / 0.08))
    return window * (1 - share * (0.5 + 0.5 * np.cos(2 * np.pi * beat * time)))


def blinks(draw: np.random.Generator, frames: int, rate: float) -> np.ndarray:
    """(frames,) lid closure by blinks that come at random, ``rate`` a second, at least 0.4 s apart."""
    track = np.zeros(frames + len(BLINK))
    time = draw.exponential(1 / rate)
    while time < frames / FPS:
        first = int(time * FPS)
        track[first : first + len(BLINK)] = np.maximum(track[first : first + len(BLINK)], BLINK)
        time += 0.4 + draw.exponential(1 / rate)
    return track[:frames]


def smooth_noise(draw: np.random.Generator, frames: int, dims: int, width: float) -> np.ndarray:
    """(frames, dims) Gaussian noise of unit variance, smoothed over ``width`` frames."""
    white = draw.standard_normal((frames + int(8 * width), dims))
    smooth = gaussian_filter1d(white, width, axis=0)[int(4 * width) :][:frames]
    return smooth * np.sqrt(2 * width * np.sqrt(np.pi))
