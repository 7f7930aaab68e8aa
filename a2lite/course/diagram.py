"""The kit's own drawings of Figure 1 (A2-LLM): the whole with the notebook of each part, and the connector."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

INK, SOFT, PAPER = "#2b2f38", "#7d8492", "#fbfaf8"
TEXT, AUDIO, MOTION = "#5b7fa6", "#d08c60", "#7a9e7e"  # one hue per modality


def overview(question: np.ndarray, answer: np.ndarray, words: str, face: np.ndarray) -> Figure:
    """A spoken question in; text, speech and a face out.

    question, answer: (samples,) waves; words: the answer's text; face: (H, W, 3) a picture of it.
    """
    figure, axes = plt.subplots(figsize=(10, 5.2), facecolor=PAPER)
    axes.set(xlim=(0, 100), ylim=(0, 52), aspect="equal")
    axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    _inputs(axes, question)
    _language_model(axes)
    _connector(axes)
    _outputs(axes, answer, words, face)
    _legend(axes)
    return figure


def _inputs(axes: Axes, question: np.ndarray) -> None:
    _wave(axes, question, 2, 10, 14, 8)
    _note(axes, 9, 4, "a spoken question\n16 000 samples/s")
    _arrow(axes, (16.5, 10), (19.5, 10))
    _box(axes, 19.5, 5, 12, 10, "audio encoder\nand adaptor", "12.5 vectors/s", AUDIO, "04")
    _arrow(axes, (31.5, 10), (35, 10))


def _language_model(axes: Axes) -> None:
    _box(axes, 35, 4, 32, 12, "language model", "shared layers with LoRA, KV cache", TEXT, "04")
    for place in range(15):
        kind = TEXT if place % 5 == 0 else AUDIO
        left = 35.4 + 2.1 * place
        axes.add_patch(Rectangle((left, 20), 1.8, 2.6, facecolor=kind, edgecolor="none"))
        _arrow(axes, (left + 0.9, 16), (left + 0.9, 19.7), SOFT, 0.6)
        if place % 5:
            _arrow(axes, (left + 0.9, 22.8), (left + 0.9, 30), MOTION, 0.6)
    _note(axes, 34.4, 21.3, "1 text : 4 audio\naudio at 25 Hz", align="right")
    _note(axes, 34.4, 26.5, "hidden states $H_t$\nof the audio tokens", align="right")


def _connector(axes: Axes) -> None:
    _box(axes, 35, 30.3, 32, 10, "motion connector", "attends to the previous segment's motion", MOTION, "05")
    _arrow(axes, (67, 35), (70.5, 35), MOTION)
    rows, columns = 6, 3
    for row in range(rows):
        for column in range(columns):
            spot = (71 + 2.1 * column, 40 - 2.1 * row)
            axes.add_patch(Rectangle(spot, 1.8, 1.8, facecolor=MOTION, alpha=1 - 0.13 * row, edgecolor="none"))
    _note(axes, 74, 26.6, "6 codes, 5 Hz")
    back = FancyArrowPatch((74, 42.6), (51, 40.6), connectionstyle="arc3,rad=0.35", arrowstyle="-|>",
                           mutation_scale=8, color=MOTION, lw=1, linestyle=(0, (3, 2)))  # fmt: skip
    axes.add_patch(back)
    _note(axes, 62, 48.4, "history, segment by segment")


def _outputs(axes: Axes, answer: np.ndarray, words: str, face: np.ndarray) -> None:
    _arrow(axes, (77.6, 35), (79.5, 35), MOTION)
    _box(axes, 79.5, 30, 7.5, 10, "RVQ\ndecoder", "58 x 25/s", MOTION, "03")
    _arrow(axes, (87, 35), (88.5, 35), MOTION)
    high = 10 * face.shape[0] / face.shape[1]
    axes.imshow(face, extent=(88.6, 98.6, 35 - high / 2, 35 + high / 2), zorder=2, aspect="equal")
    _badge(axes, 98.2, 34.8 + high / 2, "01", MOTION)
    _arrow(axes, (67, 21.3), (70.5, 19.5), AUDIO)
    _box(axes, 70.5, 14.5, 11, 9, "speech\ndecoder", "", AUDIO, "04")
    _arrow(axes, (81.5, 19), (84, 19), AUDIO)
    _wave(axes, answer, 84.5, 19, 15, 7)
    _arrow(axes, (67, 9), (70.5, 9), TEXT)
    axes.text(71.3, 9, _wrapped(f"“{words}”", 34), va="center", fontsize=8.5, color=TEXT, style="italic")


def _legend(axes: Axes) -> None:
    rest = {"02": "the world that it learns from", "06": "its three stages of training",
            "07": "how good the face is", "08": "all of it while it speaks"}  # fmt: skip
    for place, (notebook, what) in enumerate(rest.items()):
        _badge(axes, 4, 46 - 3.6 * place, notebook, SOFT)
        axes.text(6.4, 46 - 3.6 * place, what, va="center", fontsize=8, color=INK)


# ---------------------------------------------------------------- the motion connector


def connector(states: np.ndarray, history: np.ndarray, codes: np.ndarray, layers: int) -> Figure:
    """One segment on its way through the connector (Sec. 5.2), with its own numbers in it.

    states: (n G, d) hidden states; history, codes: (n, N_q) motion codes of the segment before and of this one.
    """
    figure, axes = plt.subplots(figsize=(10, 6.4), facecolor=PAPER)
    axes.set(xlim=(0, 100), ylim=(0, 64), aspect="equal")
    axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    columns = 36 + 48 * (np.arange(len(codes)) + 0.5) / len(codes)  # the middle of each motion token
    _states(axes, states, columns)
    _layers(axes, columns, layers)
    _predictions(axes, codes, columns)
    _history(axes, history)
    return figure


def _states(axes: Axes, states: np.ndarray, columns: np.ndarray) -> None:
    shown = (states - states.mean(0)) / states.std(0).clip(1e-6)
    axes.imshow(shown.T[:32], cmap="PuOr", vmin=-2.5, vmax=2.5, extent=(36, 84, 2, 8.4), aspect="auto", zorder=2)
    for left in columns - (columns[1] - columns[0]) / 2:
        axes.plot([left, left], [2, 8.4], color=PAPER, lw=2.5, zorder=3)
    _note(axes, 34.6, 5.2, "hidden states $H_t$\n25 a second", align="right")
    _box(axes, 36, 11.4, 48, 4.4, "convolution, kernel = stride = 5; linear", "", AUDIO)
    for middle in columns:
        _arrow(axes, (middle, 8.6), (middle, 11.2), SOFT, 0.9)
        _arrow(axes, (middle, 15.9), (middle, 20.2), SOFT, 0.9)
    _note(axes, 34.6, 18, "queries\n5 a second", align="right")


def _layers(axes: Axes, columns: np.ndarray, layers: int) -> None:
    shape = FancyBboxPatch((34.5, 20.4), 51, 19.4, boxstyle="round,pad=0,rounding_size=1.2", lw=1)
    axes.add_patch(shape)
    shape.set(facecolor="none", edgecolor=SOFT, linestyle=(0, (3, 2)))
    _note(axes, 88.6, 30, f"$\\times${layers}")
    parts = ("self-attention among the queries", "cross-attention to the history", "feed-forward")
    for place, name in enumerate(parts):
        low = 21.8 + 6 * place
        _box(axes, 37, low, 46, 4.4, name, "", MOTION if place == 1 else TEXT)
        if place:
            _arrow(axes, (60, low - 1.5), (60, low - 0.1), SOFT, 0.9)
    _box(axes, 36, 42.4, 48, 4.4, "six heads, 256 logits each", "", MOTION)
    for middle in columns:
        _arrow(axes, (middle, 39.9), (middle, 42.2), SOFT, 0.9)
        _arrow(axes, (middle, 46.9), (middle, 49), MOTION, 0.9)


def _predictions(axes: Axes, codes: np.ndarray, columns: np.ndarray) -> None:
    _codes(axes, codes, 36, 49.2, 48)
    _note(axes, 60, 63, "this segment's motion tokens, coarse level on top")
    _arrow(axes, (84.4, 55.4), (87.4, 55.4), MOTION)
    _box(axes, 87.6, 50.9, 11, 9, "RVQ\ndecoder", "25 frames", MOTION, "03")


def _history(axes: Axes, history: np.ndarray) -> None:
    _codes(axes, history, 3, 49.2, 24)
    _note(axes, 15, 63, "the segment before")
    axes.add_patch(FancyArrowPatch((35.6, 55.4), (27.4, 55.4), arrowstyle="-|>", mutation_scale=8, color=MOTION,
                                   lw=1, linestyle=(0, (3, 2))))  # fmt: skip
    _note(axes, 31.4, 58.6, "next\nround")
    _arrow(axes, (15, 49), (15, 35.4), MOTION)
    _box(axes, 3, 24.8, 24, 10.4, "six embedding tables,\nadded", "", MOTION)
    _arrow(axes, (27, 30), (36.8, 30), MOTION)
    _note(axes, 31.2, 32.4, "keys,\nvalues")


def _codes(axes: Axes, codes: np.ndarray, left: float, low: float, wide: float) -> None:
    """A table of codes (n, N_q): a column per token, a row per level, the first on top, paler as they go deeper."""
    tokens, levels = codes.shape
    cell, high = wide / tokens, 12.4 / levels
    for token, level in np.ndindex(tokens, levels):
        x, y = left + cell * token, low + high * (levels - 1 - level)
        axes.add_patch(Rectangle((x + 0.15, y + 0.12), cell - 0.3, high - 0.24, facecolor=MOTION,
                                 alpha=1 - 0.13 * level, edgecolor="none"))  # fmt: skip
        axes.text(x + cell / 2, y + high / 2 - 0.1, str(codes[token, level]), ha="center", va="center", fontsize=7,
                  color="white" if level < 3 else INK)


# ---------------------------------------------------------------- what both are made of


def _box(axes: Axes, left, low, wide, high, name: str, detail: str, colour: str, notebook: str = "") -> None:
    shape = FancyBboxPatch((left, low), wide, high, boxstyle="round,pad=0,rounding_size=1.2", lw=1.3)
    shape.set(facecolor=colour + "22", edgecolor=colour)
    axes.add_patch(shape)
    middle = low + high / 2
    lift = 1.4 + 0.9 * name.count("\n") if detail else 0
    axes.text(left + wide / 2, middle + lift * 0.6, name, ha="center", va="center", fontsize=9.5, color=INK)
    axes.text(left + wide / 2, middle - lift, detail, ha="center", va="top", fontsize=7, color=SOFT)
    if notebook:
        _badge(axes, left + wide - 0.4, low + high - 0.2, notebook, colour)


def _badge(axes: Axes, x, y, notebook: str, colour: str) -> None:
    axes.add_patch(Circle((x, y), 1.45, facecolor=colour, edgecolor=PAPER, lw=1.2, zorder=4))
    axes.text(x, y - 0.1, notebook, ha="center", va="center", fontsize=6.5, color="white", weight="bold", zorder=5)


def _wave(axes: Axes, wave: np.ndarray, left, middle, wide, high) -> None:
    bars = np.array([np.abs(part).max() for part in np.array_split(wave, 56)])
    places = left + wide * (np.arange(56) + 0.5) / 56
    heights = 0.3 + (high - 0.3) * bars / bars.max()
    axes.bar(places, heights, wide / 56 * 0.6, middle - heights / 2, color=AUDIO)


def _arrow(axes: Axes, start, end, colour=INK, width=1.2) -> None:
    axes.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", color=colour, lw=width, shrinkA=0, shrinkB=0,
                                                  mutation_scale=5 + 4 * width))  # fmt: skip


def _note(axes: Axes, x, y, text: str, align: str = "center") -> None:
    axes.text(x, y, text, ha=align, va="center", fontsize=7.5, color=SOFT, linespacing=1.35)


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [lines[-1], word]
    return "\n".join(lines)
