"""The pass of a padded batch (loss and gradients) recorded as a CUDA graph, one for each shape, and replayed.

A recording reads its batch from arrays of its own and adds gradients to those that the weights had when it was made, so
gradients must be set to zero between updates and not thrown away. The first batch of a shape is computed as usual
(which also makes the gradients and all tables); at the second the pass is recorded, and believed if its first replay
gives the loss and gradients of the usual pass. Recordings of a process share one pool of memory.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from jmp_lib.graphs.padding import shape

Pass = Callable[[dict], dict[str, Tensor]]  # a batch on the device -> losses; gradients are added
TOLERANCE = 0.02  # sums in another order, in 16 bits


class Recorded:
    """``recorded(batch)`` as ``work(batch)``, replayed where the shape of the batch is known."""

    def __init__(self, work: Pass, parameters, device: torch.device):
        self.work, self.parameters, self.device = work, list(parameters), device
        self.clear()

    def clear(self) -> None:
        """Forget the recordings: memory ran out, or gradients are made anew."""
        # shape -> (arrays, replay, losses); None: computed as usual once, or for good
        self.made: dict[tuple, tuple | None] = {}
        self.refused: set[tuple] = set()
        self.pool = None

    @property
    def count(self) -> int:
        """How many shapes are recorded."""
        return sum(made is not None for made in self.made.values())

    def __call__(self, batch) -> dict[str, Tensor]:
        """Losses of the batch, which may still lie on the host; gradients are added."""
        key = tuple(shape(batch).values())
        made = self.made.get(key)
        if made is None:
            batch = copy.copy(batch).to(self.device, non_blocking=True)
            if key in self.made and key not in self.refused:
                return self._first_replay(key, batch)
            self.made[key] = None
            return self.work(batch)
        arrays, replay, losses = made
        for name, value in batch.to_dict().items():
            if torch.is_tensor(value):
                arrays[name].copy_(value, non_blocking=True)
        replay()
        return {name: value.clone() for name, value in losses.items()}

    def _first_replay(self, key: tuple, batch) -> dict[str, Tensor]:
        """Losses and gradients of the usual pass; the recording is kept if it gives the same."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        before = [g.clone() for g in gradients]
        losses = self.work(batch)
        usual = [g.clone() for g in gradients]
        if not bool(torch.nn.utils.get_total_norm([*losses.values(), *usual]).isfinite()):
            return losses  # nothing can be judged by it
        torch._foreach_copy_(gradients, before)
        why = "it gives other numbers"
        try:
            made = batch, *self.record(batch)
            made[1]()
            if _close([*made[2].values()], [*losses.values()]) and _close(gradients, usual):
                self.made[key] = made
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            why = str(error).splitlines()[0]
        if self.made[key] is None:
            self.refused.add(key)
            print(f"engine.graphs: a step was not recorded and is computed as usual: {why}", file=sys.stderr)
        torch._foreach_copy_(gradients, usual)
        return losses

    def record(self, batch) -> tuple[Callable[[], None], dict[str, Tensor]]:
        """(replay, losses that it fills) of a pass that reads ``batch``; nothing is computed."""
        graph = torch.cuda.CUDAGraph()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        # other threads copy batches meanwhile
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            losses = self.work(batch)
        return graph.replay, losses


def _close(found: list[Tensor], usual: list[Tensor]) -> bool:
    """Whether the norm of the differences is small beside that of the numbers."""
    norm = torch.nn.utils.get_total_norm
    return bool(norm(torch._foreach_sub(found, usual)) <= TOLERANCE * norm(usual))
