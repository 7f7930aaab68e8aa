"""The player in a notebook: the page in a frame, and the strip for readers whose site runs no scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from a2lite import ROOT
from a2lite.config import PROFILES
from a2lite.player.clip import Clip
from a2lite.player.page import check_clips, page, write_page
from a2lite.player.picture import jpeg, strip


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
        return {"text/html": frame, "image/jpeg": self.strip, "text/plain": "face player"}


@dataclass
class Picture:
    """A picture as the last value of a cell, as JPEG."""

    image: Image.Image

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"image/jpeg": jpeg(self.image), "text/plain": "picture"}


def show(*clips: Clip, save: str | Path | None = None, strip_from: float = 0.0, heat: float = 0.0) -> Player:
    """The player of a clip, or of several side by side (``page``), as the last value of a cell.

    ``save="tiny/answer"`` also writes the page to ``runs/tiny/players/answer.html``, which the course's index page
    shows; a ``Path`` is taken as it is. The output carries both the page (text/html) and the strip (image/jpeg), which
    begins at second ``strip_from``, so that a committed notebook may drop the first and keep the second.
    """
    path = None if save is None else _place(save)
    check_clips(clips, heat)
    pictures = jpeg(strip(clips[0], start=strip_from))
    player = Player(page(*clips, pictures=pictures, heat=heat), pictures)
    if path is not None:
        write_page(path, player.html)
    return player


def _place(save: str | Path) -> Path:
    if isinstance(save, Path):
        return save
    profile, _, name = save.partition("/")
    if profile not in PROFILES or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"show(save={save!r}): expected 'profile/name', as in 'tiny/answer'")
    return ROOT / "runs" / profile / "players" / f"{name}.html"
