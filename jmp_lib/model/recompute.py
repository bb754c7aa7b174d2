"""Cheap parts of a step whose intermediate arrays are formed again in the backward pass instead of being kept.

An (E, M) array of a published network is 7 MB for 8 molecules and 17 MB for 4 slabs, and a step keeps several hundred.
Those that follow from a small array by a product with a small inner dimension (16 radial functions, 64 channels) cost
next to nothing to form again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 1 << 19  # elements; below, the extra operator calls cost more than the memory is worth


def formed_again(function: Callable[..., Tensor], elements: int, *inputs: Tensor, twice: bool = False) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept where its arrays have many ``elements``.

    All tensors that need a gradient must be among ``inputs``.  ``twice``: the result will be differentiated twice
    (gradient forces), where forming arrays again costs more products than it saves arrays.
    """
    plain = twice or elements < LARGE or not torch.is_grad_enabled() or torch.is_autocast_enabled(inputs[0].device.type)
    return function(*inputs) if plain else _FormedAgain.apply(function, *inputs)


class _FormedAgain(torch.autograd.Function):
    """Keeps the inputs; the backward pass runs the function once more and differentiates that."""

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        again = torch.is_grad_enabled()  # somebody wants second derivatives: correct, but not fast
        inputs = list(ctx.saved_tensors)
        if not again:
            inputs = [t.detach().requires_grad_(need) if need else t for t, need in zip(inputs, needed)]
        wanted = [t for t, need in zip(inputs, needed) if need]
        with torch.enable_grad():
            result = ctx.function(*inputs)
        found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=again, allow_unused=True))
        return None, *(next(found) if need else None for need in needed)
