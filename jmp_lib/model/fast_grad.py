"""Hand-written derivatives: of the activation, of a chain of residuals, and of cheap parts that are formed again.

A step of a published network keeps several hundred arrays with a row for every edge (7 MB each for 8 molecules, 17 MB
for 4 slabs). Here a node keeps what a derivative needs and no more, and second derivatives (training on gradient
forces) are formulas of their own instead of the framework's chains of operators.

A residual, with σ = silu/0.6, p₀ = W₀ x and p₁ = W₁ σ(p₀), is x -> (x + σ(p₁))/√2. Let g be the
gradient at its output. Then

    gradient       g₁ = g σ'(p₁)/√2    h = W₁ᵀ g₁    g₀ = h σ'(p₀)     at x:  W₀ᵀ g₀ + g/√2
    second, for an outer γ at that:  q₀ = W₀ γ       r₀ = q₀ σ'(p₀)    q₁ = W₁ r₀
               at g:  (γ + q₁ σ'(p₁))/√2        at p₀:  h q₀ σ''(p₀)        at p₁:  g q₁ σ''(p₁)/√2

Kept are x of the first residual, p₀ and p₁ of each, and for second derivatives g and h of each. Constant factors go
into the matrix products.

The element-wise chains between the products are one kernel each on a GPU (``kernels``, in Triton),
for float32 and below.

Under autocast the nodes do as it does: products in 16 bits, what is added to x in the number type of x. Kept are 16
bits, and the backward pass computes in them, whether or not autocast is on then.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LARGE = 1 << 19  # elements; below, the extra operator calls cost more than the memory is worth
SILU = 1 / 0.6  # keeps the variance of a standard normal input near one
INV_SQRT_2 = 1 / math.sqrt(2)
SKIP = INV_SQRT_2 * SILU

silu_backward = torch.ops.aten.silu_backward  # (gradient, x) -> gradient · silu'(x)


def scaled_silu(x: Tensor, scale: float = SILU) -> Tensor:
    """σ(x) = SiLU(x) / 0.6, or another multiple where the rest goes into the weights that follow."""
    return _ScaledSiLU.apply(x, scale)


class _ScaledSiLU(torch.autograd.Function):
    """Keeps x alone; with s the logistic function, silu' = s(1 + x(1 − s)) in one kernel.

    The linear map before is a node of its own: joined with it, the second derivative of a layer would take two
    more matrix products.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return _silu(x, scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _ScaledSiLUGradient.apply(ctx.saved_tensors[0], gradient, ctx.scale), None


class _ScaledSiLUGradient(torch.autograd.Function):
    """g σ'(x), whose derivatives are σ' for g and g σ'' for x.

    The framework's own second derivative of SiLU is a chain of a dozen operators that keep their arrays.
    """

    @staticmethod
    def forward(ctx, x: Tensor, gradient: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.scale = scale
        return _slope(gradient, x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gradient = ctx.saved_tensors
        curved, moved, _ = _second(x, gradient, outer, ctx.scale, with_slope=False)
        return curved, moved, None


def kernels_for(x: Tensor) -> ModuleType | None:
    """``kernels`` where x lies on a GPU in at most 32 bits (and Triton is there), else None: plain operators."""
    return _kernels() if x.is_cuda and x.dtype != torch.float64 and len(x) else None


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        from . import kernels
    except ImportError:
        return None
    return kernels


def _silu(x: Tensor, scale: float = 1.0) -> Tensor:
    """scale · silu(x)"""
    fused = kernels_for(x)
    return fused.silu(x, scale) if fused else _times(F.silu(x), scale)


def _slope(gradient: Tensor, x: Tensor, scale: float = 1.0, onto: Tensor | None = None,
           onto_scale: float = 1.0) -> Tensor:
    """scale · gradient · silu'(x) + onto_scale · onto, in the number type of x."""
    fused = kernels_for(x)
    if fused:
        return fused.slope(gradient, x, scale, onto, onto_scale)[0]
    slope = _times(silu_backward(gradient.to(x.dtype), x), scale)
    return slope if onto is None else slope.add_(onto, alpha=onto_scale)


def _slope_and_silu(gradient: Tensor, x: Tensor, onto: Tensor | None) -> tuple[Tensor, Tensor]:
    """(gradient · silu'(x) + onto, silu(x)), in the number type of x."""
    fused = kernels_for(x)
    return fused.slope(gradient, x, onto=onto, activated=True) if fused else (_slope(gradient, x, onto=onto), F.silu(x))


def _second(x: Tensor, gradient: Tensor, outer: Tensor, scale: float = 1.0, onto: Tensor | None = None,
            with_slope: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """(scale · gradient · outer · silu''(x), scale · outer · silu'(x) + onto / √2, gradient · silu'(x) or None)."""
    fused = kernels_for(x)
    if fused:
        return fused.second(x, gradient, outer, scale, onto, INV_SQRT_2, with_slope)
    moved = silu_backward(outer, x)
    moved = _times(moved, scale) if onto is None else moved.to(onto.dtype).mul_(scale).add_(onto, alpha=INV_SQRT_2)
    s = torch.sigmoid(x)
    curve = torch.addcmul(x, x, s, value=-2).add_(2)  # silu'' = s(1 − s)(2 + x(1 − 2s))
    curve.mul_(torch.addcmul(s, s, s, value=-1)).mul_(gradient).mul_(outer)
    return _times(curve, scale), moved, silu_backward(gradient, x) if with_slope else None


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x.mul_(factor)


def fused(formulas, scale: float, *inputs: Tensor) -> Tensor:
    """One kernel of ``kernels`` for a value, one for its derivatives, one for theirs: ``formulas`` is Gate or Lift."""
    return _Fused.apply(formulas, scale, *inputs)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, formulas, scale: float, *inputs: Tensor) -> Tensor:
        ctx.formulas, ctx.scale = formulas, scale
        ctx.save_for_backward(*inputs)
        return formulas.value(scale, *inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_FusedGradient.apply(ctx.formulas, ctx.scale, gradient, *ctx.saved_tensors)


class _FusedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, formulas, scale: float, gradient: Tensor, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        ctx.formulas, ctx.scale = formulas, scale
        ctx.save_for_backward(gradient, *inputs)
        return formulas.first(scale, gradient, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.formulas.second(ctx.scale, outer, *ctx.saved_tensors)


@contextmanager
def only_positions():
    """``active`` while energies are differentiated with respect to positions, when no weight needs a gradient.

    PyTorch's own operators are told so; a hand-written node is asked for the gradients of all its inputs.
    """
    before, only_positions.active = only_positions.active, True
    try:
        yield
    finally:
        only_positions.active = before


only_positions.active = False


def formed_again(function: Callable[..., Tensor], elements: int, *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept where its arrays have many ``elements``.

    All tensors that need a gradient must be among ``inputs``; weights are leaves, or come from ``low_weights``.
    """
    if elements < LARGE or not torch.is_grad_enabled():
        return function(*inputs)
    device = inputs[0].device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(*inputs: Tensor) -> Tensor:
        """Under the autocast of now, also when the backward pass runs it outside."""
        with torch.autocast(device, dtype):
            return function(*inputs)

    return _FormedAgain.apply(run if enabled else function, *inputs)


class _FormedAgain(torch.autograd.Function):
    """Keeps the inputs; the backward pass runs the function once more and differentiates that."""

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = [need and not (only_positions.active and _is_weight(x))
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
    @once_differentiable
    def backward(ctx, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        given = [t.detach().requires_grad_(want) for t, want in zip(ctx.saved_tensors, wanted)]
        with torch.enable_grad():
            found = _gradients(ctx.function, ctx.needed, given[0], given[1:], differentiable=True)
            pairs = [(f, o) for f, o in zip(found, outer) if o is not None and f.requires_grad]
            if not pairs:
                return None, None, *[None] * len(given)
            results, gradients = zip(*pairs)
            sources = [t for t, want in zip(given, wanted) if want]
            second = iter(torch.autograd.grad(results, sources, gradients, allow_unused=True))
        return None, None, *(next(second) if want else None for want in wanted)


def _gradients(function, needed, gradient, inputs, differentiable: bool = False) -> tuple[Tensor, ...]:
    """Gradients of ``function`` at the ``needed`` inputs, the function being run again."""
    if not differentiable:
        inputs = [t.detach().requires_grad_(need) for t, need in zip(inputs, needed)]
    with torch.enable_grad():
        result = function(*inputs)
        sources = [t for t, need in zip(inputs, needed) if need]
        return torch.autograd.grad(result, sources, gradient, create_graph=differentiable)


def autocast_type(x: Tensor) -> torch.dtype:
    """The number type in which autocast, if it is on, multiplies ``x`` with something; else the one of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and x.dtype != torch.float64 else x.dtype


def lowered(x: Tensor) -> Tensor:
    """x in its ``autocast_type``: converted once where several products read it, which would each keep a copy."""
    return x.to(autocast_type(x))


def low_weights(dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
    """All weights of a network in another number type, and later their gradients back: a few kernels on a GPU where
    autocast starts one for every use of every weight."""
    return _LowWeights.apply(dtype, *weights)


class _LowWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = weights[0].dtype
        return tuple(_converted(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_converted([g for g in gradients if g is not None], ctx.dtype))
        return None, *(None if g is None else next(found) for g in gradients)


def _converted(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    found = [torch.empty_like(t, dtype=dtype) for t in tensors]
    if found:
        torch._foreach_copy_(found, tensors)
    return found


def _is_weight(x: Tensor) -> bool:
    return x.is_leaf or x.grad_fn.name() == f"{_LowWeights.__name__}Backward"


def chain_of_residuals(x: Tensor, *weights: Tensor) -> Tensor:
    """Residuals with the weights W₀, W₁, W₀, W₁ … one after the other, as one node."""
    return _Residuals.apply(autocast_type(x), x, *weights)[0]


def plain_residuals(x: Tensor, *weights: Tensor, low: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """(x, W₀, W₁, W₀, W₁ …) -> (y, p₀, p₁, p₀, p₁ …) by ordinary operators, products in ``low`` or
    the number type of x."""
    low, inner = low or x.dtype, []
    for w0, w1 in zip(weights[::2], weights[1::2]):
        inner.append(F.linear(x.to(low), w0.to(low)))
        inner.append(F.linear(scaled_silu(inner[-1]), w1.to(low)))
        x = (x + scaled_silu(inner[-1])) * INV_SQRT_2
    return x, *inner


class _Residuals(torch.autograd.Function):
    """As ``plain_residuals``; the p are results only so that second derivatives can reach them."""

    @staticmethod
    def forward(ctx, low: torch.dtype, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.low = low
        y, y_low, inner = x, x.to(low), []
        for w0, w1 in zip(weights[::2], weights[1::2]):
            p0 = y_low.mm(w0.to(low).t())
            p1 = _product(_silu(p0), w1.to(low).t(), SILU)
            y, y_low = _after(y, p1, low if len(inner) + 2 < len(weights) else y.dtype)
            inner += [p0, p1]
        ctx.save_for_backward(x, *weights, *inner)
        return y, *inner

    @staticmethod
    def backward(ctx, g: Tensor | None, *onto: Tensor | None) -> tuple[Tensor | None, ...]:
        half, low = len(onto), ctx.low
        x, weights, inner = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + half], ctx.saved_tensors[1 + half :]
        if torch.is_grad_enabled():
            if only_positions.active and not any(o is not None for o in onto):
                return None, _ResidualsGradient.apply(low, g, *weights, *inner), *[None] * half
            pairs = [(r, o) for r, o in zip(plain_residuals(x, *weights, low=low), (g, *onto)) if o is not None]
            results, gradients = zip(*pairs)  # derivatives of something else: correct, but not fast
            return None, *torch.autograd.grad(results, (x, *weights), gradients, create_graph=True, allow_unused=True)
        inputs = [x.to(low)]
        for p1 in inner[1:-1:2]:
            x, x_low = _after(x, p1, low)
            inputs.append(x_low)
        g = torch.zeros_like(ctx.saved_tensors[0]) if g is None else g
        found, own = [], False
        for k in reversed(range(0, half, 2)):
            (w0, w1), (p0, p1), (onto0, onto1), x = weights[k : k + 2], inner[k : k + 2], onto[k : k + 2], inputs.pop()
            g1 = _slope(g, p1, 1.0, onto1, 1 / SKIP)  # over SKIP, as the factor is in the products
            g0, activated = _slope_and_silu(_product(g1, w1.to(low), SKIP * SILU), p0, onto0)
            if not only_positions.active:
                found[:0] = [g0.t().mm(x), _product(g1.t(), activated, SKIP * SILU)]
            g = _skipped(g, g0, w0, own)
            own = True
        return None, g, *(found or [None] * half)


class _ResidualsGradient(torch.autograd.Function):
    """(g, weights, p) -> gradient at x; its derivatives by the formulas above, those at the p flow
    on to ``_Residuals``."""

    @staticmethod
    def forward(ctx, low: torch.dtype, g: Tensor, *tensors: Tensor) -> Tensor:
        half = len(tensors) // 2
        weights, inner, kept = tensors[:half], tensors[half:], []
        for k in reversed(range(0, half, 2)):
            g_low = g.to(low)
            h = _product(_slope(g_low, inner[k + 1]), weights[k + 1].to(low), SKIP * SILU)  # with the 1/0.6 of σ'(p₀)
            kept[:0] = [g_low, h]
            g = _skipped(g, _slope(h, inner[k]), weights[k])
        ctx.low = low
        ctx.save_for_backward(*tensors, *kept)
        return g

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor | None, ...]:
        half, low = len(ctx.saved_tensors) // 3, ctx.low
        weights, inner, kept = (ctx.saved_tensors[i * half : (i + 1) * half] for i in range(3))
        at_weights, at_inner = [], []
        for k in range(0, half, 2):
            (w0, w1), (p0, p1), (g, h) = weights[k : k + 2], inner[k : k + 2], kept[k : k + 2]
            outer_low = outer.to(low)
            curved0, r0, slope0 = _second(p0, h, outer_low.mm(w0.to(low).t()))
            curved1, outer, slope1 = _second(p1, g, _product(r0, w1.to(low).t(), SILU), SKIP, outer)
            at_weights += [slope0.t().mm(outer_low), _product(slope1.t(), r0, SKIP * SILU)]
            at_inner += [curved0, curved1]
        return None, outer, *at_weights, *at_inner


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b, the constant inside the matrix product, where it costs nothing."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def _after(x: Tensor, p1: Tensor, low: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x + σ(p₁)) / √2 in the number type of x, and in the number type ``low``."""
    fused = kernels_for(x)
    if fused:
        return fused.weighted_sum(x, p1, INV_SQRT_2, SKIP, activated=True, low=low)
    y = F.silu(p1).to(x.dtype).mul_(SKIP).add_(x, alpha=INV_SQRT_2)
    return y, y.to(low)


def _skipped(g: Tensor, g0: Tensor, w0: Tensor, in_place: bool = False) -> Tensor:
    """W₀ᵀ g₀ + g/√2"""
    if g.dtype != w0.dtype or g0.dtype != w0.dtype:
        moved, fused = g0.mm(w0.to(g0.dtype)), kernels_for(g)
        return (fused.weighted_sum(g, moved, INV_SQRT_2, 1.0)[0] if fused
                else moved.to(g.dtype).add_(g, alpha=INV_SQRT_2))
    return g.addmm_(g0, w0, beta=INV_SQRT_2) if in_place else torch.addmm(g, g0, w0, beta=INV_SQRT_2)
