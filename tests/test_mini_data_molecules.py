"""The molecular mini data sets that the package ships: files, cards, plausibility, and no molecule on both sides.

Nothing here needs the optional packages of the generator, except the last tests, which are skipped without them.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache

import numpy as np
import pytest

import tools.generate.cards as cards

MINI = cards.MINI_DIR
RMD17 = ("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene", "paracetamol", "salicylic",
         "toluene", "uracil")
MD22 = {"ac-ala3-nhme": 42, "dha": 56, "stachyose": 45, "at-at": 60, "at-at-cg-cg": 59, "buckyball-catcher": 42,
        "double-walled-nanotube": 56}
SPICE = ("solvated_amino_acids", "dipeptides")
PRETRAINING = ("anix-mini", "t1x-mini")
TRAJECTORIES = tuple(f"rmd17-mini-{m}" for m in RMD17) + tuple(f"md22-mini-{s}" for s in MD22) + tuple(
    f"spice-mini-{s}" for s in SPICE)
WITH_FORCES = PRETRAINING + TRAJECTORIES
STRUCTURES = {"anix-mini": 4000, "t1x-mini": 4000, "qm9-mini": 800, **{f"rmd17-mini-{m}": 400 for m in RMD17},
              **{f"md22-mini-{s}": 80 for s in MD22}, **{f"spice-mini-{s}": 300 for s in SPICE}}
QM9_UNITS = {"mu": "D", "alpha": "a0^3", "eps_HOMO": "eV", "eps_LUMO": "eV", "delta_eps": "eV", "R2": "a0^2",
             "ZPVE": "eV", "U0": "eV", "U": "eV", "H": "eV", "G": "eV", "Cv": "cal/(mol K)"}
CARD_FIELDS = {"name", "stands_for", "how_made", "level_of_theory", "software", "seed", "counts", "units", "statistics",
               "what_it_is_not", "cpu_seconds", "command", "sha256"}


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(MINI / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@cache
def card(name: str) -> dict:
    return json.loads((MINI / f"{name}.card.json").read_text(encoding="utf-8"))


def offsets(name: str) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(arrays(name)["natoms"])])


def molecules(name: str) -> set[str]:
    """The molecules (SMILES or plain names) of a set, reactants and products apart, without the solvent water."""
    parts = {part for group in arrays(name)["group_names"] for part in re.split(r">>|\.|, ", str(group))}
    return parts - {"O"}


@pytest.mark.parametrize("name", STRUCTURES)
def test_card_tells_the_truth_about_the_file(name):
    facts, data = card(name), arrays(name)
    assert set(facts) >= CARD_FIELDS
    assert facts["name"] == name
    assert hashlib.sha256((MINI / f"{name}.npz").read_bytes()).hexdigest() == facts["sha256"]
    assert len(data["natoms"]) == facts["counts"]["structures"] == STRUCTURES[name]
    assert len(data["numbers"]) == len(data["pos"]) == data["natoms"].sum() == facts["counts"]["atoms"]
    assert len(data["group_names"]) == facts["counts"]["groups"] == data["group"].max() + 1
    assert sum(facts["counts"]["elements"].values()) == facts["counts"]["atoms"]
    assert "GFN2-xTB" in facts["level_of_theory"]
    assert set(facts["units"]) == {key for key, values in data.items() if values.dtype.kind == "f"}
    for key, table in facts["statistics"].items():
        assert table["mean"] == pytest.approx(data[key].astype(np.float64).mean(), abs=1e-6, rel=1e-6)
        assert table["max"] == pytest.approx(data[key].max(), rel=1e-6)


@pytest.mark.parametrize("name", STRUCTURES)
def test_contents_are_finite_and_typed(name):
    data = arrays(name)
    expected = {"natoms": np.int32, "pos": np.float32, "numbers": np.uint8, "group": np.int32}
    assert all(data[key].dtype == kind for key, kind in expected.items())
    assert all(np.isfinite(v).all() for v in data.values() if v.dtype.kind == "f")
    assert len(set(data["group_names"].tolist())) == len(data["group_names"])
    assert set(np.unique(data["group"])) == set(range(len(data["group_names"])))
    allowed = {1, 6, 7, 8, 9} if name == "qm9-mini" else {1, 6, 7, 8, 16} if "spice" in name else {1, 6, 7, 8}
    assert set(np.unique(data["numbers"]).tolist()) <= allowed


@pytest.mark.parametrize("name", WITH_FORCES)
def test_energies_and_forces_are_plausible(name):
    data, start = arrays(name), offsets(name)
    norms = np.linalg.norm(data["forces"], axis=1)
    assert norms.max() <= 50.0
    assert 0.5 < np.sqrt((data["forces"] ** 2).mean()) < 4.0
    assert np.abs(np.add.reduceat(data["forces"], start[:-1])).max() < 5e-3  # no net force on a free molecule
    heavy = np.add.reduceat(data["numbers"] > 1, start[:-1])
    per_heavy_atom = data["energy"] / heavy
    assert per_heavy_atom.min() > -170.0 and per_heavy_atom.max() < -50.0  # eV, valence electrons only
    assert card(name)["largest_force_error_eV_per_A"] < 5e-3


@pytest.mark.parametrize("name", STRUCTURES)
def test_no_two_atoms_collide_and_no_frame_is_repeated(name):
    data, start = arrays(name), offsets(name)
    seen = set()
    for row in range(len(data["natoms"])):
        pos = data["pos"][start[row]:start[row + 1]].astype(np.float64)
        distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1) + 9.0 * np.eye(len(pos))
        assert distance.min() > 0.4
        seen.add(pos.tobytes())
    assert len(seen) == len(data["natoms"])


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_energies_follow_the_forces_along_a_trajectory(name):
    """Between neighbouring frames the work of the mean force is the drop in energy, up to the curvature in between."""
    data, start = arrays(name), offsets(name)
    work, change = [], []
    for row in range(len(data["natoms"]) - 1):
        if data["group"][row] != data["group"][row + 1]:
            continue
        here, there = slice(start[row], start[row + 1]), slice(start[row + 1], start[row + 2])
        force = 0.5 * (data["forces"][here].astype(np.float64) + data["forces"][there])
        work.append((force * (data["pos"][there].astype(np.float64) - data["pos"][here])).sum())
        change.append(data["energy"][row] - data["energy"][row + 1])
    assert np.corrcoef(work, change)[0, 1] > 0.8


@pytest.mark.parametrize("name", [*PRETRAINING, "qm9-mini", *(f"rmd17-mini-{m}" for m in RMD17),
                                  *(f"spice-mini-{s}" for s in SPICE)])
def test_group_names_are_the_molecules(name):
    """The heavy atoms written in a group's SMILES are those of its structures."""
    data, start = arrays(name), offsets(name)
    symbols = {6: "C", 7: "N", 8: "O", 9: "F", 16: "S"}
    for row, group in enumerate(data["group"]):
        numbers = data["numbers"][start[row]:start[row + 1]]
        for side in str(data["group_names"][group]).split(">>"):
            written = re.findall(r"[CNOFS]", re.sub(r"\[H\]", "", side).upper().replace("H", ""))
            for number, symbol in symbols.items():
                assert written.count(symbol) == (numbers == number).sum(), side


