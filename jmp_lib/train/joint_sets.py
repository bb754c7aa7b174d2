"""The pre-training sets, four of each source, with what is fitted on their training parts.

    sets = joint_sets(load_profile("mini"))     # read once per process
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from jmp_lib.data.normalise import JointFit, Normaliser, fit
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.settings import PRETRAINING_SETS, PretrainingSet, Profile

FIT_STRUCTURES = 1_000_000  # of a training part that are used for what is fitted on it


@dataclass(frozen=True, eq=False)
class JointSet:
    """One pre-training set. What the settings give is taken; references, normalisers and scales are else fitted when
    first asked for, on at most FIT_STRUCTURES of the training part, evenly spaced."""

    key: str  # oc20, oc22, ani1x, transition1x
    train: object  # StructureSet: a sequence of structures with name, sha256 and natoms
    val: object
    settings: PretrainingSet
    published: bool = False  # samples of published sets may hold fewer compositions than elements

    @property
    def name(self) -> str:
        """For instance oc20-mini."""
        return self.train.name

    @cached_property
    def _rows(self) -> np.ndarray:
        count = len(self.train)
        return (np.arange(count) if count <= FIT_STRUCTURES
                else np.linspace(0, count - 1, FIT_STRUCTURES).astype(np.int64))

    @cached_property
    def _fitted(self) -> JointFit:
        return fit(self.train.arrays(int(row)) for row in self._rows)

    @cached_property
    def energy(self) -> Normaliser:
        """Of the energy, eV."""
        s = self.settings
        if not s.linear_reference and None not in (s.energy_mean, s.energy_std):
            return Normaliser(s.energy_mean, s.energy_std)
        return self._fitted.energy(s.linear_reference, s.energy_mean, s.energy_std, self.published)

    @cached_property
    def forces(self) -> Normaliser:
        """Of the forces, eV/Å."""
        given = self.settings.force_std
        return Normaliser(0.0, self._fitted.force_std if given is None else given)

    @property
    def normalisers(self) -> dict[str, Normaliser]:
        return {"energy": self.energy, "forces": self.forces}

    @property
    def energy_scale(self) -> float:
        """Factor of the energy loss; 0, which leaves the forces, for samples with no more compositions than
        elements: what a reference for all atoms alike leaves of their total energies is some 100 eV of composition,
        not of structure."""
        few = self.published and self.settings.linear_reference and self._fitted.few_compositions
        return 0.0 if few else self.settings.energy_loss_scale

    @cached_property
    def force_scale(self) -> float:
        """Factor of the force loss; by default the mean number of atoms."""
        given = self.settings.force_loss_scale
        return float(np.mean(np.asarray(self.train.natoms)[self._rows])) if given is None else given


def joint_sets(profile: Profile, data: str | None = None) -> list[JointSet]:
    """The sets in the order of the heads, read once per process; data "mini": the embedded ones,
    whatever the profile says."""
    settings = tuple((key, profile.pretraining.datasets[key]) for key in PRETRAINING_SETS)
    return _read(data or profile.pretraining.data, settings, None if data else profile.data_root)


@lru_cache(maxsize=2)
def _read(data: str, settings: tuple[tuple[str, PretrainingSet], ...], data_root: str | None) -> list[JointSet]:
    caps = {key: {"train": s.max_train, "val": s.max_val} for key, s in settings}
    generated = 0 if data == "published" else len(PRETRAINING_SETS)
    return [JointSet(key, train, val, dict(settings)[key], row >= generated)
            for row, (key, train, val) in enumerate(load_pretraining_data(data, caps, data_root))]


def heads(sets: list[JointSet]) -> dict[str, JointSet]:
    """The sets by the names of their heads: oc20, ...; a published set beside a generated one is oc20-published."""
    first = {s.key: s for s in reversed(sets)}
    return {s.key if first[s.key] is s else f"{s.key}-published": s for s in sets}


def data_hashes(sets: list[JointSet]) -> dict[str, str]:
    """SHA-256 of each training and validation part."""
    return {f"{s.name} {part}": getattr(s, part).sha256 for s in sets for part in ("train", "val")}


def baseline(s: JointSet) -> dict[str, float]:
    """Errors of the trivial prediction (reference energies plus mean, zero forces) on the validation set,
    forces of free atoms."""
    energy, force, components = 0.0, 0.0, 0
    for structure in s.val:
        energy += abs(float(structure["energy"]) - s.energy.offset(structure["atomic_numbers"]))
        forces = np.asarray(structure["forces"], float)[~np.asarray(structure["fixed"], bool)]
        force += float(np.abs(forces).sum())
        components += forces.size
    return {"energy_mae": float(energy / len(s.val)), "force_mae": force / components}
