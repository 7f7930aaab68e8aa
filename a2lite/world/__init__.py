"""The synthetic world: dialogues in a closed domain, spoken by espeak-ng, with a face that obeys known laws.

It stands in for FLAME-QA (Sec. 4), which is not public: small enough to generate in minutes, and built so that
the paper's thesis can be tested. Half of the answers have the same words and the same prosody under every
emotion; only the dialogue tells what the face should show. Notebook 02.

``domain`` (what is said), ``espeak`` (the voices), ``dialogue`` (the plan of a sample), ``performance`` (the
face), ``generation`` (samples and files).
"""

from a2lite.world.dialogue import SPLITS, Plan, plan
from a2lite.world.generation import generate, sample

__all__ = ["SPLITS", "Plan", "generate", "plan", "sample"]
