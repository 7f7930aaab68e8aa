"""Colours of a person: skin tone, lips, brows and irises painted over the built head's own."""

from __future__ import annotations

import numpy as np

from a2lite.flame import FlameHead
from a2lite.people.numbering import CONTACT, SKIN, lid_lining, mouth_ring

# linear RGB; the head's own skin, brows and irises, as sculpted
TONE, BROW, IRIS = np.array([0.60, 0.385, 0.29]), np.array([0.055, 0.03, 0.02]), np.array([0.10, 0.17, 0.20])
GUM, PALATE = np.array([0.36, 0.12, 0.115]), np.array([0.13, 0.035, 0.035])


def painted(head: FlameHead, tone, brow, iris, lips=None) -> np.ndarray:
    """(5023, 3) linear RGB; ``lips`` mixes lipstick in, (r, g, b, share). Teeth are left to ``mouth``."""
    old = head.colours.numpy().astype(float)
    skin, rest = old[:SKIN], head.v_template.numpy()[:SKIN] * 1000
    new = np.asarray(tone) * skin / TONE
    hairy = 0.8 * np.clip((TONE[1] - skin[:, 1]) / (TONE[1] - BROW[1]), 0, 1)[:, None]  # the rest are strands
    new = np.where(_brows(rest)[:, None], np.asarray(tone) * (1 - hairy) + np.asarray(brow) * hairy, new)
    if lips is not None:
        red = np.clip((skin[:, 0] - skin[:, 1]) / (0.50 - 0.20), 0, 1) * _lips(head)
        new += (np.asarray(lips[:3]) - new) * (lips[3] * red**3)[:, None]
    inside = np.concatenate([lid_lining(head, side) for side in ("left", "right")])
    new[inside] = skin[inside]
    for ring in range(CONTACT):
        new[np.concatenate(mouth_ring(head, ring))] = PALATE if ring < 2 else GUM * (0.7 if ring == 2 else 1)
    balls = old[SKIN:]
    coloured = balls[:, 1] > 1.4 * balls[:, 0]
    balls = np.where(coloured[:, None], balls * np.asarray(iris) / IRIS, balls)
    return np.clip(np.concatenate([new, balls]), 0, 1).astype(np.float32)


def _brows(rest: np.ndarray) -> np.ndarray:
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    return (x > 6) & (x < 58) & (y > 36.5) & (y < 57) & (z > 15)


def _lips(head: FlameHead) -> np.ndarray:
    mask = np.zeros(SKIN)
    mask[head.regions["lips"].numpy()] = 1
    return mask
