"""The player: a moving mesh with sound, on one page that needs nothing else (notebook 01 uses it).

It knows vertices and arrays, no models. ``clip``: what is played · ``basis``: its motion made small ·
``page``: one self-contained HTML page (``player.html``, ``scene.js``, ``player.js``) · ``raster``, ``light``,
``picture``: pictures without OpenGL · ``notebook``: both in a cell's output.
"""

from a2lite.player.clip import Clip, Tokens
from a2lite.player.export import save_glb, save_mp4
from a2lite.player.look import Detail, Look, Part
from a2lite.player.notebook import Picture, show
from a2lite.player.page import page, save_page
from a2lite.player.picture import portraits, render, strip

__all__ = [
    "Clip", "Detail", "Look", "Part", "Picture", "Tokens", "page", "portraits", "render", "save_glb", "save_mp4",
    "save_page", "show", "strip",
]  # fmt: skip
