"""Heads on the backbone's embeddings (section 7 of the specification)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from ase.data import atomic_masses
from torch import Tensor, nn
from torch_geometric.utils import scatter

from .fast_grad import scaled_silu
from .layers import full, sum_at

KINDS = ("scalar", "spatial_extent", "energy", "gradient_forces", "direct_forces")


@dataclass(frozen=True)
class HeadSpec:
    """One output of a fine-tuning model.

    name: the target. kind: ``scalar`` (an atom MLP, then the reduction), ``spatial_extent`` (QM9's
    R²), ``energy``, ``gradient_forces`` (minus the gradient of the energy) or ``direct_forces``.
    reduction: over the atoms of a structure: sum, mean or max.
    """

    name: str
    kind: str = "scalar"
    reduction: str = "sum"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"head {self.name!r}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.reduction not in ("sum", "mean", "max"):
            raise ValueError(f"head {self.name!r}: reduction {self.reduction!r} is not sum, mean or max")


class ScaledSiLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return scaled_silu(x)


def head_mlp(width: int, bias: bool = True, num_mlps: int = 5, out_features: int = 1) -> nn.Sequential:
    """``num_mlps`` linear layers at 0, 2, 4, …, σ between. A layer with one output has no bias."""
    layers: list[nn.Module] = []
    for _ in range(num_mlps - 1):
        layers += [nn.Linear(width, width, bias=bias), ScaledSiLU()]
    return nn.Sequential(*layers, nn.Linear(width, out_features, bias=bias and out_features > 1))


def reduce_atoms(x: Tensor, batch: Tensor, num_structures: int, reduction: str) -> Tensor:
    """(N,) per atom -> (B,) per structure: sum, mean or max."""
    return scatter(full(x), batch, 0, num_structures, reduction)


class ScalarHead(nn.Module):
    """Atom MLP, then sum, mean or max over the atoms of a structure."""

    def __init__(self, width: int, reduction: str):
        super().__init__()
        self.reduction = reduction
        self.out_mlp = head_mlp(width)

    def forward(self, h: Tensor, batch: dict) -> Tensor:
        return reduce_atoms(self.out_mlp(h).squeeze(-1), batch["batch"], len(batch["natoms"]), self.reduction)


class SpatialExtentHead(nn.Module):
    """R²: each atom's value times its squared distance from the centre of mass, summed.

    Six bias-free linear layers; positions in Å as given (not wrapped), standard masses.
    """

    def __init__(self, width: int):
        super().__init__()
        self.scalar_mlp = head_mlp(width, bias=False, num_mlps=6)

    def forward(self, h: Tensor, batch: dict) -> Tensor:
        index, count = batch["batch"], len(batch["natoms"])
        mass = _masses(self.scalar_mlp[0].weight.dtype, h.device)[batch["atomic_numbers"]]
        pos = batch["pos"].to(mass)  # not in the 16 bits that h may have
        centre = sum_at(index, mass.unsqueeze(-1) * pos, count) / sum_at(index, mass, count).unsqueeze(-1)
        squared = (pos - centre[index]).pow(2).sum(-1)
        return reduce_atoms(self.scalar_mlp(h).squeeze(-1) * squared, index, count, "sum")


@functools.cache
def _masses(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard masses by atomic number, u; copied to a device once."""
    return torch.tensor(atomic_masses, dtype=dtype, device=device)


def sum_edge_forces(per_edge: Tensor, u_main: Tensor, batch: dict) -> Tensor:
    """The head's scalar per main edge (E,) times the edge's unit vector, summed on targets: (N, 3)."""
    per_edge = full(per_edge)
    return sum_at(batch["main_edge_index"][1], per_edge.unsqueeze(-1) * u_main.to(per_edge), len(batch["batch"]))
