"""Losses of joint pre-training and of fine-tuning, all in normalised units; errors in the units of the labels.

Symbols: B structures, N atoms of all structures together, T pre-training tasks.
``batch`` (N,) is the structure index of every atom, sorted from 0 to B-1.

Means are sums over what is at hand divided by the counts of the WHOLE batch (``Counts``).  Losses and gradients of
parts of a batch, computed one after the other or by several processes, therefore just add up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import scatter

EPSILON = 1.0e-6  # added to every component of the force error before the norm


class Counts(NamedTuple):
    """Structures and atoms of the whole batch of an update, without padding."""

    structures: int | Tensor
    atoms: int | Tensor
    real_structures: Tensor | None = None  # (B,) and (N,), false for padding; None: there is none
    real_atoms: Tensor | None = None


def with_padding(counts: Counts, batch: dict) -> Counts:
    """``counts`` for a part of the batch: on the device, and with what is padding, where the part is padded."""
    if "real_atoms" not in batch:
        return counts
    return Counts(*batch["counts"].unbind(), batch["real_structures"], batch["real_atoms"])


def total_of(values: Tensor, counted: Tensor | None) -> Tensor:
    """Sum of the values, of those alone that are ``counted`` where that is given."""
    return (values if counted is None else values * counted).sum()


def force_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """L2 norm of the force error of every atom, ||F̂ - F + 1e-6||: (N,3), (N,3) -> (N,)."""
    return torch.linalg.vector_norm(predicted - target + EPSILON, dim=-1)


def per_structure_mean(values: Tensor, batch: Tensor, count: int, counted: Tensor | None = None) -> Tensor:
    """Mean of per-atom values over the atoms of each of ``count`` structures: (N,) -> (B,). ``counted`` (N,): 0 for
    atoms that do not count; a structure without one that does has the mean 0."""
    weight = torch.ones_like(values) if counted is None else counted.to(values.dtype)
    sums = scatter(values if counted is None else values * weight, batch, 0, count, "sum")
    atoms = scatter(weight, batch, 0, count, "sum")
    return sums / atoms.clamp(min=1.0)


def pretraining_loss(predicted_energy: Tensor, predicted_forces: Tensor, energy: Tensor, forces: Tensor,
                     batch: Tensor, task: Tensor, energy_scale: Tensor, force_scale: Tensor,
                     structurewise: bool = True, counts: Counts | None = None,
                     counted: Tensor | None = None) -> dict[str, Tensor]:
    """Joint pre-training loss: every structure is judged by the heads of its own data set only.

    predicted_energy (B,T), predicted_forces (N,3,T), energy (B,), forces (N,3), batch (N,),
    task (B,) index of each structure's data set, energy_scale and force_scale (T,).
    Energy: |ŷ - y| · scale, mean over structures.  Forces: shifted L2 norm · scale, mean over the atoms of
    each structure and then over structures (``structurewise``), else mean over all atoms.
    counts: of the whole batch, when these structures are a part of it.  counted (N,): atoms whose forces count; the
    mean over all atoms of a batch stays one over all.
    Returns the scalars total, energy and force.
    """
    own_energy = predicted_energy.gather(1, task[:, None]).squeeze(1)
    own_forces = predicted_forces.gather(2, task[batch][:, None, None].expand(-1, 3, 1)).squeeze(2)
    energy_terms = (own_energy - energy).abs() * energy_scale[task]
    force_terms = force_distance(own_forces, forces) * force_scale[task][batch]
    counts = counts or Counts(len(energy), len(batch))
    if counts.real_atoms is not None:
        counted = counts.real_atoms if counted is None else counted & counts.real_atoms
    energy_loss = total_of(energy_terms, counts.real_structures) / counts.structures
    if structurewise:
        force_loss = per_structure_mean(force_terms, batch, len(energy), counted).sum() / counts.structures
    else:
        force_loss = total_of(force_terms, counted) / counts.atoms
    return {"total": energy_loss + force_loss, "energy": energy_loss, "force": force_loss}


def label_loss(predicted: Tensor, target: Tensor, counts: Counts | None = None) -> Tensor:
    """Mean absolute error over structures (B,), or mean over all atoms of the batch of the shifted L2
    norm of vectors (N,3)."""
    counts = counts or Counts(len(target), len(target))
    if target.dim() == 2:
        return total_of(force_distance(predicted, target), counts.real_atoms) / counts.atoms
    return total_of((predicted - target).abs(), counts.real_structures) / counts.structures


def finetuning_loss(predicted: dict[str, Tensor], target: dict[str, Tensor],
                    coefficients: dict[str, float], counts: Counts | None = None) -> Tensor:
    """Sum over targets of coefficient · ``label_loss``.

    Targets with coefficient 0 are left out (rMD17, MD22 and SPICE train on forces only).  ``ValueError``: all are 0.
    """
    terms = [coefficient * label_loss(predicted[name], target[name], counts)
             for name, coefficient in coefficients.items() if coefficient]
    if not terms:
        raise ValueError("all loss coefficients are 0: give at least one target a coefficient above 0")
    return torch.stack(terms).sum()


def structure_errors(predicted: np.ndarray, target: np.ndarray, natoms: np.ndarray) -> np.ndarray:
    """Mean absolute error of each structure and its weight in the MAE of all: (S,2); forces (ΣN,3) weigh by
    ``natoms`` (S,)."""
    error = np.abs(np.asarray(predicted, float) - np.asarray(target, float))
    if error.ndim == 1:
        return np.column_stack([error, np.ones(len(error))])
    return np.column_stack([np.add.reduceat(error.mean(axis=1), np.cumsum(natoms) - natoms) / natoms, natoms])


def mae(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error over structures, or over atoms and the three components, in the unit of
    the target; float64."""
    return float(np.mean(np.abs(np.asarray(predicted, float) - np.asarray(target, float))))
