"""The kit's own drawing of Figure 1 (A2-LLM): one model, three outputs, and the notebook that builds each part."""

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


def _box(axes: Axes, left, low, wide, high, name: str, detail: str, colour: str, notebook: str) -> None:
    shape = FancyBboxPatch((left, low), wide, high, boxstyle="round,pad=0,rounding_size=1.2", lw=1.3)
    shape.set(facecolor=colour + "22", edgecolor=colour)
    axes.add_patch(shape)
    middle = low + high / 2
    lift = 1.4 + 0.9 * name.count("\n") if detail else 0
    axes.text(left + wide / 2, middle + lift * 0.6, name, ha="center", va="center", fontsize=9.5, color=INK)
    axes.text(left + wide / 2, middle - lift, detail, ha="center", va="top", fontsize=7, color=SOFT)
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
