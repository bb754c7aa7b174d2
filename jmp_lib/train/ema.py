"""Exponential moving average of the weights, ema ← d·ema + (1-d)·w after every update.

It starts as a copy of the weights before the first update; no warm-up, no bias correction; parameters
only, no buffers.  Fine-tuning starts from these averaged weights.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Averages of the parameters of ``model``, in parameter order."""

    def __init__(self, model: torch.nn.Module, decay: float):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay must be from 0 to below 1, not {decay}")
        self.parameters = list(model.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Call once after every performed update."""
        self._average(self.averages, self.parameters, None)

    @contextmanager
    def swapped_in(self):
        """Within this context the model has the averaged weights (validation, test, saving)."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the averaged weights for good."""
        for parameter, average in zip(self.parameters, self.averages):
            parameter.copy_(average)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.averages):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict:
        return {"averages": self.averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        if len(state["averages"]) != len(self.averages):
            raise ValueError("the checkpoint's averages belong to another network: delete the checkpoint")
        for average, stored in zip(self.averages, state["averages"]):
            average.copy_(stored)
