"""Small structures that several tests share. Å; made here, no published geometry."""

from __future__ import annotations

import numpy as np
from ase.build import bulk, fcc111, molecule


def from_ase(atoms, tags=None) -> dict:
    return {
        "pos": atoms.get_positions().astype(np.float32),
        "atomic_numbers": atoms.get_atomic_numbers().astype(np.int64),
        "cell": np.asarray(atoms.cell, dtype=np.float64),
        "pbc": atoms.get_pbc(),
        "tags": np.full(len(atoms), 2) if tags is None else np.asarray(tags),
        "fixed": np.zeros(len(atoms), dtype=bool),
    }


def methanol() -> dict:
    return from_ase(molecule("CH3OH"))


def random_molecule(natoms: int = 9, seed: int = 0) -> dict:
    """Distinct distances, no symmetry."""
    rng = np.random.default_rng(seed)
    pos: list[np.ndarray] = []
    while len(pos) < natoms:
        trial = rng.uniform(0, 1.6 * natoms ** (1 / 3) + 0.8, 3)
        if all(np.linalg.norm(trial - p) > 0.9 for p in pos):
            pos.append(trial)
    return {
        "pos": np.array(pos, dtype=np.float32), "atomic_numbers": rng.choice([1, 6, 7, 8], natoms),
        "cell": np.zeros((3, 3)), "pbc": np.zeros(3, dtype=bool), "tags": np.full(natoms, 2),
        "fixed": np.zeros(natoms, dtype=bool),
    }  # fmt: skip


def skewed_crystal(seed: int = 1) -> dict:
    """Four atoms in a small triclinic cell."""
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=4.4, cubic=False).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array + rng.normal(0, 0.25, (3, 3)), scale_atoms=True)
    atoms.set_positions(atoms.positions + rng.normal(0, 0.12, atoms.positions.shape))
    return from_ase(atoms)


def slab(seed: int = 2) -> dict:
    """Cu(111) with CO, tags 0 (subsurface), 1 (surface), 2 (adsorbate)."""
    rng = np.random.default_rng(seed)
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
    tags = np.where(atoms.get_tags() == 1, 1, 0)
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    from ase import Atoms

    atoms += Atoms("CO", [top + [0.1, 0.05, 1.85], top + [0.15, 0.1, 3.0]])
    atoms.set_positions(atoms.positions + rng.normal(0, 0.05, atoms.positions.shape))
    return from_ase(atoms, np.r_[tags, 2, 2])
