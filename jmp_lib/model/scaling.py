"""Scale factors: fitted so that each output gets the variance of its input (section 5), and put into a model.

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


def set_factors(model: nn.Module, factors: dict[str, float]) -> None:
    """Put fitted ``factors`` (name of the scale module -> value) into ``model``, which may have no direct-force branch.

    Raises ``ValueError`` when a factor of the model is not among them.
    """
    for name, module in scale_modules(model).items():
        if not factors.get(name):
            raise ValueError(f"no fitted scale factor for '{name}': the factors belong to another network; fit them "
                             "for this one (delete work/scale_factors and run again)")
        module.set(factors[name])


def row_variance(x: Tensor, weight: Tensor | None = None) -> float:
    """Unbiased variance over rows (each counted ``weight`` times), averaged over features."""
    x = x.detach().double().reshape(-1, x.shape[-1])
    if weight is None:
        return float(x.var(dim=0, unbiased=True).mean()) if len(x) > 1 else float("nan")
    weight = weight.to(x).unsqueeze(-1)
    total = weight.sum()
    mean = (weight * x).sum(0) / total
    return float(((weight * (x - mean) ** 2).sum(0) / (total - 1)).mean()) if total > 1 else float("nan")


def fit_scale_factors(model: nn.Module, batches: Sequence[dict]) -> dict[str, float]:
    """Fit every factor of ``model`` in place on ``batches`` (16 in the published recipe, without edge dropout):
    name -> factor.

    One forward pass of every batch is enough: the passes, a thread for each of which one computes at a time, stop at
    each factor until all have come so far, the factor is set, and they go on with it. Raises ``ValueError`` where the
    batches have too few edges to measure a variance.
    """
    was_training, modules = model.training, scale_modules(model)
    computing, place = Lock(), local()
    sums = [(0.0, 0.0)] * len(batches)  # of each batch, at the factor ``at``: (wanted, found) variance times rows
    at = ""

    def set_factor() -> None:
        wanted, found = (sum(column) for column in zip(*sums))
        if not (wanted > 0 and found > 0):
            raise ValueError(f"scale factor {at} cannot be fitted: the given structures have no rows for it")
        modules[at].set((wanted / found) ** 0.5)

    meeting = Barrier(len(batches), set_factor)

    def observe(name: str, out: Tensor, reference: Callable) -> None:
        """Measures this batch, and waits until the factor is set."""
        nonlocal at
        x, weight, *out_weight = reference()
        rows = int(out_weight[0].sum()) if out_weight else len(out)
        v_out, v_ref = row_variance(out, *out_weight), row_variance(x, weight)
        at, sums[place.value] = name, (v_ref * rows, v_out * rows) if v_out == v_out and v_ref == v_ref else (0.0, 0.0)
        computing.release()
        try:
            meeting.wait()
        finally:
            computing.acquire()

    def forward(number: int) -> None:
        place.value = number
        with computing, torch.no_grad():
            try:
                model(batches[number])
            except BrokenBarrierError:  # another pass failed and says why
                pass
            except BaseException:
                meeting.abort()
                raise

    model.eval()
    for name, module in modules.items():
        module.set(0.0)
        module.observer = partial(observe, name)
    try:
        with ThreadPoolExecutor(len(batches)) as pool:
            list(pool.map(forward, range(len(batches))))
    finally:
        for module in modules.values():
            module.observer = None
    model.train(was_training)
    return {name: module.value for name, module in modules.items()}
