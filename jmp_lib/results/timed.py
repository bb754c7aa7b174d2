"""Training of a neighbour of the four arms for a given time on one core, with validation in between."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch

VALIDATIONS = 8


def train_for(seconds: float, model: torch.nn.Module, frames: Sequence, loss: Callable[[list], torch.Tensor],
              error: Callable[[], float], *, batch: int, rate: float, seed: int) -> dict:
    """Updates of ``model`` for ``seconds`` (validation not counted); the state with the best validation error is kept.

    Adam (amsgrad) at ``rate`` that falls by a cosine over the time given, gradients clipped at norm 10; ``loss`` of a list of
    ``batch`` frames. Returns updates, seconds, n_parameters and best_val.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, amsgrad=True)
    generator, order, updates, used, validated = torch.Generator().manual_seed(seed), [], 0, 0.0, 0
    best, state = math.inf, None
    while used < seconds:
        began = time.perf_counter()
        if len(order) < batch:
            order = torch.randperm(len(frames), generator=generator).tolist()
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.05 + 0.475 * (1 + math.cos(math.pi * used / seconds)))
        optimizer.zero_grad()
        loss([frames[order.pop()] for _ in range(min(batch, len(order)))]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        updates, used = updates + 1, used + time.perf_counter() - began
        if used >= seconds * (validated + 1) / VALIDATIONS or used >= seconds:
            validated = int(used / seconds * VALIDATIONS)
            value = error()
            if state is None or value < best:
                best, state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return {"updates": updates, "seconds": used, "n_parameters": sum(p.numel() for p in model.parameters()), "best_val": best}
