"""The trainer: one loop for pre-training and fine-tuning; read it from top to bottom.

One update: batch -> loss and gradients, in parts that fit -> sum over processes -> divide shared ones -> clip -> AdamW
-> moving average -> rates.  Every ``validate_every`` updates: validation, plateau, best weights, early stopping.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from jmp_lib.files import write_json
from jmp_lib.pool import GO_ON, end, termination
from jmp_lib.settings import Engine
from jmp_lib.train.batches import Share, UpdateBatches, prepared
from jmp_lib.train.checkpoint import gone_on, load_checkpoint, save_checkpoint
from jmp_lib.train.logs import Logs, memory_mb
from jmp_lib.train.losses import Counts
from jmp_lib.train.memory import give_back, is_out_of_memory, keep_freed_memory
from jmp_lib.train.processes import Processes
from jmp_lib.train.schedule import EMA, Updates, set_rates


@dataclass
class Run:
    """Everything the loop needs; the callables are written in pretraining.py and finetuning.py."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Updates
    updates_per_epoch: int
    data: UpdateBatches  # update number -> this process's share of the batch
    loss: Callable[[dict, Counts], dict[str, Tensor]]  # part of a batch, counts of the whole -> {"total": ..., parts}
    validate: Callable[[], dict[str, float]]  # with the model in evaluation mode
    clip: Callable[[], None]
    fingerprint: str
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
    bar: tqdm | None = None


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
    max_edges: int | None = None  # of a part of a batch, as it has become by running out of memory
    skipped: list[dict] = field(default_factory=list)  # updates without a step: loss or gradient not finite
    skipped_by_scaler: int = 0  # updates without a step: a scaled gradient of float16 was infinite, the scale is lowered
    history: list[dict] = field(default_factory=list)
    machines: list[dict] = field(default_factory=list)  # from which update on it was computed on what
    best_weights: dict[str, Tensor] | None = None

    @property
    def waiting_share(self) -> float:
        """Share of the training time that was spent waiting for data."""
        return self.waiting_seconds / self.train_seconds if self.train_seconds else 0.0


def train(run: Run) -> Progress:
    """Run to the end, from the last checkpoint if there is one.  The model ends with the chosen weights.

    Raises ``FloatingPointError`` naming the structures when the loss or the gradient is not finite, ``RuntimeError``
    when a single structure does not fit in memory, and ends with ``Terminated`` when SIGTERM comes.
    """
    processes, scaler = run.processes, run.processes.scaler
    if processes.device.type == "cpu":
        keep_freed_memory()
    divided = [(p, run.gradient_divisors[name]) for name, p in run.model.named_parameters()
               if name in run.gradient_divisors]
    progress = _resume(run)
    progress.machines = gone_on(progress.machines, processes, progress.step, run.name)
    run.data.max_edges = progress.max_edges
    if progress.step == 0:
        set_rates(run.optimizer, 0, run.schedule, run.restart)
    if run.bar is not None:
        run.bar.reset(total=run.schedule.stop_at)
        run.bar.update(progress.step)
    logs = Logs(run.checkpoint.parent, run.engine.logs, run.loss_names, progress.step) \
        if processes.first else None
    last = 0 if progress.stopped else run.schedule.stop_at
    batches = prepared(run.data, progress.step, last, run.engine.workers_data, pin=processes.device.type == "cuda")

    with termination() as asked, closing(batches), closing(logs) if logs else nullcontext():
        while progress.step < run.schedule.stop_at and not progress.stopped:
            began = time.perf_counter()
            share = next(batches)
            waited = time.perf_counter() - began
            run.model.train()
            rate = max(group["lr"] for group in run.optimizer.param_groups)
            run.optimizer.zero_grad(set_to_none=True)
            losses, share = _gradients(run, progress, share)
            values = [losses.get(name, 0.0) for name in run.loss_names]
            *values, ask_end = processes.sum_numbers([*values, float(bool(asked))])
            losses = dict(zip(run.loss_names, values))
            processes.sum_gradients(run.model.parameters())
            scaler.unscale_(run.optimizer)
            for parameter, divisor in divided:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
            norm = _gradient_norm(run.model)
            if math.isfinite(losses["total"]) and (math.isfinite(norm) or scaler.is_enabled()):
                run.clip()
                if not _step(run):
                    progress.skipped_by_scaler += 1
                elif run.ema is not None:
                    run.ema.update()
                progress.loss_sum += losses["total"]
                progress.loss_count += 1
            else:
                _leave_out(run, progress, share, losses, norm, rate)
                scaler.update()
            progress.step += 1
            set_rates(run.optimizer, progress.step, run.schedule, run.restart)
            elapsed = time.perf_counter() - began
            progress.train_seconds += elapsed
            progress.waiting_seconds += waited
            progress.seconds += elapsed
            if logs is not None:
                parts = {name: value for name, value in losses.items() if name != "total"}
                logs.update({"update": progress.step, "epoch": progress.step / run.updates_per_epoch, "lr": rate,
                             "loss": losses["total"], **parts, "grad_norm": norm, "seconds": elapsed, "waiting": waited,
                             "memory_mb": memory_mb(processes.device)})

            if progress.step % run.schedule.validate_every == 0 or progress.step == run.schedule.stop_at:
                _validate(run, progress, rate, logs)
            if progress.step % run.checkpoint_every == 0 or ask_end:
                _save(run, progress)
            if ask_end:
                processes.wait()
                end(f"{run.name}: SIGTERM after update {progress.step}; the checkpoint is written, and {GO_ON}")
            if run.bar is not None:
                run.bar.update()

    if progress.best_weights is not None:
        run.model.load_state_dict(progress.best_weights)
    elif run.ema is not None:
        run.ema.copy_to_model()
    run.model.eval()
    return progress


