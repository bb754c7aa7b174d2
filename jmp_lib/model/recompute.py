"""Cheap parts of a step whose intermediate arrays are formed again in the backward pass instead of being kept.

An (E, M) array of a published network is 7 MB for 8 molecules and 17 MB for 4 slabs, and a step keeps several hundred.
Those that follow from a small array by a product with a small inner dimension (16 radial functions, 64 channels) cost
next to nothing to form again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor

LARGE = 1 << 19  # elements; below, the extra operator calls cost more than the memory is worth


class _OnlyPositions:
    """Active while energies are differentiated with respect to positions, when no weight needs a gradient.

    PyTorch's own operators are told so; a hand-written node is asked for the gradients of all its inputs.
    """

    active = False

    @contextmanager
    def __call__(self):
        before, self.active = self.active, True
        try:
            yield
        finally:
            self.active = before


only_positions = _OnlyPositions()


def formed_again(function: Callable[..., Tensor], elements: int, *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept where its arrays have many ``elements``.

    All tensors that need a gradient must be among ``inputs``; weights are leaves.
    """
    plain = elements < LARGE or not torch.is_grad_enabled() or torch.is_autocast_enabled(inputs[0].device.type)
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
        needed = [need and not (only_positions.active and x.is_leaf)
                  for need, x in zip(ctx.needs_input_grad[1:], ctx.saved_tensors)]  # fmt: skip
        if torch.is_grad_enabled():
            found = iter(_FormedAgainGradient.apply(ctx.function, needed, gradient, *ctx.saved_tensors))
        else:
            found = iter(_gradients(ctx.function, needed, gradient, ctx.saved_tensors))
        return None, *(next(found) if need else None for need in needed)


class _FormedAgainGradient(torch.autograd.Function):
    """The gradients of a function (for gradient forces); keeps its inputs and the gradient at its result."""

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], needed: list[bool], gradient: Tensor, *inputs: Tensor):
        ctx.function, ctx.needed = function, needed
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, *inputs)
        return tuple(_gradients(function, needed, gradient, inputs))

    @staticmethod
    def backward(ctx, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted, third = ctx.needs_input_grad[2:], torch.is_grad_enabled()
        given = list(ctx.saved_tensors)
        if not third:
            given = [t.detach().requires_grad_(want) if want else t for t, want in zip(given, wanted)]
        with torch.enable_grad():
            found = _gradients(ctx.function, ctx.needed, given[0], given[1:], differentiable=True)
            pairs = [(f, o) for f, o in zip(found, outer) if o is not None and f.requires_grad]
            if not pairs:
                return None, None, *[None] * len(given)
            results, gradients = zip(*pairs)
            sources = [t for t, want in zip(given, wanted) if want]
            second = iter(torch.autograd.grad(results, sources, gradients, create_graph=third, allow_unused=True))
        return None, None, *(next(second) if want else None for want in wanted)


def _gradients(function, needed, gradient, inputs, differentiable: bool = False) -> tuple[Tensor, ...]:
    """Gradients of ``function`` at the ``needed`` inputs, the function being run again."""
    if not differentiable:
        inputs = [t.detach().requires_grad_(need) if need else t.detach() for t, need in zip(inputs, needed)]
    with torch.enable_grad():
        result = function(*inputs)
        sources = [t for t, need in zip(inputs, needed) if need]
        return torch.autograd.grad(result, sources, gradient, create_graph=differentiable)
