"""The player: a moving mesh with sound, on one page that needs nothing else (notebook 01 builds it).

It knows vertices and arrays, no models. ``clip``: what is played · ``basis``: its motion made small ·
``page``: one self-contained HTML page (``player.html``, ``scene.js``, ``player.js``) · ``raster``, ``light``,
``picture``: pictures without OpenGL · ``notebook``: both in a cell's output.
"""

from a2lite.player.clip import Clip
from a2lite.player.notebook import show
from a2lite.player.page import page, save_page
from a2lite.player.picture import portraits, render, strip

__all__ = ["Clip", "page", "portraits", "render", "save_page", "show", "strip"]
