"""References and normalisers of a set that need not fit in memory: one pass, memory of one block.

The rows (atoms of each element, 1, energy) are reduced block by block to the triangle of their QR decomposition, from
which least squares, mean and deviation follow as from the rows themselves, without squared condition numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jmp_lib.train.normalise import MAX_ELEMENTS, Normaliser, element_counts

BLOCK = 4096  # structures
SMALLEST = 1.0e-10  # singular values below this part of the largest are zero, as in fit_linear_reference


class JointFit:
    """What :func:`fit` has seen: ``n`` structures, ``natoms`` atoms, force sums, triangle of the energies."""

    def __init__(self):
        self.n, self.natoms, self.components, self.squares = 0, 0, 0, 0.0
        self.triangle = np.zeros((0, MAX_ELEMENTS + 2))
        self.present = np.zeros(MAX_ELEMENTS, bool)

    def add(self, structures: list[dict]) -> None:
        """One block of structures with energy (eV) and forces (N,3) eV/Å."""
        counts = element_counts([s["atomic_numbers"] for s in structures])
        energies = np.array([float(s["energy"]) for s in structures])
        bad = np.count_nonzero(~np.isfinite(energies))
        if bad:
            raise ValueError(f"cannot fit reference energies: {bad} of {energies.size} values are not finite; remove "
                             "those structures")
        rows = np.column_stack([counts, np.ones(len(structures)), energies])
        self.triangle = np.linalg.qr(np.vstack([self.triangle, rows]), mode="r")
        self.present |= counts.any(axis=0)
        self.n += len(structures)
        self.natoms += int(counts.sum())
        for structure in structures:
            forces = np.asarray(structure["forces"], float)
            self.squares += float((forces**2).sum())
            self.components += forces.size

    @property
    def mean_atoms(self) -> float:
        """Mean number of atoms of a structure."""
        return self.natoms / self.n

    def energy(self, linear_reference: bool = True, mean: float | None = None, std: float | None = None) -> Normaliser:
        """Normaliser of the energy in eV; a given ``mean`` or ``std`` goes before the measured one."""
        counts, ones, energies = self.triangle[:, :MAX_ELEMENTS], self.triangle[:, -2], self.triangle[:, -1]
        reference = None
        if linear_reference:
            solution, *_ = np.linalg.lstsq(counts[:, self.present], energies, rcond=SMALLEST)
            values = np.full(MAX_ELEMENTS, solution.mean())  # an element never seen costs a typical amount
            values[self.present] = solution
            values[0] = 0.0
            energies = energies - counts @ values
            reference = tuple(float(value) for value in values)
        measured = float(ones @ energies) / self.n
        if std is None:
            std = float(np.linalg.norm(energies - measured * ones) / np.sqrt(self.n))
        return Normaliser(measured if mean is None else mean, std, reference)

    def forces(self, std: float | None = None) -> Normaliser:
        """Normaliser of the forces: mean 0, root mean square of all components, eV/Å."""
        return Normaliser(0.0, float(np.sqrt(self.squares / self.components)) if std is None else std)


def fit(structures: Iterable[dict], block: int = BLOCK) -> JointFit:
    """One pass over the structures, ``block`` of them in memory."""
    found, waiting = JointFit(), []
    for structure in structures:
        waiting.append(structure)
        if len(waiting) == block:
            found.add(waiting)
            waiting = []
    if waiting:
        found.add(waiting)
    return found
