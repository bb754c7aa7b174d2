"""The trainer: one loop for pre-training and fine-tuning; read it from top to bottom.

One update: batch -> loss and gradients, in parts that fit -> sum over processes -> divide shared ones -> clip -> AdamW
-> moving average -> rates.  Every ``validate_every`` updates: validation, plateau, best weights, early stopping.

No update waits for its numbers: an update whose loss or gradient is not finite is left out by the device itself, and
losses and norms of several updates are read together (``READ_EVERY``), before a validation and a checkpoint in any
case.  The first that is not finite ends the run; in float16, whose scaler lowers its scale instead, the first that no
scale of 1 or more mends.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from jmp_lib import records
from jmp_lib.graphs.padding import buckets, shape
from jmp_lib.pool import GO_ON, end, termination
from jmp_lib.settings import Engine
from jmp_lib.train.batches import Share, UpdateBatches, give_back, is_out_of_memory, prepared
from jmp_lib.train.losses import Counts, with_padding
from jmp_lib.train.processes import Processes, keep_freed_memory
from jmp_lib.train.recorded import Recorded
from jmp_lib.train.saving import Log, load_checkpoint, save_checkpoint
from jmp_lib.train.schedule import EMA, Updates, set_rates

READ_EVERY = {"cpu": 1, "cuda": 16}  # updates whose losses and norms are read at once: a GPU must be waited for
BUCKETS = 24  # shapes to which batches are padded, and one more
DRAWN = 256  # updates from whose batches the shapes are chosen


@dataclass
class Training:
    """Everything the loop needs; the callables are written in pretraining.py and finetuning.py."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer  # with fused=True: it can leave out a step on the device
    schedule: Updates
    updates_per_epoch: int
    data: UpdateBatches  # update number -> this process's share of the batch
    loss: Callable[[dict, Counts], dict[str, Tensor]]  # part of a batch, counts of the whole -> {"total": ..., parts}
    validate: Callable[[], dict[str, float]]  # with the model in evaluation mode
    clip: Callable[[Tensor], None]  # norm of the whole gradient -> gradients clipped in place
    checkpoint: Path
    checkpoint_every: int
    processes: Processes = field(default_factory=Processes)
    engine: Engine = field(default_factory=Engine)
    name: str = "training"
    loss_names: tuple[str, ...] = ("total",)
    ema: EMA | None = None
    restart: bool = False  # the cosine rises again after its end (pre-training)
    gradient_divisors: dict[str, int] = field(default_factory=dict)
    watch: str | None = None  # validation value that chooses the best weights; None: the last weights are kept
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
    patience: int | None = None  # validations without improvement before the run stops
    min_delta: float = 0.0
    stop_below_lr: float = 0.0
    bar: tqdm = field(default_factory=lambda: tqdm(disable=True))
    recorded: Recorded | None = None  # passes of padded batches on a GPU (``train`` makes it)

    def __post_init__(self) -> None:
        # once: a walk through all modules is 2 % of a narrow network's update
        named = dict(self.model.named_parameters())
        self.parameters = list(named.values())
        self.shared = [(named[name], uses) for name, uses in self.gradient_divisors.items() if name in named]


@dataclass
class Progress:
    """Where a run is; stored in its checkpoint."""

    step: int = 0  # updates done
    seconds: float = 0.0  # wall time so far
    train_seconds: float = 0.0  # of it, without validation
    waiting_seconds: float = 0.0  # of the training time, waiting for data
    loss_sum: float = 0.0  # since the last validation
    loss_count: int = 0
    best_value: float | None = None
    best_step: int = 0
    without_improvement: int = 0
    stopped: str = ""  # why the run ended early
    max_edges: int | None = None  # size of a part of a batch, as it has become by running out of memory
    # updates without a step: float16 did not hold the loss or a scaled gradient, the scale is lowered
    skipped_by_scaler: int = 0
    history: list[dict] = field(default_factory=list)
    machines: list[dict] = field(default_factory=list)  # from which update on it was computed on what
    buckets: list[dict] = field(default_factory=list)  # shapes to which parts of batches are padded
    fitted: int = 0  # updates of which every part was padded
    padded: int = 0  # parts
    padding: float = 0.0  # sum of the shares by which that made them dearer
    recorded: int = 0  # shapes whose pass was replayed as a CUDA graph
    best_weights: dict[str, Tensor] | None = None

    @property
    def waiting_share(self) -> float:
        """Share of the training time that was spent waiting for data."""
        return self.waiting_seconds / self.train_seconds if self.train_seconds else 0.0

    @property
    def graphs(self) -> dict | None:
        """For a record: what padding did; None where nothing was padded."""
        return {"buckets": self.buckets, "recorded": self.recorded, "share_of_updates": self.fitted / max(1, self.step),
                "mean_padding_cost": self.padding / max(1, self.padded)} if self.buckets else None


