"""Distances, directions and angular functions.

Everything that amplifies rounding (distances, unit vectors, projections, x − μ of the Gaussians) is
formed in float64 and only then cast to the dtype of the network (section 11 of the specification).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

# Projections of unit vectors shorter than this count as collinear: the dihedral is then undefined,
# and the published limit value cos ϑ = 0 is used. In float32, positions themselves are no better
# than that; a float64 network follows the published clamp (1e-9) and resolves what is left.
COLLINEAR = {torch.float32: 1e-6, torch.float64: 1e-9}


def edge_vectors(batch: dict, graph: str, pos: Tensor) -> tuple[Tensor, Tensor]:
    """Distances D (E,) in Å and unit vectors u (E, 3) from source image to target, float64.

    pos: (N, 3) float64, differentiable.
    """
    source, target = batch[f"{graph}_edge_index"]
    cell = batch["cell"][batch["batch"][target]]
    shift = (batch[f"{graph}_offset"].unsqueeze(1) @ cell).squeeze(1)
    delta = pos.index_select(0, source) - pos.index_select(0, target) + shift
    distance = delta.norm(dim=-1)
    return distance, -delta / distance.unsqueeze(-1)


def pad(x: Tensor, slot: Tensor, rows: int) -> Tensor:
    """Write the rows of x (E, …) into a zero table (rows, …) at ``slot`` (E,)."""
    return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, slot, x)


def legendre(z: Tensor, count: int) -> Tensor:
    """Y_l(z) = √((2l+1)/4π) P_l(z) for l < count, as a new last axis."""
    p = [torch.ones_like(z), z]
    for n in range(2, count):
        p.append(((2 * n - 1) * z * p[-1] - (n - 1) * p[-2]) / n)
    return torch.stack(p[:count], dim=-1) * _norms(count, z.dtype, z.device)


@functools.cache
def _norms(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """√((2l+1)/4π), l < count; copied to a device once."""
    return torch.tensor([math.sqrt((2 * n + 1) / (4 * math.pi)) for n in range(count)], dtype=dtype, device=device)


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


def azimuth_harmonics(x: Tensor, y: Tensor, count: int, dtype: torch.dtype) -> tuple[list, list, Tensor]:
    """cos kφ and sin kφ, k = 1 … count−1, of vectors with projections (x, y); and which are collinear.

    Collinear members get zero in every function.
    """
    squared = x * x + y * y
    collinear = squared < COLLINEAR.get(dtype, 1e-6) ** 2
    inverse = squared.masked_fill(collinear, 1.0).rsqrt().masked_fill(collinear, 0.0)
    cos_1, sin_1 = (x * inverse).to(dtype), (y * inverse).to(dtype)
    cos, sin = [cos_1], [sin_1]
    for _ in range(count - 2):
        cos.append(cos_1 * cos[-1] - sin_1 * sin[-1])
        sin.append(cos_1 * sin[-1] + sin_1 * cos[-2])
    return cos, sin, collinear
