"""Copies of a structure are found however they are written down, and nothing else is taken for one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, hcp0001, make_supercell, molecule, nanotube
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.spacegroup import crystal
from scipy.stats import ortho_group

from jmp_lib.data.structures import to_set
from jmp_lib.data.copies import TOLERANCE, copies, shared
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS, load_task_data


def arrays(atoms: Atoms, number: int = 0) -> dict:
    return {"pos": atoms.positions, "atomic_numbers": atoms.numbers, "cell": atoms.cell.array,
            "pbc": atoms.pbc, "id": number}


def as_set(frames: list[Atoms]) -> StructureSet:
    return to_set("frames", [arrays(atoms, number) for number, atoms in enumerate(frames)])


def rattled(atoms: Atoms, size: float = 0.05, seed: int = 3) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(size, seed=seed)
    return atoms


def stacking(layers: str, symbol: str = "C") -> Atoms:
    """Close-packed layers A, B, C."""
    at = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    places = [(*at[layer], i / len(layers)) for i, layer in enumerate(layers)]
    return Atoms(symbol * len(layers), scaled_positions=places,
                 cell=[2.5, 2.5, 2.05 * len(layers), 90, 90, 120], pbc=True)


def on_a_line(gold: tuple[int, ...], count: int = 24) -> Atoms:
    """Copper atoms 2.5 Å apart in a wire, two of them gold."""
    atoms = Atoms("Cu" * count, [(2.5 * i, 0, 0) for i in range(count)],
                  cell=[2.5 * count, 9, 9], pbc=(True, False, False))
    atoms.numbers[list(gold)] = 79
    return atoms


def turned_chain() -> Atoms:
    """A helix of oxygen and hydrogen along a periodic direction: periodic, chiral, no atom on the axis."""
    turns = np.arange(5) * 2 * np.pi / 5
    pos = np.stack([np.cos(turns), np.sin(turns), np.arange(5) * 1.1], axis=1)
    atoms = Atoms("O5", pos, cell=[9, 9, 5.5], pbc=(False, False, True))
    return atoms + Atoms("H", [(1.9, 0.3, 0.2)])


def molecules() -> list[Atoms]:
    names = ("CH3CH2OH", "CH3OCH3", "C6H6", "H2O", "CO2", "N2", "CH4", "bicyclobutane", "cyclobutene", "C2H4", "SO2")
    one = [molecule(name) for name in names] + [Atoms("Ar")]
    # equal distances
    line = [Atoms("H6", [(x, 0, 0) for x in places]) for places in ((0, 1, 4, 10, 12, 17), (0, 1, 8, 11, 13, 17))]
    return [*one, *line, rattled(one[0]), rattled(one[0], seed=4), rattled(one[2])]


def crystals() -> list[Atoms]:
    rutile = crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90])
    quartz = crystal(["Si", "O"], [(0.47, 0, 0), (0.41, 0.27, 0.12)], spacegroup=152,
                     cellpar=[4.91, 4.91, 5.40, 90, 90, 120])
    orders = [bulk("Cu", cubic=True).repeat((1, 1, 2)) for _ in range(2)]
    for atoms, gold in zip(orders, ((0, 1, 2, 3), (0, 1, 4, 5))):  # one lattice, two orders of the same atoms
        atoms.numbers[list(gold)] = 79
    rng = np.random.default_rng(5)
    triclinic = Atoms("Mg2Si2O6", scaled_positions=rng.random((10, 3)), cell=[5.1, 6.3, 7.7, 81, 97, 104], pbc=True)
    return [
        bulk("NaCl", "rocksalt", 5.6), bulk("NaCl", "cesiumchloride", 3.4),
        rattled(bulk("NaCl", "rocksalt", 5.6, cubic=True)), bulk("Cu"), bulk("Cu", "bcc", 2.87),
        bulk("Cu", "hcp", 2.55), bulk("Cu", "sc", 6.5), rutile, rattled(rutile), quartz,
        triclinic, *orders, stacking("ABC"), stacking("AB"), stacking("ABAC"), stacking("ABABAC"), stacking("ABCACB"),
    ]  # fmt: skip


def surfaces() -> list[Atoms]:
    slab, other = fcc111("Cu", (2, 2, 3), vacuum=6.0), hcp0001("Cu", (2, 2, 3), a=2.55, vacuum=6.0)
    periodic = slab.copy()
    periodic.pbc = True
    wider = periodic.copy()
    wider.center(9.0, axis=2)
    covered = slab + Atoms("O", [slab.positions[-1] + (0, 0, 1.3)])
    tubes = [nanotube(3, 3, vacuum=5.0), nanotube(4, 2, vacuum=5.0)]
    wires = [on_a_line((0, 5)), on_a_line((0, 6)), on_a_line((0, 7))]
    return [slab, rattled(slab), other, periodic, wider, covered, *tubes, turned_chain(), *wires]


FAMILIES = {"molecules": molecules, "crystals": crystals, "surfaces and chains": surfaces}


def written_otherwise(atoms: Atoms, rng: np.random.Generator, noise: float) -> Atoms:
    """The same in another cell, other order, turned, mirrored or not, moved, every atom up to ``noise`` off."""
    atoms, periodic = atoms.copy(), np.flatnonzero(atoms.pbc)
    change = np.eye(3, dtype=int)
    for _ in range(2 if len(periodic) > 1 else 0):  # more make cells so thin that they are refused
        i, j = rng.permutation(periodic)[:2]
        change[i] += rng.integers(-1, 2) * change[j]
    for i in periodic:
        change[i] *= rng.integers(1, 3) if len(atoms) < 40 else 1
    if len(periodic):
        atoms = make_supercell(atoms, change, wrap=bool(rng.integers(2)))
        atoms.positions += rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc @ atoms.cell.array
    atoms = atoms[rng.permutation(len(atoms))]
    off = rng.normal(size=(len(atoms), 3))
    atoms.positions += noise * rng.random((len(atoms), 1)) ** (1 / 3) * off / np.linalg.norm(off, axis=1, keepdims=True)
    turn = ortho_group.rvs(3, random_state=rng)
    atoms.set_cell(atoms.cell.array @ turn)
    atoms.positions = atoms.positions @ turn + rng.uniform(-20, 20, 3)
    if rng.integers(2) and len(periodic) == 3:
        atoms.wrap()
    return atoms


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FAMILIES)
def test_copies_are_found_and_nothing_else_is_one(family, seed):
    rng, frames = np.random.default_rng(seed), FAMILIES[family]()
    others = [written_otherwise(atoms, rng, noise) for noise in (0.0, TOLERANCE) for atoms in frames]
    found = copies(as_set([*frames, *others]))
    assert found.tolist() == [*range(len(frames))] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_farther_off_is_no_copy(family):
    frames = [atoms for atoms in FAMILIES[family]() if len(atoms) > 1]
    moved = [atoms.repeat([1 + bool(periodic) for periodic in atoms.pbc]) for atoms in frames]
    for atoms in moved:
        atoms.positions[0] += [0.0045, 0.0031, 0.0050]
    assert copies(as_set([*frames, *moved])).tolist() == [*range(2 * len(frames))]


def test_frames_of_a_trajectory_are_no_copies():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0) + Atoms("CO", [(0, 0, 13.0), (0, 0, 14.2)])
    atoms.calc, frames = EMT(), []
    atoms.set_velocities(np.random.default_rng(0).normal(0.0, 0.2, (14, 3)))  # copper of about 300 K
    VelocityVerlet(atoms, 0.5 * units.fs).run(1)
    motion = VelocityVerlet(atoms, 0.5 * units.fs)
    motion.attach(lambda: frames.append(atoms.copy()))
    motion.run(40)
    assert copies(as_set(frames)).tolist() == [*range(41)]


def test_tolerance_has_no_edge_and_a_copy_of_a_copy_is_one():
    """Steps of 0.0008 Å along a bond: each is a copy of the last, wherever the numbers lie."""
    frames = [molecule("H2O") for _ in range(30)]
    for step, atoms in enumerate(frames):
        atoms.positions[1] += [0, 0.0008 * step, 0]
    assert set(copies(as_set(frames)).tolist()) == {0}
    assert set(map(tuple, shared(as_set(frames[:1]), as_set(frames)))) <= {(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)}


def test_numbers_cut_to_five_digits_do_not_hide_a_copy():
    rng, frames = np.random.default_rng(0), [rattled(molecule("CH3CH2OH")),
                                             rattled(bulk("NaCl", "rocksalt", 5.6, cubic=True))]
    cut = [written_otherwise(atoms, rng, 0.0) for atoms in frames]
    for atoms in cut:
        atoms.positions = np.round(atoms.positions + 50.0, 5)
    assert copies(as_set([*frames, *cut])).tolist() == [0, 1, 0, 1]


def test_mirror_images_and_a_molecule_in_any_order_are_copies():
    acid = Atoms("CHFClBr", [(0, 0, 0), (0, 0, 1.1), (1.3, 0, -0.4), (-0.9, 1.5, -0.5), (-0.9, -1.7, -0.6)])
    mirrored = acid.copy()
    mirrored.positions[:, 0] *= -1
    cubane = rattled(Atoms("H4", [(0, 0, 0), (1, 0, 0), (1, 1.1, 0), (0.1, 1, 0.3)]), 0.1)
    orders = [cubane[list(order)] for order in permutations(range(4))]
    assert copies(as_set([acid, mirrored, *orders])).tolist() == [0, 0, *[2] * 24]


def test_geometry_alone_decides():
    slab = arrays(fcc111("Cu", (2, 2, 3), vacuum=6.0)) | {"tags": np.full(12, 2), "fixed": np.zeros(12, bool)}
    changed = slab | {"tags": np.ones(12, int), "fixed": np.ones(12, bool)}
    structures = [{**s, "id": i, "energy": float(i)} for i, s in enumerate((slab, changed))]
    assert copies(to_set("slabs", structures)).tolist() == [0, 0]


def test_shared_names_every_pair():
    rng, frames = np.random.default_rng(1), [*molecules(), *crystals()]
    others = [written_otherwise(frames[i], rng, TOLERANCE) for i in (20, 3, 3, 9)]
    others[2:2] = [bulk("Fe"), molecule("CH3SH")]
    assert shared(as_set(frames), as_set(others)).tolist() == [[3, 1], [3, 4], [9, 5], [20, 0]]
    assert shared(as_set(frames[:2]), as_set([bulk("Fe")])).shape == (0, 2)


def test_no_test_structure_of_the_mini_data_is_trained_on():
    trained, done = load_pretraining_data("mini"), set()
    for task in TASKS:
        data = load_task_data(task)
        if data.name not in done:
            for part in (data.train, data.val, *(part for found in trained for part in (found.train, found.val))):
                assert not len(shared(data.test, part)), (task, part.name)
        done.add(data.name)
