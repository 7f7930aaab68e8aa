"""The audio language model: one vocabulary, an encoder that listens, a Qwen2 that answers, its pretraining.

A2-LLM keeps Step-Audio-2-mini as it is published (Sec. 3.1, 5.3); here it has the same form at any size. Built
by the second half of notebook 04.
"""

from a2lite.backbone.encoder import Adapter, Encoder, encoded_length, patch_count
from a2lite.backbone.generation import Answer, Step, answer, generate, stream
from a2lite.backbone.model import Backbone, Batch, align_tail, collate, qwen2_config
from a2lite.backbone.step_audio import from_pretrained
from a2lite.backbone.tokens import CONTROL, IGNORE, SLOTS, Dialogue, SlotGrammar, Vocabulary

__all__ = [
    "Adapter",
    "Answer",
    "Backbone",
    "Batch",
    "CONTROL",
    "Dialogue",
    "Encoder",
    "IGNORE",
    "SLOTS",
    "SlotGrammar",
    "Step",
    "Vocabulary",
    "align_tail",
    "answer",
    "collate",
    "encoded_length",
    "from_pretrained",
    "generate",
    "patch_count",
    "qwen2_config",
    "stream",
]