def test_no_fine_tuning_molecule_is_in_pre_training():
    seen = molecules("anix-mini") | molecules("t1x-mini")
    tested = set().union(*(molecules(name) for name in STRUCTURES if name not in PRETRAINING))
    assert len(seen) > 1000 and len(tested) > 800
    assert not seen & tested


def test_enough_different_molecules():
    assert card("anix-mini")["counts"]["groups"] >= 400
    assert card("t1x-mini")["counts"]["groups"] >= 400
    assert card("qm9-mini")["counts"]["groups"] == 800


def test_rmd17_geometries_have_the_atoms_of_the_published_molecules():
    published = {"aspirin": 21, "azobenzene": 24, "benzene": 12, "ethanol": 9, "malonaldehyde": 9, "naphthalene": 18,
                 "paracetamol": 20, "salicylic": 16, "toluene": 15, "uracil": 12}
    for molecule, count in published.items():
        assert set(arrays(f"rmd17-mini-{molecule}")["natoms"]) == {count}


def test_md22_stand_ins_are_named():
    real_sizes = {"ac-ala3-nhme": 42, "dha": 56, "stachyose": 87, "at-at": 60, "at-at-cg-cg": 118,
                  "buckyball-catcher": 148, "double-walled-nanotube": 370}
    for system, count in MD22.items():
        facts = card(f"md22-mini-{system}")
        assert set(arrays(f"md22-mini-{system}")["natoms"]) == {count}
        if count != real_sizes[system]:
            assert "stand-in for" in facts["how_made"] and "stand-in for" in facts["what_it_is_not"]


