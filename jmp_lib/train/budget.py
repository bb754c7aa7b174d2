"""The largest part of a batch that fits in memory, found by trying: the value of ``engine.max_edges``.

    python -m jmp_lib batch-budget --profile paper --sizes small                              (pre-training)
    python -m jmp_lib batch-budget --profile paper --tasks rmd17_ethanol --arms JMP-S

Parts of growing size go through forward pass, backward pass and a step of the optimiser: doubled, then bisected, until
the largest that fits is known within 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch

from jmp_lib.graphs import collate
from jmp_lib.model import FinetuneModel
from jmp_lib.model.scaling import scale_modules
from jmp_lib.settings import Profile
from jmp_lib.train import finetuning, pretraining
from jmp_lib.train.batches import UpdateBatches, choose_device, main_edges, on_device
from jmp_lib.train.joint_sets import profile_sets
from jmp_lib.train.logs import memory_mb
from jmp_lib.train.losses import Counts
from jmp_lib.train.memory import give_back, is_out_of_memory, memory_limit
from jmp_lib.train.processes import Processes

SAMPLED = 16  # updates whose structures are tried


@dataclass(frozen=True)
class Budget:
    """What was found for one training."""

    name: str
    max_edges: int | None  # None: the largest batch that was seen fits whole
    largest_batch: int  # edges of the largest batch that was seen
    largest_structure: int  # edges
    peak_memory_mb: float

    def __str__(self) -> str:
        """One line for the command line."""
        seen = f"largest of {SAMPLED} batches: {self.largest_batch} edges, largest structure: {self.largest_structure}"
        if self.max_edges is None:
            return f"{self.name}: max_edges null, whole batches fit ({seen}; peak {self.peak_memory_mb:.0f} MB)"
        return f"{self.name}: max_edges {self.max_edges} ({seen}; peak {self.peak_memory_mb:.0f} MB)"


def of_pretraining(profile: Profile, size: str) -> Budget:
    """Budget of the pre-training of ``size``.  Raises ``RuntimeError`` when not even one structure fits."""
    processes = Processes(choose_device(profile.device), profile.pretraining.precision, profile.engine.cpu_autocast)
    factors = _ones(pretraining.new_model(profile, size))
    parts = pretraining.parts_of_run(profile, size, profile_sets(profile), factors, processes)
    return _search(f"pre-training {size}", *parts, processes, profile)


def of_finetuning(profile: Profile, task_id: str, arm: str) -> Budget:
    """Budget of the fine-tuning of one task by one arm.  Raises ``RuntimeError`` when not even one structure fits."""
    data = finetuning.task_data(profile, task_id, profile.folds_of(task_id)[0])
    what = finetuning.of_task(profile, data, arm, {}, None)
    what.factors = _ones(FinetuneModel(what.backbone, what.heads))
    processes = Processes(choose_device(profile.device), what.settings.precision, profile.engine.cpu_autocast)
    return _search(f"{task_id} {arm}", *what.parts(processes, profile.engine), processes, profile)


def _ones(model: torch.nn.Module) -> dict[str, float]:
    """Scale factors that need no fit; their values need no memory."""
    return dict.fromkeys(scale_modules(model), 1.0)


def _search(name: str, model: torch.nn.Module, data: UpdateBatches, loss: Callable, optimizer: torch.optim.Optimizer,
            processes: Processes, profile: Profile) -> Budget:
    if processes.device.type == "cpu" and profile.engine.memory_gb is None:
        raise ValueError("on a CPU say how much memory a pass may take: --memory-gb, or engine.memory_gb")
    torch.set_num_threads(profile.threads)
    model.train()
    batches = [data.items(step)[0] for step in range(SAMPLED)]
    pool = [item for items in batches for item in items]
    largest = max(pool, key=main_edges)
    most = max(sum(map(main_edges, items)) for items in batches)

    def passes(items: list[dict]) -> bool:
        try:
            with memory_limit(profile.engine.memory_gb if processes.device.type == "cpu" else None):
                batch = on_device(collate(items), processes.device)
                with processes.autocast():
                    total = loss(batch, Counts(len(items), len(batch["batch"])))["total"]
                total.backward()
                optimizer.step()  # its averages take memory from the first step on
            return True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            optimizer.zero_grad(set_to_none=True)
            total = batch = None

    def fits(limit: int) -> bool:
        found = all(passes(fill(items, limit)) for items in (pool, [largest]))
        give_back()
        return found

    found = largest_that_fits(fits, main_edges(largest), most)
    if found < main_edges(largest) and not fits(main_edges(largest)):
        raise RuntimeError(f"{name}: the largest structure, {main_edges(largest)} edges, does not fit by itself: use a "
                           "smaller network, cutoff or max_neighbors, or a device with more memory")
    return Budget(name, None if found >= most else found, most, main_edges(largest), memory_mb(processes.device))


def largest_that_fits(fits: Callable[[int], bool], first: int, most: int, precision: float = 0.05) -> int:
    """The largest number from 1 to ``most`` with ``fits``, by trying: doubling from ``first``, then bisecting.

    Within ``precision`` of the limit; 0 when not even 1 fits.  ``fits`` must be monotonous.
    """
    low, high = 0, most + 1  # low fits, high does not (or is beyond what is asked)
    trial = min(first, most)
    while high - low > 1 and (high > most or high - low > precision * high):
        if fits(trial):
            low = trial
            trial = min(2 * trial, most) if high > most else (low + high) // 2
            if low == most:
                break
        else:
            high = trial
            trial = (low + high) // 2
    return low


def fill(items: list[dict], limit: int) -> list[dict]:
    """Structures of ``items`` in turn, again and again, up to ``limit`` edges; at least one."""
    chosen, total = [], 0
    while True:
        item = items[len(chosen) % len(items)]
        if chosen and total + main_edges(item) > limit:
            return chosen
        chosen.append(item)
        total += main_edges(item)


def main(run, finetuning: bool) -> int:
    """Print the budget of the pre-trainings, or of the fine-tunings, of a run of the workbook."""
    found = (of_finetuning(run.profile, task, arm) for task in run.tasks for arm in run.arms) if finetuning else \
        (of_pretraining(run.profile, size) for size in run.sizes)
    for budget in found:
        print(budget)
    return 0
