"""Where the built head keeps what it is dressed by: its skin comes first, then the eyeballs, in rings of points.

The rings are those of ``flame/sculptor/rings.py``; landmarks say where they begin.
"""

from __future__ import annotations

import numpy as np

from a2lite.flame import FlameHead

SKIN = 3931  # vertices of the skin with the linings of lids and mouth; the left eyeball follows, then the right
BALL = 546  # vertices of an eyeball
LID = 36  # vertices of a ring of the lids, from the outer corner over the upper lid
LININGS = 4  # rings of lid inside its edge
MOUTH = 25  # vertices of the left half of a ring of the mouth, from the upper midline down; the right lacks its ends
CONTACT = 6  # the mouth's ring where the lips meet; lower numbers lie inside


def lid_margin(head: FlameHead, side: str) -> np.ndarray:
    """(36,) the ring from which the lashes grow; the next ring outwards is 36 further."""
    return head.landmarks[f"{side}_eye_outer"] + np.arange(LID)


def lid_lining(head: FlameHead, side: str) -> np.ndarray:
    """(144,) what of the lids faces the eyeball."""
    return head.landmarks[f"{side}_eye_outer"] - (LININGS + 1) * LID + np.arange(LININGS * LID)


def mouth_ring(head: FlameHead, ring: int) -> tuple[np.ndarray, np.ndarray]:
    """(25,) and (23,): the left half of ring ``ring`` of the mouth, and the right, both from top to bottom."""
    inward = ring - CONTACT
    left = head.landmarks["upper_lip"] + inward * MOUTH + np.arange(MOUTH)
    corner = head.landmarks["right_corner"] + inward * (MOUTH - 2)
    return left, corner - (MOUTH - 2) // 2 + np.arange(MOUTH - 2)
