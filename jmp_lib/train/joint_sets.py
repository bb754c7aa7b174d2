"""The four pre-training sets with what is fitted on their training parts.

    sets = profile_sets(load_profile("mini"))     # read once per process
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from jmp_lib.data.tasks import load_pretraining_data
from jmp_lib.profile import PRETRAINING_SETS, PretrainingSet, Profile
from jmp_lib.train.joint_fit import fit
from jmp_lib.train.normalise import Normaliser

FIT_STRUCTURES = 1_000_000  # of a training part that are used for what is fitted on it


@dataclasses.dataclass(frozen=True)
class JointSet:
    """One pre-training set with what was fitted on its training part."""

    key: str  # oc20, oc22, ani1x, transition1x
    name: str  # for instance oc20-mini
    train: object  # StructureSet, or StoreView: a sequence of structures with name, sha256 and natoms
    val: object
    energy: Normaliser  # eV
    forces: Normaliser  # eV/Å
    energy_scale: float
    force_scale: float

    @property
    def normalisers(self) -> dict[str, Normaliser]:
        return {"energy": self.energy, "forces": self.forces}


@lru_cache(maxsize=2)
def joint_sets(data: str, settings: tuple[tuple[str, PretrainingSet], ...], data_root: str | None = None,
               fit_structures: int | None = FIT_STRUCTURES) -> list[JointSet]:
    """The four sets in the order of the heads, with references, normalisers and loss scales.

    What the settings give is taken; the rest is fitted in one pass over the training part, over at most
    ``fit_structures`` of it (None: all), evenly spaced.  Raises as ``load_pretraining_data``.
    """
    caps = {key: {"train": s.max_train, "val": s.max_val} for key, s in settings}
    loaded = load_pretraining_data(data, caps, data_root)
    return [_joint_set(key, s, train_part, val_part, fit_structures)
            for (key, s), (_, train_part, val_part) in zip(settings, loaded)]


def _joint_set(key: str, s: PretrainingSet, train_part, val_part, fit_structures: int | None) -> JointSet:
    forces_given = s.force_std is not None
    if not s.linear_reference and None not in (s.energy_mean, s.energy_std) and forces_given:  # nothing to fit
        energy, forces = Normaliser(s.energy_mean, s.energy_std), Normaliser(0.0, s.force_std)
        mean_atoms = float(np.mean(train_part.natoms))
    else:
        fitted = fit(_sample(train_part, fit_structures))
        energy = fitted.energy(s.linear_reference, s.energy_mean, s.energy_std)
        forces, mean_atoms = fitted.forces(s.force_std), fitted.mean_atoms
    scale = mean_atoms if s.force_loss_scale is None else s.force_loss_scale
    return JointSet(key, train_part.name, train_part, val_part, energy, forces, s.energy_loss_scale, scale)


def _sample(structures, count: int | None):
    """The structures in order; of more than ``count`` so many, evenly spaced."""
    if count is None or len(structures) <= count:
        return iter(structures)
    return (structures[int(row)] for row in np.linspace(0, len(structures) - 1, count).astype(np.int64))


def profile_sets(profile: Profile) -> list[JointSet]:
    """``joint_sets`` of a profile; read once per process."""
    settings = tuple((key, profile.pretraining.datasets[key]) for key in PRETRAINING_SETS)
    return joint_sets(profile.pretraining.data, settings, profile.data_root)


def factor_sets(profile: Profile) -> list[JointSet]:
    """The embedded sets, on whose validation parts the scale factors are fitted, whatever the pre-training reads."""
    settings = tuple((key, profile.pretraining.datasets[key]) for key in PRETRAINING_SETS)
    return joint_sets("mini", settings)


def data_hashes(sets: list[JointSet]) -> dict[str, str]:
    """SHA-256 of each training and validation part."""
    return {f"{s.name} {part}": getattr(s, part).sha256 for s in sets for part in ("train", "val")}


def baseline(s: JointSet) -> dict[str, float]:
    """Errors of the trivial prediction (reference energies plus mean, zero forces) on the validation set.

    One structure is in memory at a time; forces are judged on free atoms, as in the validation.
    """
    energy, force, components = 0.0, 0.0, 0
    for structure in s.val:
        energy += abs(float(structure["energy"]) - s.energy.offset(structure["atomic_numbers"]))
        forces = np.asarray(structure["forces"], float)[~np.asarray(structure["fixed"], bool)]
        force += float(np.abs(forces).sum())
        components += forces.size
    return {"energy_mae": float(energy / len(s.val)), "force_mae": force / components}