def _gradients(run: Run, progress: Progress, share: Share) -> tuple[dict[str, float], Share]:
    """Forward and backward pass of all parts of this process's share: summed losses, and the share as it was cut.

    Out of memory: everything again, cut at half the edges of the part that failed; the smaller parts stay.  Raises
    ``RuntimeError`` when a single structure does not fit.
    """
    if share.max_edges != progress.max_edges:  # prepared before memory ran out
        share = run.data[progress.step]
    while True:
        sums: dict[str, float] = {}
        try:
            for number, part in enumerate(share.parts):  # noqa: B007 (the number of the part that failed)
                for name, value in _pass(run, part, share.counts).items():
                    sums[name] = sums.get(name, 0.0) + value
            return sums, share
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if len(share.names[number]) == 1:
            raise RuntimeError(
                f"{share.names[number][0]} with {share.edges[number]} edges does not fit in memory by itself: leave it "
                "out, use a smaller network, cutoff or max_neighbors, or a device with more memory")
        run.optimizer.zero_grad(set_to_none=True)
        give_back()  # the error is gone here, and with it what it held
        run.data.max_edges = progress.max_edges = share.edges[number] // 2
        share = run.data[progress.step]


def _pass(run: Run, part, counts: Counts) -> dict[str, float]:
    """Losses of one part; their gradients are added to those of the parts before."""
    part = copy.copy(part).to(run.processes.device, non_blocking=True)  # ``to`` alone would keep all parts on the device
    with run.processes.autocast():
        losses = run.loss(part, counts)
    run.processes.scaler.scale(losses["total"]).backward()
    return {name: float(value.detach()) for name, value in losses.items()}


def _step(run: Run) -> bool:
    """The optimiser's step; False where the scaler of float16 left it out because a gradient was infinite.

    The update counts all the same: its batch is used up, and rates are functions of the update number.
    """
    scaler = run.processes.scaler
    scale = scaler.get_scale()
    scaler.step(run.optimizer)
    scaler.update()
    return scaler.get_scale() >= scale


def _gradient_norm(model: torch.nn.Module) -> float:
    """Norm of the whole gradient, before clipping."""
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def _leave_out(run: Run, progress: Progress, share: Share, losses: dict, norm: float, rate: float) -> None:
    """An update whose loss or gradient is not finite: its batch is saved, and it is skipped or ends the run."""
    names = sorted({name for own in run.processes.gather(share.names) for part in own for name in part})
    found = {"update": progress.step, "structures": names, "losses": {k: str(v) for k, v in losses.items()},
             "gradient_norm": str(norm), "learning_rate": rate}
    progress.skipped.append(found)
    file = run.checkpoint.parent / "nonfinite.json"
    if run.processes.first:
        write_json(file, {"run": run.name, "updates": progress.skipped})
    if len(progress.skipped) > run.engine.nonfinite_budget:
        what = f"loss of update {progress.step} is {losses['total']}" if not math.isfinite(losses["total"]) else \
            f"gradient norm of update {progress.step} is {norm}"
        raise FloatingPointError(
            f"the {what} (learning rate {rate:.2e}); structures of this batch: {', '.join(names)} (also in {file}); "
            "look at their labels and close contacts, lower lr, or raise engine.nonfinite_budget to leave it out")


def _validate(run: Run, progress: Progress, rate: float, logs: Logs | None) -> None:
    """Validation, one row of history, plateau step, best weights, early stopping."""
    began = time.perf_counter()
    run.model.eval()
    with run.ema.swapped_in() if run.ema is not None else nullcontext():
        with run.processes.autocast():
            values = run.validate()
        improved = run.watch is not None and (
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
    if logs is not None:
        logs.validation(progress.history[-1])
    if run.bar is not None and run.watch is not None:
        run.bar.set_postfix({run.watch: f"{values[run.watch]:.4g}"}, refresh=False)

    if run.plateau is not None and progress.step >= run.schedule.cosine_until:
        run.plateau.step(values[run.watch])
    if run.patience is not None and progress.without_improvement >= run.patience:
        progress.stopped = f"no improvement in {run.patience} validations"
    if max(group["lr"] for group in run.optimizer.param_groups) < run.stop_below_lr:
        progress.stopped = f"learning rate below {run.stop_below_lr:.1e}"


def _state(run: Run) -> dict:
    """What besides the progress is stored in a checkpoint; each has ``state_dict`` and ``load_state_dict``."""
    parts = {"model": run.model, "optimizer": run.optimizer, "ema": run.ema, "plateau": run.plateau,
             "scaler": run.processes.scaler}
    return {name: part for name, part in parts.items() if part is not None}


def _save(run: Run, progress: Progress) -> None:
    if run.processes.first:
        parts = {name: part.state_dict() for name, part in _state(run).items()}
        save_checkpoint(run.checkpoint, run.fingerprint, **parts, progress=dict(vars(progress)))


def _resume(run: Run) -> Progress:
    """Restore the last checkpoint of this run, or start from update 0."""
    state = load_checkpoint(run.checkpoint, run.fingerprint)
    if state is None:
        return Progress(max_edges=run.engine.max_edges)
    if run.engine.max_edges is not None:
        kept = state["progress"]["max_edges"] or run.engine.max_edges
        state["progress"]["max_edges"] = min(run.engine.max_edges, kept)
    for name, part in _state(run).items():
        if state[name]:  # a scaler's is empty where none was needed
            part.load_state_dict(state[name])
    return Progress(**state["progress"])
