"""Copies of a structure are found however they are written down, and neighbours of it are not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.spacegroup import crystal
from scipy.spatial.transform import Rotation

from jmp_lib.data.copies import copies
from jmp_lib.data.exchange import from_ase


def rattled(atoms: Atoms, size: float = 0.05) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(size, seed=3)
    return atoms


def turned(atoms: Atoms) -> Atoms:
    matrix, made = Rotation.random(random_state=1).as_matrix(), atoms.copy()
    made.set_cell(atoms.cell.array @ matrix.T)
    made.positions = atoms.positions @ matrix.T
    return made


def shifted(atoms: Atoms) -> Atoms:
    made = atoms.copy()
    made.positions += [3.3, -1.2, 0.7]
    return made


def reordered(atoms: Atoms) -> Atoms:
    return atoms[np.random.default_rng(0).permutation(len(atoms))]


def wrapped(atoms: Atoms) -> Atoms:
    made = shifted(atoms)
    made.wrap()
    return made


def by_lattice_vectors(atoms: Atoms) -> Atoms:
    made = atoms.copy()
    made.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) * atoms.pbc @ atoms.cell.array
    return made


def sheared(atoms: Atoms) -> Atoms:
    return make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, -1, 1]] if atoms.pbc.all() else [[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def doubled(atoms: Atoms) -> Atoms:
    return atoms.repeat((2, 1, 1))


ETHANOL, ASPIRIN_LIKE = rattled(molecule("CH3CH2OH")), rattled(molecule("C6H6"))
SALT, RUTILE = rattled(bulk("NaCl", "rocksalt", 5.6, cubic=True)), rattled(
    crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90]))
SLAB = rattled(fcc111("Cu", (2, 2, 3), vacuum=6.0))
MOVES = (turned, shifted, reordered)


@pytest.mark.parametrize("move", [*MOVES, wrapped, by_lattice_vectors, sheared, doubled], ids=lambda move: move.__name__)
def test_a_copy_is_found(move):
    atoms = [SALT, RUTILE, SLAB, *([ETHANOL, ASPIRIN_LIKE] if move in MOVES else [])]
    found = copies([from_ase(a) for a in (*atoms, *map(move, atoms))])
    assert found.tolist() == [*range(len(atoms))] * 2


def test_neighbours_are_no_copies():
    frames = [ETHANOL, SALT, RUTILE, SLAB]
    others = [rattled(atoms, 0.01) for atoms in frames]
    ordered = bulk("Cu", cubic=True).repeat((1, 1, 2)), bulk("Cu", cubic=True).repeat((1, 1, 2))
    for atoms, gold in zip(ordered, ((0, 1, 2, 3), (0, 1, 4, 5))):  # one lattice, two orders of the same atoms
        atoms.numbers[list(gold)] = 79
    found = copies([from_ase(a) for a in (*frames, *others, *ordered)])
    assert len(set(found.tolist())) == 10


def test_numbers_cut_to_five_digits_and_float32_do_not_hide_a_copy():
    frames = [ETHANOL, SALT]
    cut = [atoms.copy() for atoms in map(turned, frames)]
    for atoms in cut:
        atoms.positions = np.round(atoms.positions + 50.0, 5)
    assert copies([from_ase(a) for a in (*frames, *cut)]).tolist() == [0, 1, 0, 1]
