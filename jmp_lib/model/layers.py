"""Dense layers, residuals, fitted scale factors and initialisation (section 5 of the specification)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

INV_SQRT_2 = 1 / math.sqrt(2)
INV_SQRT_3 = 1 / math.sqrt(3)


def scaled_silu(x: Tensor) -> Tensor:
    """SiLU(x) / 0.6, which keeps the variance of a standard normal input near one."""
    return _ScaledSiLU.apply(x)


class _ScaledSiLU(torch.autograd.Function):
    """Keeps x alone; with s the logistic function, σ' = s(1 + x(1 − s))/0.6 in one kernel.

    The linear map before is a node of its own: joined with it, the second derivative of a layer would take two
    more matrix products.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x).mul_(1 / 0.6)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _ScaledSiLUGradient.apply(ctx.saved_tensors[0], gradient)


class _ScaledSiLUGradient(torch.autograd.Function):
    """g σ'(x), whose derivatives are σ' for g and g σ'' for x, σ'' = s(1 − s)(2 + x(1 − 2s))/0.6.

    The framework's own second derivative of SiLU is a chain of a dozen operators that keep their arrays.
    """

    @staticmethod
    def forward(ctx, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(x, gradient)
        return torch.ops.aten.silu_backward(gradient, x).mul_(1 / 0.6)

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor, Tensor]:
        x, gradient = ctx.saved_tensors
        s = torch.sigmoid(x)
        curve = torch.addcmul(x, x, s, value=-2).add_(2)
        curve.mul_(torch.addcmul(s, s, s, value=-1)).mul_(gradient).mul_(outer).mul_(1 / 0.6)
        return curve, torch.ops.aten.silu_backward(outer, x).mul_(1 / 0.6)


class Dense(nn.Module):
    """Linear map without bias, followed by the scaled SiLU unless ``activation`` is False."""

    def __init__(self, in_features: int, out_features: int, activation: bool = False):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.activation = activation
        standardized_orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return scaled_silu(x) if self.activation else x


class Residual(nn.Module):
    """x -> (x + σ(W₁ σ(W₀ x))) / √2.

    ``twice``: the layer will be differentiated twice (gradient forces). Only otherwise the joined form is used,
    which keeps three arrays and needs a third of the operator calls.
    """

    twice = False

    def __init__(self, features: int):
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(features, features, True), Dense(features, features, True))

    def forward(self, x: Tensor) -> Tensor:
        if self.twice or torch.is_autocast_enabled(x.device.type):
            return (x + self.dense_mlp(x)) * INV_SQRT_2
        return _JoinedResiduals.apply(x, *self.weights())

    def weights(self) -> tuple[Tensor, Tensor]:
        """W₀, W₁."""
        return self.dense_mlp[0].linear.weight, self.dense_mlp[1].linear.weight


class _JoinedResiduals(torch.autograd.Function):
    """A chain of residuals as one node: keeps x and, of each, p₀ = W₀x and p₁ = W₁σ(p₀).

    σ(p₀) and the inputs of all residuals but the first are formed again when needed.
    """

    @staticmethod
    def forward(ctx, x: Tensor, *weights: Tensor) -> Tensor:
        kept = [x, *weights]
        for w0, w1 in zip(weights[::2], weights[1::2]):
            p0 = x.mm(w0.t())
            p1 = F.silu(p0).mul_(1 / 0.6).mm(w1.t())
            kept += [p0, p1]
            x = _after(x, p1)
        ctx.save_for_backward(*kept)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        count = (len(ctx.saved_tensors) - 1) // 4
        x, weights, kept = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + 2 * count], ctx.saved_tensors[1 + 2 * count :]
        if torch.is_grad_enabled():  # somebody wants second derivatives: correct, but not fast
            y = x
            for w0, w1 in zip(weights[::2], weights[1::2]):
                y = (y + scaled_silu(F.linear(scaled_silu(F.linear(y, w0)), w1))) * INV_SQRT_2
            return torch.autograd.grad(y, (x, *weights), gradient, create_graph=True, allow_unused=True)
        inputs = [x]
        for p1 in kept[1:-1:2]:
            inputs.append(_after(inputs[-1], p1))
        found = []
        for k in reversed(range(count)):
            x, p0, p1 = inputs.pop(), kept[2 * k], kept[2 * k + 1]
            g1 = torch.ops.aten.silu_backward(gradient, p1).mul_(INV_SQRT_2 / 0.6)
            g0 = torch.ops.aten.silu_backward(g1.mm(weights[2 * k + 1]), p0).mul_(1 / 0.6)
            found[:0] = [g0.t().mm(x), g1.t().mm(F.silu(p0).mul_(1 / 0.6))]
            gradient = torch.addmm(gradient, g0, weights[2 * k], beta=INV_SQRT_2)
        return gradient, *found


def _after(x: Tensor, p1: Tensor) -> Tensor:
    """(x + σ(p₁)) / √2"""
    return F.silu(p1).mul_(INV_SQRT_2 / 0.6).add_(x, alpha=INV_SQRT_2)


def residuals(count: int, features: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(features) for _ in range(count))


def apply_all(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """The layers one after the other; a chain of residuals is one node where that is possible."""
    if len(layers) > 1 and all(isinstance(layer, Residual) for layer in layers):
        if not (layers[0].twice or torch.is_autocast_enabled(x.device.type)):
            return _JoinedResiduals.apply(x, *(weight for layer in layers for weight in layer.weights()))
    for layer in layers:
        x = layer(x)
    return x


class Scale(nn.Module):
    """Multiplies by a factor fitted once before training (``jmp_lib.model.scaling``).

    A factor of exactly 0 means "not fitted" and leaves x unchanged. ``reference`` returns the rows
    whose variance the output should have, how often each counts (or None), and, where the output is
    a padded table, how often each of its rows counts. It is only called while a factor is fitted.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("scale_factor", torch.tensor(0.0))
        self.value = 0.0
        self.observer: Callable | None = None

    def set(self, value: float) -> None:
        self.value = float(value)
        self.scale_factor.fill_(self.value)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.value = float(self.scale_factor)

    def forward(self, x: Tensor, reference: Callable | None = None) -> Tensor:
        if self.observer is not None:
            self.observer(x, reference)
        return x * self.value if self.value else x


@torch.no_grad()
def standardized_orthogonal_(weight: Tensor) -> Tensor:
    """The published initialisation: random orthogonal, standardised over the inputs, over √fan_in.

    Two-index weights (out, in) are standardised along axis 1, three-index weights (K, S, I) along
    axes 0 and 1 together, fan_in = K·S.
    """
    axes = 1 if weight.ndim == 2 else (0, 1)
    fan_in = weight.shape[1] if weight.ndim == 2 else weight.shape[0] * weight.shape[1]
    nn.init.orthogonal_(weight)
    mean = weight.mean(dim=axes, keepdim=True)
    # A single input has no variance to standardise.
    var = weight.var(dim=axes, keepdim=True, unbiased=True) if fan_in > 1 else torch.ones_like(mean)
    weight.sub_(mean if fan_in > 1 else 0).div_((var + 1e-6).sqrt()).mul_(fan_in**-0.5)
    return weight
