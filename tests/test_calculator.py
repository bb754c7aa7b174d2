"""The ASE calculator: derivatives against finite differences, ASE's own dynamics, and words for what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
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
    (Atoms("Xe2", [[0, 0, 0], [0, 0, 3]]), "element Xe was neither in the fine-tuning nor in the pre-training data of this network \\(H, O\\)"),
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
