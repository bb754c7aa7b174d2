"""The ASE calculator: derivatives against finite differences, ASE's own dynamics, and words for what cannot be."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

import jmp_lib
from own_models import finetuned, pretrained


@pytest.fixture
def crystal(tmp_path):
    atoms = bulk("NaCl", "rocksalt", 5.0)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell + np.random.default_rng(0).normal(0, 0.05, (3, 3)), scale_atoms=True)
    loaded = jmp_lib.load(finetuned(tmp_path))
    loaded.model.double()
    atoms.calc = jmp_lib.JMPCalculator(loaded)
    return atoms


def test_forces_and_stress_are_derivatives(crystal):
    forces, stress, step = crystal.get_forces(), crystal.get_stress(voigt=False), 1e-4
    assert np.abs(forces).max() > 1e-3 and np.abs(stress).max() > 1e-5
    numeric = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                other = crystal.copy()
                other.set_cell(crystal.cell @ strain, scale_atoms=True)
                other.calc = crystal.calc
                energies.append(other.get_potential_energy())
            numeric[i, j] = (energies[0] - energies[1]) / (2 * step) / crystal.get_volume()
    np.testing.assert_allclose(stress, numeric, rtol=2e-3, atol=2e-3 * np.abs(stress).max())
    energies = []
    for sign in (1, -1):
        other = crystal.copy()
        other.positions[1, 2] += sign * step
        other.calc = crystal.calc
        energies.append(other.get_potential_energy())
    assert forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=2e-3, abs=1e-4)


def test_graphs_are_built_once_for_a_geometry(crystal):
    for _ in range(2):
        crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    assert crystal.calc.graph_builds == 1
    assert crystal.get_potential_energy(force_consistent=True) == crystal.get_potential_energy()
    crystal.positions[0, 0] += 0.01
    crystal.get_forces()
    assert crystal.calc.graph_builds == 2


def test_bfgs_langevin_and_nve_of_ase(tmp_path):
    atoms = molecule("H2O")
    loaded = jmp_lib.load(finetuned(tmp_path, periodic=False))
    loaded.model.double()
    atoms.calc = jmp_lib.JMPCalculator(loaded)
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=1e-7, steps=3)
    assert atoms.get_potential_energy() < before
    Langevin(atoms, 0.2 * units.fs, temperature_K=100, friction=0.01, rng=np.random.RandomState(0)).run(3)
    start = atoms.get_total_energy()
    kinetic = max(atoms.get_kinetic_energy(), 1e-3)
    VelocityVerlet(atoms, 0.05 * units.fs).run(20)
    assert abs(atoms.get_total_energy() - start) < 0.05 * kinetic


def test_energy_is_conserved(tmp_path):
    """NVE of ethanol: the total energy returns to itself, and its error falls with the square of the time step."""
    loaded = jmp_lib.load(finetuned(tmp_path, periodic=False))
    loaded.model.double()
    spread = {}
    for step in (0.5, 0.25):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.02, seed=1)
        atoms.calc = jmp_lib.JMPCalculator(loaded)
        MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.RandomState(0))
        energies, dynamics = [atoms.get_total_energy()], VelocityVerlet(atoms, step * units.fs)
        for _ in range(round(10 / step)):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
        spread[step] = np.ptp(energies)
    assert spread[0.5] < 0.02 * atoms.get_kinetic_energy()
    assert 2.5 < spread[0.5] / spread[0.25] < 6


def test_direct_forces_and_pretrained_heads_have_no_stress(tmp_path):
    atoms = bulk("NaCl", "rocksalt", 5.0)
    atoms.calc = jmp_lib.JMPCalculator(finetuned(tmp_path / "direct", "direct_forces"))
    assert atoms.get_forces().shape == (2, 3)
    with pytest.raises(PropertyNotImplementedError, match="predicts forces directly"):
        atoms.get_stress()
    folder = pretrained(tmp_path / "pre")
    atoms.calc = jmp_lib.JMPCalculator(folder, dataset="oc20")
    assert np.isfinite(atoms.get_potential_energy()) and atoms.get_forces().shape == (2, 3)
    with pytest.raises(ValueError, match="choose dataset='oc20' or 'ani1x'"):
        jmp_lib.JMPCalculator(folder)


def test_networks_trained_on_forces_alone(tmp_path):
    """As the MD22 peptide and nanotube of the paper (direct forces), and rMD17 (gradient forces)."""
    atoms = molecule("H2O")
    atoms.calc = jmp_lib.JMPCalculator(finetuned(tmp_path / "direct", "direct_forces", periodic=False, energy=False))
    before = np.abs(atoms.get_forces()).max()
    assert before > 0 and "forces alone" in atoms.calc.note
    with pytest.raises(PropertyNotImplementedError, match="gives no energy: this network was trained on forces alone"):
        atoms.get_potential_energy()
    for optimiser in (BFGS, FIRE):
        start = atoms.get_positions()
        optimiser(atoms, logfile=None, trajectory=str(tmp_path / "a.traj")).run(fmax=1e-9, steps=2)
        assert not np.allclose(atoms.get_positions(), start)
    Langevin(atoms, 0.2 * units.fs, temperature_K=100, friction=0.01, rng=np.random.RandomState(0)).run(2)
    atoms.calc = jmp_lib.JMPCalculator(finetuned(tmp_path / "gradient", periodic=False, energy=False))
    assert np.isfinite(atoms.get_potential_energy()) and "has no zero" in atoms.calc.note
    assert jmp_lib.JMPCalculator(finetuned(tmp_path / "both", periodic=False)).note == ""


@pytest.mark.parametrize("atoms, words", [
    (Atoms("Xe2", [[0, 0, 0], [0, 0, 3]]),
     "element Xe was neither in the fine-tuning nor in the pre-training data of this network \\(H, O\\)"),
    (Atoms("OH", [[0, 0, 0], [0, 0, 30]]), "has no other atom within 6"),
    (Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 5], pbc=True), "graphs of this network are those of molecules"),
    (Atoms("OH", [[0, 0, 0], [0, 0, np.nan]]), "NaN"),
])
def test_bad_structures_are_named(tmp_path, atoms, words):
    atoms.calc = jmp_lib.JMPCalculator(finetuned(tmp_path, periodic=False, elements=[1, 8]))
    with pytest.raises(ValueError, match=words):
        atoms.get_potential_energy()


def test_a_property_network_is_no_calculator(tmp_path):
    with pytest.raises(ValueError, match="predicts gap, not energies"):
        jmp_lib.JMPCalculator(finetuned(tmp_path, "scalar"))


@pytest.fixture
def calculator(tmp_path):
    return jmp_lib.JMPCalculator(finetuned(tmp_path / "calculator", periodic=False, elements=[1, 6, 8]))


def far(atoms):
    """``atoms`` with its last atom 50 Å away."""
    moved = atoms.copy()
    moved.positions[-1] += 50
    return moved


def test_no_result_survives_a_failed_call(calculator):
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    good, forces = atoms.get_potential_energy(), atoms.get_forces()
    positions = atoms.get_positions()
    atoms.positions = far(atoms).positions
    for _ in range(3):
        for ask in (atoms.get_potential_energy, atoms.get_forces):
            with pytest.raises(ValueError, match="no other atom within"):
                ask()
        assert calculator.results == {} and calculator.get_property("energy", atoms, allow_calculation=False) is None
        assert calculator.calculation_required(atoms, ["energy"])
        with pytest.raises(ValueError, match="the last one was refused"):
            calculator.get_potential_energy()
    atoms.positions = positions
    assert atoms.get_potential_energy() == good and np.array_equal(atoms.get_forces(), forces)


def test_one_calculator_of_several_molecules(calculator):
    ethanol, water = molecule("CH3CH2OH"), molecule("H2O")
    lost, xenon = far(water), Atoms("Xe2", [[0, 0, 0], [0, 0, 3]])
    for atoms in (ethanol, water, lost, xenon):
        atoms.calc = calculator
    expected = [atoms.get_potential_energy() for atoms in (ethanol, water)]
    for bad in (lost, xenon):
        with pytest.raises(ValueError):
            bad.get_forces()
        assert [atoms.get_potential_energy() for atoms in (ethanol, water)] == expected
        with pytest.raises(ValueError):
            bad.get_potential_energy()
        assert water.get_potential_energy() == expected[1]
    calculator.calculate(ethanol, ["energy"], system_changes=[])  # of ASE's contract, for who calls it directly
    assert calculator.results["energy"] == expected[0]


def test_what_counts_as_the_same_geometry(tmp_path):
    atoms = bulk("NaCl", "rocksalt", 5.0) * (1, 1, 2)
    atoms.set_cell(atoms.cell * [[1], [1], [1.5]])  # a slab: tag 0 lies below
    atoms.rattle(0.1, seed=1)
    atoms.calc = jmp_lib.JMPCalculator(finetuned(tmp_path))
    energies = [atoms.get_potential_energy()]
    for change in (lambda: atoms.set_tags([0, 0, 1, 2]), lambda: atoms.set_tags([0, 0, 0, 2]),
                   lambda: atoms.set_pbc([True, True, False]), lambda: atoms.set_cell(atoms.cell * 1.01),
                   lambda: atoms.set_atomic_numbers([11, 17, 17, 17])):
        change()
        energies.append(atoms.get_potential_energy())
        fresh = atoms.copy()
        fresh.calc = jmp_lib.JMPCalculator(tmp_path)
        assert fresh.get_potential_energy() == energies[-1]
    assert len(set(energies)) >= 5 and atoms.calc.graph_builds == len(energies)
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_initial_charges([1, -1, 0, 0])
    assert atoms.get_potential_energy() == energies[-1] and atoms.calc.graph_builds == len(energies)


def test_a_result_that_is_no_number_is_an_error(calculator):
    atoms = molecule("H2O")
    atoms.calc = calculator
    good, weight = atoms.get_potential_energy(), next(calculator.predictor.model.out_energy.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(np.inf)
    atoms.positions[0, 0] += 0.01
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_potential_energy):
        with pytest.raises(ValueError, match="H2O: the network gives .* not finite"):
            ask()
    with torch.no_grad():
        weight.copy_(before)
    atoms.positions[0, 0] -= 0.01
    assert atoms.get_potential_energy() == pytest.approx(good)


def test_a_dynamics_that_fails_goes_on_from_a_good_geometry(calculator):
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    dynamics = Langevin(atoms, 0.2 * units.fs, temperature_K=100, friction=0.01, rng=np.random.RandomState(0))
    dynamics.run(2)
    kept = atoms.get_positions()
    atoms.positions = far(atoms).positions
    for _ in range(2):
        with pytest.raises(ValueError, match="no other atom within"):
            dynamics.run(1)
        with pytest.raises(ValueError, match="no other atom within"):
            BFGS(atoms, logfile=None).run(steps=1)
    atoms.positions = kept
    fresh = atoms.copy()
    fresh.calc = jmp_lib.JMPCalculator(calculator.predictor.loaded)
    assert np.array_equal(atoms.get_forces(), fresh.get_forces())
    dynamics.run(2)


def test_copies_pickles_and_threads(calculator):
    frames = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4", "CH3OH")]
    expected = []
    for atoms in frames:
        atoms.calc = calculator
        expected.append(atoms.get_potential_energy())
    for other in (copy.copy(calculator), copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        with pytest.raises(ValueError):
            other.get_potential_energy(far(frames[0]))
        assert [other.get_potential_energy(atoms) for atoms in frames] == expected
        assert calculator.get_potential_energy(frames[3]) == expected[3]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda atoms: calculator.get_potential_energy(atoms), frames * 5)) == expected * 5


def test_a_nudged_elastic_band_with_one_calculator(calculator):
    images = [molecule("H2O") for _ in range(4)]
    images[-1].positions[1] += [0.1, 0.2, 0.0]
    band = NEB(images, allow_shared_calculator=True)
    band.interpolate()
    for image in images:
        image.calc = calculator
    FIRE(band, logfile=None).run(steps=2)
    assert np.isfinite([image.get_potential_energy() for image in images]).all()
