"""FLAME-QA (Sec. 3.3, 4, App. A): the samples' schema, their files, their validator and their data card.

Notebook 02. What is inside comes from the synthetic world (``a2lite.world``) or, at the paper's size, from clips.
"""

from a2lite.flame_qa.card import card, card_table
from a2lite.flame_qa.check import validate
from a2lite.flame_qa.samples import (
    SCHEMA_VERSION,
    TASKS,
    Sample,
    Samples,
    load_samples,
    samples_folder,
    save_samples,
    shard_name,
    subtask,
)

__all__ = [
    "SCHEMA_VERSION",
    "TASKS",
    "Sample",
    "Samples",
    "card",
    "card_table",
    "load_samples",
    "samples_folder",
    "save_samples",
    "shard_name",
    "subtask",
    "validate",
]
