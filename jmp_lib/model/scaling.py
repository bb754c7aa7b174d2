"""Fitting the scale factors: each output gets the variance of its input (section 5).

Factors are fitted in the order in which they act, one at a time, because each changes the inputs of
the later ones: f = √(v_ref / v_out), where v is the feature mean of the unbiased variance over the
rows, averaged over batches with the number of output rows as weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


@torch.no_grad()
def fit_scale_factors(
    model: nn.Module, batches: Sequence[dict], progress: Callable | None = None
) -> dict[str, float]:
    """Fit every factor of ``model`` in place; returns name -> factor.

    Args:
        batches: 16 batches in the published recipe, without edge dropout.
        progress: wraps the iteration (``tqdm.auto.tqdm``).

    Raises:
        ValueError: a batch without enough edges to measure a variance.
    """
    was_training = model.training
    model.eval()
    modules = scale_modules(model)
    for module in modules.values():
        module.set(0.0)
    for name, module in progress(modules.items()) if progress else modules.items():
        sums = [0.0, 0.0]

        def observe(out: Tensor, reference: Callable, sums=sums) -> None:
            x, weight, *out_weight = reference()
            rows = int(out_weight[0].sum()) if out_weight else len(out)
            v_out, v_ref = row_variance(out, *out_weight), row_variance(x, weight)
            if v_out == v_out and v_ref == v_ref:
                sums[0] += v_ref * rows
                sums[1] += v_out * rows

        module.observer = observe
        try:
            for batch in batches:
                model(batch)
        finally:
            module.observer = None
        if not (sums[0] > 0 and sums[1] > 0):
            raise ValueError(f"scale factor {name} cannot be fitted: the given structures have no rows for it")
        module.set((sums[0] / sums[1]) ** 0.5)
    model.train(was_training)
    return {name: module.value for name, module in modules.items()}
