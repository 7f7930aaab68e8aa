"""Named expressions as recipes of action units, jaw and lids."""

from __future__ import annotations

import torch

from a2lite.config import MotionConfig
from a2lite.flame import FlameHead

# name -> action units (both sides, or left and right), jaw in radians, lids left and right
EXPRESSIONS: dict[str, tuple[dict[str, float | tuple[float, float]], float, tuple[float, float]]] = {
    "neutral": ({}, 0.0, (0.0, 0.0)),
    "smile": (dict(smile=0.9, cheek=0.9, squint=0.35), 0.0, (0.0, 0.0)),
    "laugh": (dict(smile=1.0, cheek=1.0, squint=0.75, upper_lip=0.3, lower_lip=0.3), 0.22, (0.15, 0.15)),
    "sad": (dict(inner_brow=1.0, corner_down=1.0, chin=0.6), 0.0, (0.25, 0.25)),
    "angry": (dict(brow_lower=1.0, squint=0.5, press=0.8, nose_wrinkle=0.3), 0.0, (0.0, 0.0)),
    "surprised": (dict(inner_brow=1.0, outer_brow=1.0, lid_up=0.9, part=0.5), 0.3, (0.0, 0.0)),
    "afraid": (dict(inner_brow=1.0, outer_brow=0.4, brow_lower=0.3, lid_up=1.0, stretch=0.8, part=0.5), 0.1, (0, 0)),
    "sneer": (dict(nose_wrinkle=1.0, upper_lip=(0.9, 0.1), corner_down=0.3, brow_lower=0.3), 0.0, (0.0, 0.0)),
    "brows up": (dict(inner_brow=1.0, outer_brow=1.0), 0.0, (0.0, 0.0)),
    "squint": (dict(squint=1.0, brow_lower=0.35, cheek=0.6, nose_wrinkle=0.2), 0.0, (0.35, 0.35)),
    "mouth open": (dict(part=0.4), 0.38, (0.0, 0.0)),
    "pucker": (dict(pucker=1.0, funnel=0.2), 0.0, (0.0, 0.0)),
    "eyes shut": ({}, 0.0, (1.0, 1.0)),
    "wink": (dict(cheek=(0.8, 0.0), smile=(0.6, 0.15)), 0.0, (1.0, 0.0)),
}


def expression(head: FlameHead, name: str) -> torch.Tensor:
    """The motion vector (58,) of one of ``EXPRESSIONS``. ValueError for another name."""
    if name not in EXPRESSIONS:
        raise ValueError(f"expression {name!r}: expected one of {', '.join(EXPRESSIONS)}")
    units, jaw, lids = EXPRESSIONS[name]
    motion = torch.zeros(MotionConfig.dim)
    motion[MotionConfig.expression] = head.expression(**units)
    motion[MotionConfig.jaw.start] = jaw
    motion[MotionConfig.eyelid] = torch.tensor(lids)
    return motion
