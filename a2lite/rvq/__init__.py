"""Residual motion tokenization: 58 numbers at 25 fps in, six codes of 256 at 5 Hz out, and back.

Sec. 5.1 and App. B of A2-LLM; built in notebooks/03_rvq_tokenization.ipynb. In reading order: ``quantizer``
(Eq. 3), ``loss`` (Eq. 7-10), ``model`` (Fig. 2, Eq. 4), ``training``, ``evaluation``.
"""

from a2lite.rvq.evaluation import Quality, quality
from a2lite.rvq.loss import Geometry, magnitudes, weights
from a2lite.rvq.model import MotionRVQ, Stream
from a2lite.rvq.quantizer import ResidualQuantizer, usage
from a2lite.rvq.training import load, train

__all__ = [
    "Geometry",
    "MotionRVQ",
    "Quality",
    "ResidualQuantizer",
    "Stream",
    "load",
    "magnitudes",
    "quality",
    "train",
    "usage",
    "weights",
]
