"""One torch thread and no network, in the tests and in every process that they start."""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", MPLBACKEND="agg", A2LITE_HEADLESS="1")

import torch

torch.set_num_threads(1)