def test_qm9_targets_agree_with_each_other():
    data = arrays("qm9-mini")
    assert {key: card("qm9-mini")["units"][key] for key in QM9_UNITS} == QM9_UNITS
    np.testing.assert_allclose(data["delta_eps"], data["eps_LUMO"] - data["eps_HOMO"], atol=1e-9)
    assert (data["delta_eps"] > 0).all() and (data["mu"] >= 0).all()
    assert (data["U0"] < data["U"]).all() and (data["G"] < data["U0"]).all()
    np.testing.assert_allclose(data["H"] - data["U"], 8.617333e-5 * 298.15, rtol=1e-5)  # RT of an ideal gas
    thermal = data["U"] - data["U0"]
    assert (thermal > 3 * 8.617333e-5 * 298.15).all()  # at least translation and rotation
    # (U - U0) is at most Cv T for a harmonic oscillator; Cv in cal/(mol K), 23.0605 kcal/mol per eV
    assert (thermal < data["Cv"] * 298.15 / 23060.5).all()
    assert 0.5 < data["ZPVE"].min() and data["ZPVE"].max() < 8.0
    carbons_and_more = np.add.reduceat(data["numbers"] > 1, offsets("qm9-mini")[:-1])
    assert 5.0 < (data["alpha"] / carbons_and_more).min() and (data["alpha"] / carbons_and_more).max() < 25.0


def test_qm9_values_of_benzene_are_near_experiment():
    data = arrays("qm9-mini")
    names = data["group_names"][data["group"]].tolist()
    row = names.index("c1ccccc1")
    assert data["alpha"][row] == pytest.approx(67.5, rel=0.05)  # a0^3, experiment (10.0 Å^3)
    assert data["ZPVE"][row] == pytest.approx(2.71, rel=0.05)  # eV, experiment (62.5 kcal/mol)
    assert data["Cv"][row] == pytest.approx(17.7, rel=0.05)  # cal/(mol K), experiment: Cp 19.7 minus R
    assert data["mu"][row] < 0.01


def test_all_molecular_sets_are_small():
    assert sum((MINI / f"{name}.npz").stat().st_size for name in STRUCTURES) < 12e6


def test_written_sets_are_repeatable_and_refuse_nonsense(tmp_path):
    water = {"numbers": [8, 1, 1], "pos": np.eye(3), "forces": np.zeros((3, 3)), "energy": -137.0, "group": 0}
    facts = {"stands_for": "x", "how_made": "x", "level_of_theory": "x", "software": {}, "seed": 0,
             "what_it_is_not": "x", "cpu_seconds": 0.0, "out_dir": tmp_path}
    first = cards.write_set("a", [water], ["O"], **facts)
    second = cards.write_set("b", [water], ["O"], **facts)
    assert first["sha256"] == second["sha256"]
    assert first["counts"]["elements"] == {"H": 2, "O": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.card.json", "a.npz", "b.card.json", "b.npz"]
    with pytest.raises(ValueError, match="no unit given for mu"):
        cards.write_set("c", [{**water, "mu": 1.8}], ["O"], **facts)
    with pytest.raises(ValueError, match="not finite"):
        cards.write_set("c", [{**water, "energy": np.nan}], ["O"], **facts)
    with pytest.raises(ValueError, match="group index"):
        cards.write_set("c", [{**water, "group": 1}], ["O"], **facts)
    assert not (tmp_path / "c.npz").exists()


def test_missing_package_is_named():
    from tools.generate.xtb import require

    with pytest.raises(ImportError, match=r"needs the package 'no_such_package'.*jmp-workbook\[generate\]"):
        require("no_such_package.interface")
