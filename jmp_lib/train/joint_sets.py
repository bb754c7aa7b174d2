"""The four pre-training sets with what is fitted on their training parts.

    sets = profile_sets(load_profile("mini"))     # read once per process
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from jmp_lib.data.tasks import load_pretraining_data
from jmp_lib.profile import PRETRAINING_SETS, PretrainingSet, Profile
from jmp_lib.train.metrics import force_mae, mae
from jmp_lib.train.normalise import Normaliser, fit_forces, fit_property


@dataclasses.dataclass(frozen=True)
class JointSet:
    """One pre-training set with what was fitted on its training part."""

    key: str  # oc20, oc22, ani1x, transition1x
    name: str  # for instance oc20-mini
    train: object  # StructureSet
    val: object
    energy: Normaliser  # eV
    forces: Normaliser  # eV/Å
    energy_scale: float
    force_scale: float

    @property
    def normalisers(self) -> dict[str, Normaliser]:
        return {"energy": self.energy, "forces": self.forces}


@lru_cache(maxsize=1)
def joint_sets(data: str, settings: tuple[tuple[str, PretrainingSet], ...]) -> list[JointSet]:
    """The four sets in the order of the heads, with references, normalisers and loss scales."""
    caps = {key: {"train": s.max_train, "val": s.max_val} for key, s in settings}
    sets = []
    for (key, s), (_, train_part, val_part) in zip(settings, load_pretraining_data(data, caps)):
        structures = list(train_part)
        numbers = [structure["atomic_numbers"] for structure in structures]
        energies = np.array([structure["energy"] for structure in structures])
        energy = fit_property(numbers, energies, linear_reference=s.linear_reference, mean=s.energy_mean, std=s.energy_std)
        forces = fit_forces([structure["forces"] for structure in structures], s.force_std)
        mean_atoms = float(np.mean([len(z) for z in numbers]))
        scale = mean_atoms if s.force_loss_scale is None else s.force_loss_scale
        sets.append(JointSet(key, train_part.name, train_part, val_part, energy, forces, s.energy_loss_scale, scale))
    return sets


def profile_sets(profile: Profile) -> list[JointSet]:
    """``joint_sets`` of a profile; read once per process."""
    settings = tuple((key, profile.pretraining.datasets[key]) for key in PRETRAINING_SETS)
    return joint_sets(profile.pretraining.data, settings)


def data_hashes(sets: list[JointSet]) -> dict[str, str]:
    """SHA-256 of each training and validation part."""
    return {f"{s.name} {part}": getattr(s, part).sha256 for s in sets for part in ("train", "val")}


def baseline(s: JointSet) -> dict[str, float]:
    """Errors of the trivial prediction (reference energies plus mean, zero forces) on the validation set."""
    structures = list(s.val)
    energies = [s.energy.offset(x["atomic_numbers"]) for x in structures]
    return {"energy_mae": mae(np.array(energies), np.array([x["energy"] for x in structures])),
            "force_mae": force_mae([np.zeros_like(x["forces"]) for x in structures], [x["forces"] for x in structures],
                                   [x["fixed"] for x in structures])}
