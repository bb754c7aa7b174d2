"""One thread per test process: repeatable sums, and no fight for the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