def train(run: Training) -> Progress:
    """Run to the end, from the last checkpoint if there is one.  The model ends with the chosen weights.

    Raises ``FloatingPointError`` naming the structures when the loss or the gradient is not finite (in float16: at a
    scale below 1), ``RuntimeError``
    when a single structure does not fit in memory, and ends with ``Terminated`` when SIGTERM comes.
    """
    processes = run.processes
    if processes.device.type == "cpu":
        keep_freed_memory()
    progress = _resume(run)
    progress.machines = _gone_on(progress.machines, processes, progress.step, run.name)
    _pad(run, progress)
    run.data.max_edges = progress.max_edges
    if progress.step == 0:
        set_rates(run.optimizer, 0, run.schedule, run.restart)
    run.bar.reset(total=run.schedule.stop_at)
    run.bar.update(progress.step)
    log = Log(run.checkpoint.parent, run.loss_names, progress.step) if processes.first else None
    last = 0 if progress.stopped else run.schedule.stop_at
    batches = prepared(run.data, progress.step, last, run.engine.workers_data, pin=processes.device.type == "cuda")
    every = READ_EVERY[processes.device.type]
    unread: list[Update] = []
    seconds = 0.0  # of the updates that are not read yet

    with termination() as asked, closing(batches), closing(log) if log else nullcontext():
        while progress.step < run.schedule.stop_at and not progress.stopped:
            began = time.perf_counter()
            share = next(batches)
            waited = time.perf_counter() - began
            rate = max(group["lr"] for group in run.optimizer.param_groups)
            numbers, share = _update(run, progress, share, bool(asked))
            progress.step += 1
            set_rates(run.optimizer, progress.step, run.schedule, run.restart)
            unread.append(Update(progress.step, share.names, rate, waited, numbers))
            validation = progress.step % run.schedule.validate_every == 0 or progress.step == run.schedule.stop_at
            checkpoint = progress.step % run.checkpoint_every == 0
            read, ask_end = [], False
            if len(unread) >= every or validation or checkpoint or (asked and processes.size == 1):
                read, unread = list(zip(unread, torch.stack([update.numbers for update in unread]).tolist())), []
            elapsed = time.perf_counter() - began
            progress.train_seconds += elapsed
            progress.waiting_seconds += waited
            progress.seconds += elapsed
            seconds += elapsed
            for update, values in read:
                ask_end = _account(run, progress, update, values, seconds / len(read), log) or ask_end
            seconds = 0.0 if read else seconds

            if validation:
                _validate(run, progress, rate)
            if (checkpoint or ask_end) and processes.first:
                parts = {name: part.state_dict() for name, part in _state(run).items()}
                save_checkpoint(run.checkpoint, **parts, progress=dict(vars(progress)))
            if ask_end:
                processes.fabric.barrier()
                end(f"{run.name}: SIGTERM after update {progress.step}; the checkpoint is written, and {GO_ON}")
            run.bar.update()

    if progress.best_weights is not None:
        run.model.load_state_dict(progress.best_weights)
    elif run.ema is not None:
        run.ema.copy_to_model()
    run.model.eval()
    return progress


def _pad(run: Training, progress: Progress) -> None:
    """Where ``engine.graphs`` says so: chooses the shapes to which batches are padded, from those of the first
    updates (the same in a run that goes on), and on a GPU prepares recording."""
    device, scaled = run.processes.device, run.processes.scaler.is_enabled()  # its scale is asked by the host
    if run.engine.graphs == "off" or run.engine.graphs == "auto" and (device.type != "cuda" or scaled):
        return
    run.data.max_edges = run.engine.max_edges  # as at the start, whatever memory allowed later
    with closing(prepared(run.data, 0, min(run.schedule.stop_at, DRAWN), run.engine.workers_data, pin=False)) as drawn:
        run.data.buckets = progress.buckets = buckets([shape(part) for share in drawn for part in share.parts], BUCKETS)
    if device.type == "cuda" and not scaled:
        run.recorded = Recorded(partial(_losses, run, None), run.parameters, device)


class Update(NamedTuple):
    """What is to be told about an update when its ``numbers`` are read."""

    step: int  # updates done with it
    structures: list[list[str]]
    rate: float
    waited: float  # seconds, for its data
    numbers: Tensor  # of ``_update``


