"""The face: 58 numbers a frame to 5023 vertices, in FLAME's format and dimensions (A2-LLM, Sec. 3.2, Eq. 1).

Built in notebooks/01_flame.ipynb. ``head.safetensors`` is a head of our own, made by code alone: nothing in it
derives from FLAME's data. ``python -m a2lite.flame.build`` makes it anew.
"""

from a2lite.flame.head import FlameHead, load_head
from a2lite.flame.model import Flame, rotation_matrix, skin
from a2lite.flame.official import load_flame

__all__ = ["Flame", "FlameHead", "load_flame", "load_head", "rotation_matrix", "skin"]
