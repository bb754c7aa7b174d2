"""Fitting the scale factors: each output gets the variance of its input (section 5).

Factors are fitted in the order in which they act, because each changes the inputs of the later ones:
f = √(v_ref / v_out), where v is the feature mean of the unbiased variance over the rows, averaged over batches with the
number of output rows as weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, BrokenBarrierError, Lock, local

import torch
from torch import Tensor, nn

from .layers import Scale


def scale_modules(model: nn.Module) -> dict[str, Scale]:
    """All scale factors of a model by name, in state-dict order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Scale)}


def row_variance(x: Tensor, weight: Tensor | None = None) -> float:
    """Unbiased variance over rows (each counted ``weight`` times), averaged over features."""
    x = x.detach().double().reshape(-1, x.shape[-1])
    if weight is None:
        return float(x.var(dim=0, unbiased=True).mean()) if len(x) > 1 else float("nan")
    weight = weight.to(x).unsqueeze(-1)
    total = weight.sum()
    mean = (weight * x).sum(0) / total
    return float(((weight * (x - mean) ** 2).sum(0) / (total - 1)).mean()) if total > 1 else float("nan")


def fit_scale_factors(
    model: nn.Module, batches: Sequence[dict], progress: Callable | None = None
) -> dict[str, float]:
    """Fit every factor of ``model`` in place; returns name -> factor.

    One forward pass of every batch is enough: the passes stop at each factor until all have come so far, the factor
    is set, and they go on with it.

    Args:
        batches: 16 batches in the published recipe, without edge dropout.
        progress: wraps the list of batches (``tqdm.auto.tqdm``), which end almost together.

    Raises:
        ValueError: a batch without enough edges to measure a variance.
    """
    was_training = model.training
    model.eval()
    modules = scale_modules(model)
    turns = _Turns(len(batches))
    for name, module in modules.items():
        module.set(0.0)
        module.observer = partial(turns.observe, name, module)
    try:
        with ThreadPoolExecutor(len(batches)) as pool:
            done = [pool.submit(turns.run, number, model, batch) for number, batch in enumerate(batches)]
            for future in progress(done) if progress else done:
                future.result()
    finally:
        for module in modules.values():
            module.observer = None
    unfitted = [name for name, module in modules.items() if not module.value]
    if turns.failed or unfitted:
        name = (turns.failed or unfitted)[0]
        raise ValueError(f"scale factor {name} cannot be fitted: the given structures have no rows for it")
    model.train(was_training)
    return {name: module.value for name, module in modules.items()}


class _Turns:
    """Forward passes in threads, one computing at a time, that meet at every scale factor."""

    def __init__(self, count: int):
        self.computing = Lock()
        self.meeting = Barrier(count)
        self.number = local()
        self.sums: list[tuple[float, float]] = [(0.0, 0.0)] * count
        self.failed: list[str] = []

    def run(self, number: int, model: nn.Module, batch: dict) -> None:
        """One forward pass; when it fails, the others are let go."""
        self.number.value = number
        with self.computing, torch.no_grad():
            try:
                model(batch)
            except BrokenBarrierError:  # another pass failed and says why
                pass
            except BaseException:
                self.meeting.abort()
                raise

    def observe(self, name: str, module: Scale, out: Tensor, reference: Callable) -> None:
        """Measures this batch, waits for the others, and sets the factor."""
        x, weight, *out_weight = reference()
        rows = int(out_weight[0].sum()) if out_weight else len(out)
        v_out, v_ref = row_variance(out, *out_weight), row_variance(x, weight)
        measured = v_out == v_out and v_ref == v_ref
        self.sums[self.number.value] = (v_ref * rows, v_out * rows) if measured else (0.0, 0.0)
        self.computing.release()
        try:
            if self.meeting.wait() == 0:  # one of them
                wanted, found = (sum(column) for column in zip(*self.sums))
                if wanted > 0 and found > 0:
                    module.set((wanted / found) ** 0.5)
                else:
                    self.failed.append(name)
            self.meeting.wait()
        finally:
            self.computing.acquire()
