"""Small adsorbates on top of slabs (positions in Å, the first atom binds, z points away from the surface)."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

ADSORBATES = {
    "H": ("H", [(0, 0, 0)]),
    "O": ("O", [(0, 0, 0)]),
    "C": ("C", [(0, 0, 0)]),
    "N": ("N", [(0, 0, 0)]),
    "OH": ("OH", [(0, 0, 0), (0.76, 0, 0.60)]),
    "CO": ("CO", [(0, 0, 0), (0, 0, 1.15)]),
    "NO": ("NO", [(0, 0, 0), (0, 0, 1.17)]),
    "NH": ("NH", [(0, 0, 0), (0, 0, 1.03)]),
    "CH": ("CH", [(0, 0, 0), (0, 0, 1.10)]),
    "O2": ("OO", [(0, 0, 0), (1.10, 0, 0.60)]),
    "H2O": ("OHH", [(0, 0, 0), (0.76, 0, 0.59), (-0.76, 0, 0.59)]),
    "CH2": ("CHH", [(0, 0, 0), (0.90, 0, 0.62), (-0.90, 0, 0.62)]),
    "NH2": ("NHH", [(0, 0, 0), (0.82, 0, 0.60), (-0.82, 0, 0.60)]),
    "CHO": ("CHO", [(0, 0, 0), (-0.95, 0, 0.55), (1.04, 0, 0.62)]),
    "OOH": ("OOH", [(0, 0, 0), (1.16, 0, 0.86), (0.80, 0, 1.77)]),
    "NH3": ("NHHH", [(0, 0, 0), (0.94, 0, 0.38), (-0.47, 0.814, 0.38), (-0.47, -0.814, 0.38)]),
    "CH3": ("CHHH", [(0, 0, 0), (1.03, 0, 0.36), (-0.515, 0.892, 0.36), (-0.515, -0.892, 0.36)]),
    "CH4": ("CHHHH", [(0, 0, 0), (0, 0, 1.09), (1.03, 0, -0.36), (-0.515, 0.892, -0.36), (-0.515, -0.892, -0.36)]),
}


def place(slab: Atoms, name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put adsorbate `name` over a random site of `slab` (tags: 1 = surface, 0 = below).

    The site is the centre of 1, 2 or 3 neighbouring surface atoms (top, bridge, hollow), the molecule is turned
    about z and tilted, and the binding atom hangs 0.95-1.25 covalent bond lengths from the nearest surface atom.
    Returns numbers (N,), positions (N,3) Å and tags (N,) of slab + adsorbate (2 = adsorbate, last).
    """
    symbols, offsets = ADSORBATES[name]
    molecule = Atoms(symbols, positions=offsets)
    angle, tilt = rng.uniform(0, 360), rng.normal() * 15.0
    molecule.rotate(tilt, "x", center=(0, 0, 0))
    molecule.rotate(angle, "z", center=(0, 0, 0))

    surface = np.flatnonzero(slab.get_tags() == 1)
    images = np.array([(i, j, 0) for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ slab.cell.array
    sites = (slab.positions[surface][:, None] + images[None]).reshape(-1, 3)
    numbers = np.repeat(slab.numbers[surface], len(images))
    first = slab.positions[rng.choice(surface)]
    nearest = np.argsort(np.linalg.norm(sites - first, axis=1), kind="stable")[: rng.integers(1, 4)]
    centre = sites[nearest].mean(axis=0)

    bond = rng.uniform(0.95, 1.25) * (covalent_radii[numbers[nearest]].mean() + covalent_radii[molecule.numbers[0]])
    lateral = np.linalg.norm((sites - centre)[:, :2], axis=1)
    inside = lateral < bond
    height = (sites[inside, 2] + np.sqrt(np.maximum(bond**2 - lateral[inside] ** 2, 0))).max() if inside.any() else bond
    height = max(height, centre[2] + 0.6)
    ads = molecule.positions + np.array([centre[0], centre[1], height])
    return (
        np.concatenate([slab.numbers, molecule.numbers]),
        np.concatenate([slab.positions, ads]),
        np.concatenate([slab.get_tags(), np.full(len(molecule), 2)]),
    )