def _update(run: Training, progress: Progress, share: Share, asked: bool) -> tuple[Tensor, Share]:
    """One update of weights and averages, for which the host waits nowhere, and the share as it was cut.

    Returns float64 on the device: losses in the order of ``loss_names``, whether an end is ``asked`` for, in how many
    processes, and the norm of the gradient.  Where one of these is not finite, weights, moments and averages stay.  The
    scaler of float16 sees infinite gradients by itself and lowers its scale; the update counts all the same: its
    batch is used up, and rates are functions of the update number.
    """
    processes, optimizer = run.processes, run.optimizer
    if not run.model.training:
        run.model.train()
    optimizer.zero_grad(set_to_none=run.recorded is None)
    losses, share = _gradients(run, progress, share)
    if progress.buckets:
        padding = [found for found in share.padding if found is not None]
        progress.fitted += len(padding) == len(share.parts)
        progress.padded += len(padding)
        progress.padding += sum(padding)
        progress.recorded = run.recorded.count if run.recorded is not None else 0
    zero = torch.zeros((), dtype=torch.float64, device=processes.device)
    numbers = torch.stack([*(losses.get(name, zero) for name in run.loss_names), zero + asked])
    numbers = processes.fabric.all_reduce(numbers, reduce_op="sum")
    processes.sum_gradients(run.parameters)
    processes.scaler.unscale_(optimizer)
    if divided := [(p.grad, uses) for p, uses in run.shared if p.grad is not None]:
        torch._foreach_div_(*map(list, zip(*divided)))
    norm = _gradient_norm(run)
    left_out = ~(numbers[run.loss_names.index("total")].isfinite() & norm.isfinite())
    run.clip(norm)
    optimizer.found_inf = left_out.float()
    optimizer.step()
    processes.scaler.update()
    if run.ema is not None:
        run.ema.update(left_out)
    return torch.cat([numbers, norm.double().unsqueeze(0)]), share


def _gradients(run: Training, progress: Progress, share: Share) -> tuple[dict[str, Tensor], Share]:
    """Forward and backward pass of all parts of this process's share: summed losses, and the share as it was cut.

    Out of memory: everything again, cut at half the size of the part that failed; the smaller parts stay.  Raises
    ``RuntimeError`` when a single structure does not fit.
    """
    if share.max_edges != progress.max_edges:  # prepared before memory ran out
        share = run.data[progress.step]
    while True:
        sums: dict[str, Tensor] = {}
        try:
            for number, part in enumerate(share.parts):  # noqa: B007 (the number of the part that failed)
                for name, value in _pass(run, part, share.counts).items():
                    sums[name] = sums[name] + value if name in sums else value
            return sums, share
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if len(share.names[number]) == 1:
            raise RuntimeError(
                f"{share.names[number][0]} with {share.sizes[number]} edges (quadruplets counted as such) "
                "does not fit in memory by itself: leave it out, use a smaller network, cutoff or max_neighbors, "
                "or a device with more memory")
        run.optimizer.zero_grad(set_to_none=True)
        if run.recorded is not None:
            run.recorded.clear()
        give_back()  # the error is gone here, and with it what it held
        run.data.max_edges = progress.max_edges = share.sizes[number] // 2
        share = run.data[progress.step]


def _pass(run: Training, part, counts: Counts) -> dict[str, Tensor]:
    """Losses of one part, float64; their gradients are added to those of the parts before."""
    if run.recorded is not None and "counts" in part:
        return run.recorded(part)
    # ``to`` alone would keep all parts on the device
    part = copy.copy(part).to(run.processes.device, non_blocking=True)
    return _losses(run, counts, part)


def _losses(run: Training, counts: Counts | None, part) -> dict[str, Tensor]:
    """``_pass`` of a part on the device; a padded one brings the counts along."""
    with run.processes.fabric.autocast():
        losses = run.loss(part, with_padding(counts, part))
    run.processes.scaler.scale(losses["total"]).backward()
    return {name: value.detach().double() for name, value in losses.items()}


def _gradient_norm(run: Training) -> Tensor:
    """Norm of the whole gradient, before clipping."""
    return torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])


