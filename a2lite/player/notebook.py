"""The player in a notebook: the page in a frame, and the strip for readers whose site runs no scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from a2lite import ROOT
from a2lite.config import PROFILES
from a2lite.player.clip import Clip
from a2lite.player.page import page, write_page
from a2lite.player.picture import png, strip


@dataclass
class Player:
    """What a cell shows: ``html`` where scripts run, else the picture ``strip``."""

    html: str
    strip: bytes

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        frame = (
            f'<iframe srcdoc="{escape(self.html)}" title="face player" allow="autoplay" '
            'style="width: 100%; max-width: 560px; height: 520px; border: 0; border-radius: 10px"></iframe>'
        )
        return {"text/html": frame, "image/png": self.strip, "text/plain": "face player"}


def show(clip: Clip, save: str | None = None, strip_from: float = 0.0) -> Player:
    """The player of ``clip``, as the last value of a cell.

    ``save="tiny/answer"`` also writes the page to ``runs/tiny/players/answer.html``, which the course's index
    page shows. The output carries both the page (text/html) and the strip (image/png), which begins at second
    ``strip_from``, so that a committed notebook may drop the first and keep the second.
    """
    path = None if save is None else _place(save)
    pictures = png(strip(clip, start=strip_from))
    player = Player(page(clip, pictures), pictures)
    if path is not None:
        write_page(path, player.html)
    return player


def _place(save: str) -> Path:
    profile, _, name = save.partition("/")
    if profile not in PROFILES or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"show(save={save!r}): expected 'profile/name', as in 'tiny/answer'")
    return ROOT / "runs" / profile / "players" / f"{name}.html"
