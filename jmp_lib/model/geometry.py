"""Distances, directions and angular functions.

Everything that amplifies rounding (distances, unit vectors, projections, x − μ of the Gaussians) is
formed in float64 and only then cast to the dtype of the network (section 11 of the specification).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Projections of unit vectors shorter than this count as collinear: the dihedral is then undefined,
# and the published limit value cos ϑ = 0 is used. In float32, positions themselves are no better
# than that; a float64 network follows the published clamp (1e-9) and resolves what is left.
COLLINEAR = {torch.float32: 1e-6, torch.float64: 1e-9}


def edge_vectors(batch: dict, graphs: Sequence[str], pos: Tensor) -> tuple[Tensor, Tensor]:
    """Distances D (E,) in Å and unit vectors u (E, 3) from source image to target, float64, of the edges of all
    ``graphs``, one graph after the other.

    pos: (N, 3) float64, differentiable.
    """
    source, target = torch.cat([batch[f"{graph}_edge_index"] for graph in graphs], dim=1)
    offset = torch.cat([batch[f"{graph}_offset"] for graph in graphs])
    shift = (offset.unsqueeze(1) @ batch["cell"][batch["batch"][target]]).squeeze(1)
    delta = pos.index_select(0, source) - pos.index_select(0, target) + shift
    distance = delta.norm(dim=-1)
    return distance, -delta / distance.unsqueeze(-1)


def pad(x: Tensor, slot: Tensor, rows: int) -> Tensor:
    """Write the rows of x (E, …) into a zero table (rows, …) at ``slot`` (E,)."""
    return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, slot, x)


def legendre(z: Tensor, count: int) -> Tensor:
    """Y_l(z) = √((2l+1)/4π) P_l(z) for l < count, as a new last axis."""
    return _Legendre.apply(z, count)


class _Legendre(torch.autograd.Function):
    """Keeps its result alone: the slopes of the Y_l are sums of those of lower degree."""

    @staticmethod
    def forward(ctx, z: Tensor, count: int) -> Tensor:
        # n P_n = (2n − 1) z P_{n−1} − (n − 1) P_{n−2}, for multiples q_n of which the last factor is one
        q, multiple = [torch.ones_like(z), z], _multiples(count)
        for n in range(2, count):
            factor = (2 * n - 1) / n * multiple[n - 1] / multiple[n]
            q.append(torch.addcmul(q[-2], z, q[-1], value=factor))
        y = torch.stack(q[:count], dim=-1).mul_(_norms(count, z.dtype, z.device))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        y = ctx.saved_tensors[0]
        with torch.autocast(y.device.type, enabled=False):
            return (gradient * (y @ _slopes(y.shape[-1], y.dtype, y.device))).sum(-1), None


def _multiples(count: int) -> list[float]:
    """P_n / q_n of the recurrence in ``_Legendre``."""
    found = [1.0, 1.0]
    for n in range(2, count):
        found.append(-(n - 1) / n * found[n - 2])
    return found


@functools.cache
def _norms(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """√((2l+1)/4π) P_l / q_l, l < count; copied to a device once."""
    return torch.tensor([math.sqrt((2 * n + 1) / (4 * math.pi)) * multiple
                         for n, multiple in zip(range(count), _multiples(count))], dtype=dtype, device=device)


@functools.cache
def _slopes(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(L, L): dY_l/dz = Σ_k Y_k D[k, l], from P'_l = Σ (2k + 1) P_k, k = l − 1, l − 3 …; copied to a device once."""
    return torch.tensor([[math.sqrt((2 * n + 1) * (2 * k + 1)) if k in range(n - 1, -1, -2) else 0.0
                          for n in range(count)] for k in range(count)], dtype=dtype, device=device)


@functools.cache
def cosine_expansion(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(L, L+2): Y_l(cos ϑ) = Σ_k T[l, k] cos kϑ for k < L; T[l, L] = Y_l(0); T[l, L+1] = Y_l(1)."""
    table = np.zeros((count, count + 2))
    for degree in range(count):
        legendre_series = np.zeros(degree + 1)
        legendre_series[degree] = math.sqrt((2 * degree + 1) / (4 * math.pi))
        power = np.polynomial.legendre.leg2poly(legendre_series)
        # cos ϑ = x is a Chebyshev variable: x^n in the T_k(x) = cos kϑ.
        table[degree, : degree + 1] = np.polynomial.chebyshev.poly2cheb(power)
        table[degree, count] = np.polynomial.polynomial.polyval(0.0, power)
        table[degree, count + 1] = np.polynomial.polynomial.polyval(1.0, power)
    return torch.from_numpy(table).to(device, dtype)


def frames(u: Tensor) -> Tensor:
    """(E, 3, 3) orthonormal frames with rows u, e₁, e₂; differentiable in u.

    e₁ is the cross product of u with the coordinate axis least parallel to it. The choice cancels:
    only differences of azimuths about u are used.
    """
    axis = torch.zeros_like(u).scatter(1, u.detach().abs().argmin(1, keepdim=True), 1.0)
    first = torch.linalg.cross(u, axis)
    first = first / first.norm(dim=-1, keepdim=True)
    return torch.stack([u, first, torch.linalg.cross(u, first)], dim=-2)


def azimuth_waves(x: Tensor, y: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos kφ and sin kφ, k = 1 … count − 1, (2, count − 1, M) of M vectors with float64 projections (x, y); and which
    (M,) are collinear: they get zero in every function."""
    collinear = x * x + y * y < COLLINEAR.get(dtype, 1e-6) ** 2
    angle = torch.atan2(y.masked_fill(collinear, 0.0), x.masked_fill(collinear, 1.0))
    angle = angle * torch.arange(1, count, dtype=angle.dtype, device=angle.device).unsqueeze(1)
    return torch.stack([angle.cos(), angle.sin()]).to(dtype).masked_fill(collinear, 0.0), collinear
