"""Dense layers, fitted scale factors and initialisation (section 5 of the specification)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

INV_SQRT_2 = 1 / math.sqrt(2)
INV_SQRT_3 = 1 / math.sqrt(3)
SILU = 1 / 0.6  # keeps the variance of a standard normal input near one


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
        return _times(F.silu(x), scale)

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
        return _times(silu_backward(gradient, x), scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gradient = ctx.saved_tensors
        return _times(silu_curvature(x, gradient, outer), ctx.scale), _times(silu_backward(outer, x), ctx.scale), None


silu_backward = torch.ops.aten.silu_backward  # (gradient, x) -> gradient · silu'(x)


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x.mul_(factor)


def silu_curvature(x: Tensor, gradient: Tensor, outer: Tensor) -> Tensor:
    """gradient · outer · silu''(x), with s the logistic function silu'' = s(1 − s)(2 + x(1 − 2s))."""
    s = torch.sigmoid(x)
    curve = torch.addcmul(x, x, s, value=-2).add_(2)
    return curve.mul_(torch.addcmul(s, s, s, value=-1)).mul_(gradient).mul_(outer)


def full(x: Tensor) -> Tensor:
    """x in float32 where mixed precision has made 16-bit numbers of it, else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def sum_at(index: Tensor, x: Tensor, count: int) -> Tensor:
    """Rows of x (E, …) summed at ``index`` (E,) -> (count, …); 16-bit rows are summed in float32."""
    x = full(x)
    return x.new_zeros(count, *x.shape[1:]).index_add(0, index, x)


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

    @property
    def factor(self) -> float:
        """What x is multiplied by."""
        return self.value or 1.0

    def forward(self, x: Tensor, reference: Callable | None = None, folded: bool = False) -> Tensor:
        """``folded``: x was formed with weights that have been multiplied by ``factor``."""
        if self.observer is not None:  # sets the factor, which was 0 until now
            self.observer(x, reference)
        elif folded:
            return x
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
