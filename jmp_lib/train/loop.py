"""The training loop, shared by pre-training and fine-tuning; read it from top to bottom.

One update: batch -> loss -> gradients -> divide shared ones -> clip -> AdamW -> moving average -> rates.
Every ``validate_every`` updates: validation, plateau, best weights, early stopping.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from jmp_lib.train.checkpoint import load_checkpoint, save_checkpoint
from jmp_lib.train.ema import EMA
from jmp_lib.train.schedule import Updates, set_rates


@dataclass
class Run:
    """Everything the loop needs; the callables are written in pretrain.py and finetune.py."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Updates
    updates_per_epoch: int
    batch: Callable[[int], tuple[dict, list[str]]]  # update number -> (batch on the device, names of its structures)
    loss: Callable[[dict], dict[str, Tensor]]  # batch -> {"total": ..., parts}
    validate: Callable[[], dict[str, float]]  # with the model in evaluation mode
    clip: Callable[[], None]
    fingerprint: str
    checkpoint: Path
    checkpoint_every: int
    ema: EMA | None = None
    restart: bool = False  # the cosine rises again after its end (pre-training)
    gradient_divisors: dict[str, int] = field(default_factory=dict)
    watch: str | None = None  # validation value that chooses the best weights; None: the last weights are kept
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
    patience: int | None = None  # validations without improvement before the run stops
    min_delta: float = 0.0
    stop_below_lr: float = 0.0
    precision: str = "float32"
    bar: tqdm | None = None


@dataclass
class Progress:
    """Where a run is; stored in its checkpoint."""

    step: int = 0  # updates done
    seconds: float = 0.0  # wall time so far
    train_seconds: float = 0.0  # of it, without validation
    loss_sum: float = 0.0  # since the last validation
    loss_count: int = 0
    best_value: float | None = None
    best_step: int = 0
    without_improvement: int = 0
    stopped: str = ""  # why the run ended early
    history: list[dict] = field(default_factory=list)
    best_weights: dict[str, Tensor] | None = None


def train(run: Run) -> Progress:
    """Run to the end, from the last checkpoint if there is one.  The model ends with the chosen weights.

    Raises ``FloatingPointError`` naming the structures when the loss is not finite.
    """
    divided = [(p, run.gradient_divisors[name]) for name, p in run.model.named_parameters()
               if name in run.gradient_divisors]
    scaler = torch.amp.GradScaler(enabled=_half(run) is torch.float16)
    progress = _resume(run, scaler)
    if progress.step == 0:
        set_rates(run.optimizer, 0, run.schedule, run.restart)
    if run.bar is not None:
        run.bar.reset(total=run.schedule.stop_at)
        run.bar.update(progress.step)

    while progress.step < run.schedule.stop_at and not progress.stopped:
        began = time.perf_counter()
        run.model.train()
        batch, names = run.batch(progress.step)
        rate = max(group["lr"] for group in run.optimizer.param_groups)
        run.optimizer.zero_grad(set_to_none=True)
        with _autocast(run):
            losses = run.loss(batch)
        value = float(losses["total"].detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss of update {progress.step} is {value} (learning rate {rate:.2e}); structures of this batch: "
                f"{', '.join(names)}; look at their labels and close contacts, or lower lr in the profile")
        scaler.scale(losses["total"]).backward()
        scaler.unscale_(run.optimizer)
        for parameter, divisor in divided:
            if parameter.grad is not None:
                parameter.grad.div_(divisor)
        run.clip()
        scaler.step(run.optimizer)
        scaler.update()
        if run.ema is not None:
            run.ema.update()
        progress.step += 1
        progress.loss_sum += value
        progress.loss_count += 1
        set_rates(run.optimizer, progress.step, run.schedule, run.restart)
        elapsed = time.perf_counter() - began
        progress.train_seconds += elapsed
        progress.seconds += elapsed

        if progress.step % run.schedule.validate_every == 0 or progress.step == run.schedule.stop_at:
            _validate(run, progress, rate)
        if progress.step % run.checkpoint_every == 0:
            _save(run, progress, scaler)
        if run.bar is not None:
            run.bar.update()

    if progress.best_weights is not None:
        run.model.load_state_dict(progress.best_weights)
    elif run.ema is not None:
        run.ema.copy_to_model()
    run.model.eval()
    return progress


def _validate(run: Run, progress: Progress, rate: float) -> None:
    """Validation, one row of history, plateau step, best weights, early stopping."""
    began = time.perf_counter()
    run.model.eval()
    with run.ema.swapped_in() if run.ema is not None else nullcontext():
        with _autocast(run):
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
        "train_loss": progress.loss_sum / progress.loss_count, "seconds": progress.seconds,
        "train_seconds": progress.train_seconds, **values})
    progress.loss_sum, progress.loss_count = 0.0, 0
    if run.bar is not None and run.watch is not None:
        run.bar.set_postfix({run.watch: f"{values[run.watch]:.4g}"}, refresh=False)

    if run.plateau is not None and progress.step >= run.schedule.cosine_until:
        run.plateau.step(values[run.watch])
    if run.patience is not None and progress.without_improvement >= run.patience:
        progress.stopped = f"no improvement in {run.patience} validations"
    if max(group["lr"] for group in run.optimizer.param_groups) < run.stop_below_lr:
        progress.stopped = f"learning rate below {run.stop_below_lr:.1e}"


def _save(run: Run, progress: Progress, scaler) -> None:
    fields = {name: getattr(progress, name) for name in asdict(Progress())}
    save_checkpoint(run.checkpoint, run.fingerprint, model=run.model.state_dict(), optimizer=run.optimizer.state_dict(),
                    ema=run.ema.state_dict() if run.ema is not None else None,
                    plateau=run.plateau.state_dict() if run.plateau is not None else None,
                    scaler=scaler.state_dict(), progress=fields)


def _resume(run: Run, scaler) -> Progress:
    """Restore the last checkpoint of this run, or start from update 0."""
    state = load_checkpoint(run.checkpoint, run.fingerprint)
    if state is None:
        return Progress()
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.ema is not None:
        run.ema.load_state_dict(state["ema"])
    if run.plateau is not None:
        run.plateau.load_state_dict(state["plateau"])
    if scaler.is_enabled():
        scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])


def _half(run: Run):
    """Number type of mixed precision, None for float32. On a CPU every run is float32."""
    device = next(run.model.parameters()).device
    return {"bfloat16-mixed": torch.bfloat16, "float16-mixed": torch.float16}.get(run.precision) \
        if device.type == "cuda" else None


def _autocast(run: Run):
    half = _half(run)
    return nullcontext() if half is None else torch.autocast("cuda", half)


def used_precision(precision: str, device: torch.device) -> str:
    """The precision that a run really uses on ``device``, for its record."""
    return precision if device.type == "cuda" else "float32"