def _account(run: Training, progress: Progress, update: Update, values: list[float], seconds: float,
             log: Log | None) -> bool:
    """What the ``values`` of an update mean: sums, a row of the log, or the end of the run;
    whether an end is asked for."""
    *values, ask_end, norm = values
    losses = dict(zip(run.loss_names, values))
    finite, scaler = math.isfinite(losses["total"]) and math.isfinite(norm), run.processes.scaler
    if not finite and not (scaler.is_enabled() and scaler.get_scale() >= 1.0):
        names = sorted({name for own in run.processes.gather(update.structures) for part in own for name in part})
        number = update.step - 1
        what = f"loss of update {number} is {losses['total']}" if not math.isfinite(losses["total"]) else \
            f"gradient norm of update {number} is {norm}"
        raise FloatingPointError(f"the {what} (learning rate {update.rate:.2e}); structures of this batch: "
                                 f"{', '.join(names)}; look at their labels and close contacts, or lower lr")
    progress.skipped_by_scaler += not finite
    if math.isfinite(losses["total"]):
        progress.loss_sum += losses["total"]
        progress.loss_count += 1
    if log is not None:
        device = run.processes.device
        memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else records.peak_memory_mb()
        log.update({"update": update.step, "epoch": update.step / run.updates_per_epoch, "lr": update.rate,
                    "loss": losses["total"], **losses, "grad_norm": norm, "seconds": seconds, "waiting": update.waited,
                    "memory_mb": memory})
    return bool(ask_end)


def _validate(run: Training, progress: Progress, rate: float) -> None:
    """Validation, one row of history, plateau step, best weights, early stopping."""
    began = time.perf_counter()
    run.model.eval()
    with run.ema.swapped_in() if run.ema is not None else nullcontext():
        with run.processes.fabric.autocast():
            values = run.validate()
        improved = run.watch is not None and math.isfinite(values[run.watch]) and (
            progress.best_value is None or values[run.watch] < progress.best_value - run.min_delta)
        if improved:
            progress.best_value, progress.best_step = values[run.watch], progress.step
            progress.best_weights = {name: t.detach().clone() for name, t in run.model.state_dict().items()}
    progress.without_improvement = 0 if improved else progress.without_improvement + 1
    progress.seconds += time.perf_counter() - began
    progress.history.append({
        "step": progress.step, "epoch": progress.step / run.updates_per_epoch, "lr": rate,
        "train_loss": progress.loss_sum / progress.loss_count if progress.loss_count else math.nan,
        "seconds": progress.seconds, "train_seconds": progress.train_seconds, **values})
    progress.loss_sum, progress.loss_count = 0.0, 0
    if run.watch is not None:
        run.bar.set_postfix({run.watch: f"{values[run.watch]:.4g}"}, refresh=False)

    if run.plateau is not None and progress.step >= run.schedule.cosine_until:
        run.plateau.step(values[run.watch])
    if run.patience is not None and progress.without_improvement >= run.patience:
        progress.stopped = f"no improvement in {run.patience} validations"
    if max(group["lr"] for group in run.optimizer.param_groups) < run.stop_below_lr:
        progress.stopped = f"learning rate below {run.stop_below_lr:.1e}"


def _state(run: Training) -> dict:
    """What besides the progress is stored in a checkpoint; each has ``state_dict`` and ``load_state_dict``."""
    parts = {"model": run.model, "optimizer": run.optimizer, "ema": run.ema, "plateau": run.plateau,
             "scaler": run.processes.scaler}
    return {name: part for name, part in parts.items() if part is not None}


def _resume(run: Training) -> Progress:
    """Restore the last checkpoint of this run, or start from update 0."""
    state = load_checkpoint(run.checkpoint)
    if state is None:
        return Progress(max_edges=run.engine.max_edges)
    if run.engine.max_edges is not None:
        kept = state["progress"]["max_edges"] or run.engine.max_edges
        state["progress"]["max_edges"] = min(run.engine.max_edges, kept)
    for name, part in _state(run).items():
        if state[name]:  # a scaler's is empty where none was needed
            part.load_state_dict(state[name])
    return Progress(**state["progress"])


def _gone_on(machines: list[dict], processes, update: int, name: str) -> list[dict]:
    """``machines``, on which a run was computed so far, and the one that it goes on with after ``update`` updates.

    One that differs is said in a line: sums are then rounded in another order, or in another precision.
    """
    now = {"device": records.device_name(processes.device), "precision": processes.precision,
           "processes": processes.size, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    changed = [f"{key} {machines[-1][key]} -> {value}" for key, value in now.items()
               if machines and machines[-1][key] != value]
    if changed and processes.first:
        print(f"{name}: goes on after update {update} with {', '.join(changed)}: its last digits may differ from those "
              "of an undisturbed run, and its record says so", file=sys.stderr)
    return [*machines, {"from_update": update, **now}] if changed or not machines else machines
