"""Dense and residual layers, sums, fitted scale factors and initialisation (section 5 of the specification)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .fast_grad import chain_of_residuals, scaled_silu

INV_SQRT_3 = 1 / math.sqrt(3)


def full(x: Tensor) -> Tensor:
    """x in float32 where mixed precision has made 16-bit numbers of it, else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def sum_at(index: Tensor, x: Tensor, count: int) -> Tensor:
    """Rows of x (E, …) summed at ``index`` (E,) -> (count, …); 16-bit rows are summed in float32."""
    return _SumAt.apply(index, x, count)


class _SumAt(torch.autograd.Function):
    """Keeps the index alone; PyTorch's ``index_add`` keeps the rows as well."""

    @staticmethod
    def forward(ctx, index: Tensor, x: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.dtype, x = x.dtype, full(x)
        return x.new_zeros(count, *x.shape[1:]).index_add_(0, index, x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, gradient.to(ctx.dtype).index_select(0, ctx.saved_tensors[0]), None


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x at ``index``, of which many are the same: 16-bit gradients are summed in float32
    (and faster, on a GPU)."""
    return _Take.apply(x, index)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return sum_at(ctx.saved_tensors[0], gradient, ctx.count).to(gradient.dtype), None


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
    """x -> (x + σ(W₁ σ(W₀ x))) / √2."""

    def __init__(self, features: int):
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(features, features, True), Dense(features, features, True))

    def forward(self, x: Tensor) -> Tensor:
        return apply_all([self], x)


def residuals(count: int, features: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(features) for _ in range(count))


def apply_all(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The layers one after the other; the residuals at their end are one node."""
    weights = []
    for layer in layers:
        if isinstance(layer, Residual):
            weights += [dense.linear.weight for dense in layer.dense_mlp]
        else:
            x = layer(x)
    return chain_of_residuals(x, *weights) if weights else x


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
