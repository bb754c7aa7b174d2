"""Learning rates: warm-up and cosine in closed form, layer-wise groups, reduce-on-plateau; averages of the weights.

All rates are functions of the update number k (from 0), so nothing but k and the plateau state needs to
be stored in a checkpoint.
"""

from __future__ import annotations

import fnmatch
import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from jmp_lib.settings import Schedule, length


@dataclass(frozen=True)
class Updates:
    """A Schedule with every length in updates."""

    warmup: int
    warmup_start_factor: float
    cosine_until: int
    min_factor: float
    stop_at: int
    validate_every: int


def in_updates(schedule: Schedule, updates_per_epoch: int, max_steps: int | None = None) -> Updates:
    """``schedule`` with its lengths in updates; ``max_steps`` shortens all of them in proportion."""
    def updates(name: str) -> int:
        number, unit = length(getattr(schedule, name))
        return number * (updates_per_epoch if unit == "epochs" else 1)

    warmup, cosine, stop, every = map(updates, ("warmup", "cosine_until", "stop_at", "validate_every"))
    if max_steps is not None and max_steps < stop:
        shrink = min(1.0, max_steps / cosine)
        warmup, cosine, stop = int(warmup * shrink), max(1, int(cosine * shrink)), max_steps
        every = min(every, stop)
    if not (0 <= warmup <= cosine and 1 <= stop and 1 <= every):
        raise ValueError(f"schedule: need 0 <= warmup <= cosine_until, stop_at >= 1 and validate_every >= 1, "
                         f"got {warmup}, {cosine}, {stop}, {every} updates")
    return Updates(warmup, schedule.warmup_start_factor, cosine, schedule.min_factor, stop, every)


def warmup_cosine(k: int, base: float, warmup: int, until: int, start_factor: float, min_factor: float,
                  restart: bool = False) -> float:
    """Learning rate of update ``k``: for k < W linear from start_factor·base to base at k = W-1; then a cosine from
    base at k = W down to min_factor·base at k = ``until``, where it stays, or (``restart``, as in pre-training) rises
    again."""
    start, low = start_factor * base, min_factor * base
    if k < warmup:
        return start + k * (base - start) / (warmup - 1) if warmup > 1 else base
    if k >= until and not restart:
        return low
    return low + (base - low) * (1 + math.cos(math.pi * (k - warmup) / max(1, until - warmup))) / 2


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning-rate multiplier, by fnmatch patterns of their names."""

    name: str
    patterns: tuple[str, ...]
    multiplier: float


def layerwise_groups(embedding: float, blocks: tuple[float, ...]) -> list[Group]:
    """Groups of a fine-tuning model with ``len(blocks)`` interaction blocks.

    Group i holds interaction block i and output block i+1; output block 0 goes with block 0.  The rest
    (bases, output MLPs, heads) has multiplier 1 and comes last.
    """
    groups = [Group("embedding", ("embedding.*",), embedding)]
    for i, multiplier in enumerate(blocks):
        outputs = (0, 1) if i == 0 else (i + 1,)
        patterns = (f"backbone.int_blocks.{i}.*", *(f"backbone.out_blocks.{k}.*" for k in outputs))
        groups.append(Group(f"blocks_{i}", patterns, multiplier))
    return [*groups, Group("rest", ("*",), 1.0)]


def parameter_groups(model: torch.nn.Module, groups: list[Group], lr: float) -> list[dict]:
    """Optimiser groups with ``name``, ``base_lr`` (lr · multiplier) and ``multiplier``: the first matching group takes
    a parameter (the last one takes all that are left); empty groups are left out."""
    members = {group.name: [] for group in groups}
    for name, parameter in model.named_parameters():
        own = next(group for group in groups if any(fnmatch.fnmatchcase(name, pattern) for pattern in group.patterns))
        members[own.name].append(parameter)
    return [{"name": g.name, "params": members[g.name], "lr": lr * g.multiplier, "base_lr": lr * g.multiplier,
             "multiplier": g.multiplier} for g in groups if members[g.name]]


def group_min_factor(min_factor: float, multiplier: float) -> float:
    """Minimum factor of a group: min_factor / multiplier clipped to [0.01, 0.99]."""
    return min(max(min_factor / multiplier, 0.01), 0.99)


def set_rates(optimizer: torch.optim.Optimizer, k: int, schedule: Updates, restart: bool = False) -> None:
    """Set the learning rate of every group for update ``k``; without restart reduce-on-plateau rules them after
    ``cosine_until``."""
    if k > schedule.cosine_until and not restart:
        return
    for group in optimizer.param_groups:
        low = group_min_factor(schedule.min_factor, group.get("multiplier", 1.0))
        group["lr"] = warmup_cosine(k, group["base_lr"], schedule.warmup, schedule.cosine_until,
                                    schedule.warmup_start_factor, low, restart)


def plateau(optimizer: torch.optim.Optimizer, factor: float, patience: int):
    """Reduce-on-plateau of the fine-tuning stage after the cosine (relative threshold 1e-4)."""
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=factor, patience=patience,
                                                      threshold=1.0e-4, threshold_mode="rel", eps=1.0e-8)


class EMA:
    """Exponential moving averages of a model's parameters, in their order: ema ← d·ema + (1-d)·w after every update.

    It starts as a copy of the weights before the first update; no warm-up, no bias correction; parameters
    only, no buffers.  Fine-tuning starts from these averaged weights.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.parameters = list(model.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]
        self.share = torch.tensor(1 - decay, dtype=self.averages[0].dtype, device=self.averages[0].device)

    @torch.no_grad()
    def update(self, left_out: Tensor | None = None) -> None:
        """Call once after every update; nothing moves where ``left_out``, a truth value on the device, is true."""
        share = self.share if left_out is None else self.share.masked_fill(left_out, 0.0)
        if share.device.type == "cpu":
            torch._foreach_lerp_(self.averages, self.parameters, [share] * len(self.averages))
        else:  # there lerp with a share on the device would be one kernel for each tensor
            change = torch._foreach_sub(self.parameters, self.averages)
            torch._foreach_mul_(change, share)
            torch._foreach_add_(self.averages, change)

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
        torch._foreach_copy_(self.parameters, self.averages)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.averages):  # one by one: no second copy of the network
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict:
        return {"averages": self.averages}

    def load_state_dict(self, state: dict) -> None:
        torch._foreach_copy_(self.averages, state["averages"])
