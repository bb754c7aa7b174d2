"""Residual layers, a chain of them as one node of the computation.

With σ = silu/0.6, p₀ = W₀ x and p₁ = W₁ σ(p₀) a residual is x -> (x + σ(p₁))/√2. Let g be the gradient at its output. Then

    gradient       g₁ = g σ'(p₁)/√2    h = W₁ᵀ g₁    g₀ = h σ'(p₀)     at x:  W₀ᵀ g₀ + g/√2
    second, for an outer γ at that:  q₀ = W₀ γ       r₀ = q₀ σ'(p₀)    q₁ = W₁ r₀
               at g:  (γ + q₁ σ'(p₁))/√2        at p₀:  h q₀ σ''(p₀)        at p₁:  g q₁ σ''(p₁)/√2

The framework would keep every array on the way. Kept here: x of the first residual, p₀ and p₁ of each, and for second
derivatives (gradient forces) g and h of each. What follows from these without a product is formed again. Constant factors
go into the weights, which are fewer than the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .layers import INV_SQRT_2, SILU, Dense, scaled_silu, silu_backward, silu_curvature
from .recompute import only_positions

SKIP = INV_SQRT_2 * SILU


class Residual(nn.Module):
    """x -> (x + σ(W₁ σ(W₀ x))) / √2."""

    def __init__(self, features: int):
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(features, features, True), Dense(features, features, True))

    def forward(self, x: Tensor) -> Tensor:
        return apply_all([self], x)

    def weights(self) -> tuple[Tensor, Tensor]:
        """W₀, W₁."""
        return self.dense_mlp[0].linear.weight, self.dense_mlp[1].linear.weight


def residuals(count: int, features: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(features) for _ in range(count))


def apply_all(layers, x: Tensor) -> Tensor:
    """The layers one after the other; residuals that follow each other are one node."""
    layers = list(layers)
    while layers and not isinstance(layers[0], Residual):
        x = layers.pop(0)(x)
    if not layers:
        return x
    weights = [weight for layer in layers for weight in layer.weights()]
    if torch.is_autocast_enabled(x.device.type):  # which chooses the precision operator by operator
        return plain_residuals(x, *weights)[0]
    return _Residuals.apply(x, *weights)[0]


def plain_residuals(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """(x, W₀, W₁, W₀, W₁ …) -> (y, p₀, p₁, p₀, p₁ …) by ordinary operators."""
    inner = []
    for w0, w1 in zip(weights[::2], weights[1::2]):
        inner.append(F.linear(x, w0))
        inner.append(F.linear(scaled_silu(inner[-1]), w1))
        x = (x + scaled_silu(inner[-1])) * INV_SQRT_2
    return x, *inner


class _Residuals(torch.autograd.Function):
    """As ``plain_residuals``; the p are results only so that second derivatives can reach them."""

    @staticmethod
    def forward(ctx, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        y, inner = x, []
        for w0, w1 in zip(weights[::2], weights[1::2]):
            p0 = y.mm(w0.t())
            p1 = F.silu(p0).mm((w1 * SILU).t())
            y = _after(y, p1)
            inner += [p0, p1]
        ctx.save_for_backward(x, *weights, *inner)
        return y, *inner

    @staticmethod
    def backward(ctx, g: Tensor | None, *onto: Tensor | None) -> tuple[Tensor | None, ...]:
        half = len(onto)
        x, weights, inner = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + half], ctx.saved_tensors[1 + half :]
        if torch.is_grad_enabled():
            if only_positions.active and not any(o is not None for o in onto):
                return _ResidualsGradient.apply(g, *weights, *inner), *[None] * half
            pairs = [(r, o) for r, o in zip(plain_residuals(x, *weights), (g, *onto)) if o is not None]
            results, gradients = zip(*pairs)  # derivatives of something else: correct, but not fast
            return torch.autograd.grad(results, (x, *weights), gradients, create_graph=True, allow_unused=True)
        inputs = [x]
        for p1 in inner[1:-1:2]:
            inputs.append(_after(inputs[-1], p1))
        g = torch.zeros_like(x) if g is None else g
        found, own = [], False
        for k in reversed(range(0, half, 2)):
            (w0, w1), (p0, p1), (onto0, onto1), x = weights[k : k + 2], inner[k : k + 2], onto[k : k + 2], inputs.pop()
            g1 = _plus(silu_backward(g, p1), onto1, 1 / SKIP)  # over SKIP, as the factor is in the weights
            g0 = _plus(silu_backward(g1.mm(w1 * (SKIP * SILU)), p0), onto0)
            if not only_positions.active:
                found[:0] = [g0.t().mm(x), g1.t().mm(F.silu(p0)).mul_(SKIP * SILU)]
            g = g.addmm_(g0, w0, beta=INV_SQRT_2) if own else torch.addmm(g, g0, w0, beta=INV_SQRT_2)
            own = True
        return g, *(found or [None] * half)


class _ResidualsGradient(torch.autograd.Function):
    """(g, weights, p) -> gradient at x; its derivatives by the formulas above, those at the p flow on to ``_Residuals``."""

    @staticmethod
    def forward(ctx, g: Tensor, *tensors: Tensor) -> Tensor:
        half = len(tensors) // 2
        weights, inner, kept = tensors[:half], tensors[half:], []
        for k in reversed(range(0, half, 2)):
            h = silu_backward(g, inner[k + 1]).mm(weights[k + 1] * (SKIP * SILU))  # with the 1/0.6 of σ'(p₀)
            kept[:0] = [g, h]
            g = torch.addmm(g, silu_backward(h, inner[k]), weights[k], beta=INV_SQRT_2)
        ctx.save_for_backward(*tensors, *kept)
        return g

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor, ...]:
        half = len(ctx.saved_tensors) // 3
        weights, inner, kept = (ctx.saved_tensors[i * half : (i + 1) * half] for i in range(3))
        at_weights, at_inner = [], []
        for k in range(0, half, 2):
            (w0, w1), (p0, p1), (g, h) = weights[k : k + 2], inner[k : k + 2], kept[k : k + 2]
            q0 = outer.mm(w0.t())
            r0 = silu_backward(q0, p0)
            q1 = r0.mm((w1 * SILU).t())
            at_weights += [silu_backward(h, p0).t().mm(outer), silu_backward(g, p1).t().mm(r0).mul_(SKIP * SILU)]
            at_inner += [silu_curvature(p0, h, q0), silu_curvature(p1, g, q1).mul_(SKIP)]
            outer = silu_backward(q1, p1).mul_(SKIP).add_(outer, alpha=INV_SQRT_2)
        return outer, *at_weights, *at_inner


def _after(x: Tensor, p1: Tensor) -> Tensor:
    """(x + σ(p₁)) / √2"""
    return F.silu(p1).mul_(SKIP).add_(x, alpha=INV_SQRT_2)


def _plus(x: Tensor, other: Tensor | None, factor: float = 1.0) -> Tensor:
    """x + factor · other, in place; x alone without an other."""
    return x if other is None else x.add_(other, alpha=factor)
