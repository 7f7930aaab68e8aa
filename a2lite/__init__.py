"""a2lite: A²-LLM rebuilt room by room. A spoken question in; text, speech and a face out."""

import os
from pathlib import Path

__version__ = "0.1.0"

# where notebooks/, data_samples/ and runs/ lie: the clone, unless A2LITE_ROOT names another folder
ROOT = Path(os.environ.get("A2LITE_ROOT", Path(__file__).parents[1])).resolve()
