"""The generator of the molecular mini sets (skipped without its optional packages tblite, rdkit and dftd4)."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("tblite.interface",
                    reason="tblite, an optional package of the mini data generator, is not installed")
pytest.importorskip("rdkit", reason="rdkit, an optional package of the mini data generator, is not installed")

from tools.generate import anix, cards, complexes, dynamics, molecules, reactions, spice, xtb  # noqa: E402


def _ethanol():
    calculator, numbers, pos, bonds = anix.minimum("CCO", 1, fmax=0.01, accuracy=0.1)
    return calculator, numbers, pos, bonds


def test_forces_are_the_energy_gradient():
    calculator, _, pos, _ = _ethanol()
    rng = np.random.default_rng(0)
    assert xtb.force_error(calculator, pos + 0.1 * rng.normal(size=pos.shape), rng) < 1e-3


def test_vibrations_of_ethanol():
    calculator, numbers, pos, _ = _ethanol()
    omega, modes = dynamics.normal_modes(dynamics.hessian(calculator, pos), numbers, pos)
    assert len(omega) == 3 * 9 - 6
    wavenumbers = np.sort(omega) / 1.883651567e-4
    assert 100 < wavenumbers[0] < 400 and 3300 < wavenumbers[-1] < 3900  # cm^-1: torsion and O-H stretch
    moved = dynamics.thermal_displacement(omega, modes, 300.0, np.random.default_rng(0))
    assert 0.01 < np.linalg.norm(moved, axis=1).mean() < 0.5


def test_langevin_keeps_the_temperature():
    calculator, numbers, pos, _ = _ethanol()
    matrix = dynamics.hessian(calculator, pos)
    energies = []
    frames = dynamics.langevin(calculator, numbers, pos, temperature=200.0, frames=300, every=5, equilibrate=200,
                               rng=np.random.default_rng(3), friction=0.05)
    reference, _ = calculator(pos)
    energies = np.array([energy for _, energy, _ in frames]) - reference
    assert np.linalg.matrix_rank(matrix, tol=1.0) > 15
    # harmonic equipartition: kT/2 for each of the 21 vibrations, with room for the sampling error of a short run
    assert energies.mean() == pytest.approx(0.5 * 21 * dynamics.BOLTZMANN * 200.0, rel=0.25)


def test_qm9_labels_of_water_and_benzene():
    pytest.importorskip("dftd4", reason="dftd4, an optional package of the mini data generator, is not installed")
    from tools.generate import qm9

    calculator, numbers, pos, _ = anix.minimum("O", 1, fmax=0.005, accuracy=0.05)
    water = qm9.targets(calculator, numbers, pos)
    assert water["mu"] == pytest.approx(1.85, rel=0.25)  # D, experiment
    assert water["ZPVE"] == pytest.approx(0.558, rel=0.05)  # eV, experiment
    assert water["Cv"] == pytest.approx(6.0, rel=0.02)  # cal/(mol K): 3R and little vibration
    assert qm9.free_atom_extent(1) == pytest.approx(3.0)  # a0^2, exact for hydrogen


def test_sides_are_disjoint_and_repeatable():
    weights, elements = {4: 1, 5: 1}, {6: 0.7, 7: 0.15, 8: 0.15}
    pretrain = molecules.enumerate_molecules(3, 20, weights, elements, "pretrain")
    finetune = molecules.enumerate_molecules(3, 20, weights, elements, "finetune")
    assert pretrain == molecules.enumerate_molecules(3, 20, weights, elements, "pretrain")
    assert not set(pretrain) & set(finetune)
    assert molecules.side("OCC") == "finetune"  # a molecule of rMD17, however it is written
    assert all(molecules.canonical(name) == name for name in pretrain)


def test_rearrangements_keep_the_formula_and_the_order_of_atoms():
    rng = np.random.default_rng(0)
    found = [pair for smiles in ("CC(C)=O", "C=CCO", "CC1CN1") for pair in reactions.rearrangements(smiles, rng, 2)]
    assert len(found) >= 3
    for product, name in found:
        symbols = [atom.GetSymbol() for atom in product.GetAtoms()]
        assert symbols == sorted(symbols, key=lambda s: s == "H")  # hydrogens last, as in the reactant
        assert all(molecules.side(part) == "pretrain" for part in name.split("."))


def test_band_path_ends_where_it_should():
    first = np.array([[0.0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]])
    last = np.array([[0.0, 0, 0], [1.5, 0, 0], [0, 0, 1.5]])
    path = reactions.idpp_path(first, last, 5)
    np.testing.assert_array_equal(path[0], first)
    np.testing.assert_array_equal(path[-1], last)
    straight = 0.5 * (first + last)
    wanted = np.linalg.norm(first[0] - first[2])
    assert abs(np.linalg.norm(path[2][0] - path[2][2]) - wanted) < abs(
        np.linalg.norm(straight[0] - straight[2]) - wanted)


def test_starting_structures_have_no_clashes():
    for build in (lambda: complexes.stacked_pairs("AT", "GC"), complexes.bowl_with_benzene, complexes.hoop_with_chain):
        _, pos, bonds = build()
        distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1) + 9.0 * np.eye(len(pos))
        assert distance.min() > 0.95 and len(bonds) >= len(pos)
    numbers, (pos,), bonds = molecules.embed("NCC(=O)O", 1)
    numbers, pos, bonds = spice.solvate(numbers, pos, bonds, 4, np.random.default_rng(0))
    assert len(numbers) == len(pos) == 10 + 12


def test_generator_repeats_the_committed_frames(tmp_path):
    """The first molecules of anix-mini come out again as they stand in the file (with the card's versions)."""
    card = json.loads((cards.MINI_DIR / "anix-mini.card.json").read_text(encoding="utf-8"))
    if cards.software_versions("tblite", "rdkit") != {k: card["software"][k] for k in ("python", "tblite", "rdkit")}:
        pytest.skip("other versions of Python, tblite or rdkit than the card names")
    anix.generate(tmp_path, molecules=2, log=lambda _: None)
    with np.load(tmp_path / "anix-mini.npz") as made, np.load(cards.MINI_DIR / "anix-mini.npz") as stored:
        assert made["group_names"].tolist() == stored["group_names"][:2].tolist()
        np.testing.assert_allclose(made["energy"], stored["energy"][:10], atol=1e-4)
        np.testing.assert_allclose(made["forces"], stored["forces"][: len(made["forces"])], atol=1e-2)
