"""The committed periodic mini data sets: what their cards say, and what their numbers must look like."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

MINI = Path(__file__).resolve().parents[1] / "jmp_lib" / "data" / "mini"
SLABS = {"oc20-mini": (1500, 100), "oc22-mini": (800, 80)}  # frames, systems at least
CRYSTALS = {  # unit, smallest and largest plausible label
    "jdft2d": ("meV/atom", 0, 600), "phonons": ("cm^-1", 30, 4500), "dielectric": ("unitless", 1.05, 4),
    "log_gvrh": ("log10(GPa)", 0, 3), "log_kvrh": ("log10(GPa)", 0.3, 3), "perovskites": ("eV/unit cell", -25, 15),
    "mp_gap": ("eV", 1, 25), "mp_e_form": ("eV/atom", -6, 3),
}
COUNTS = {**{k: v[0] for k, v in SLABS.items()}, **{f"matbench-mini-{k}": 300 for k in CRYSTALS}, "qmof-mini": 200}
CARD_FIELDS = {"name", "stands_for", "how_made", "level_of_theory", "software", "seed", "counts", "units", "statistics",
               "what_it_is_not", "cpu_seconds", "command", "sha256"}


def load(name):
    with np.load(MINI / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def card(name):
    return json.loads((MINI / f"{name}.card.json").read_text(encoding="utf-8"))


def each(arrays):
    """(slice of atoms, index) of every structure."""
    ends = np.cumsum(arrays["natoms"])
    return [(slice(end - n, end), k) for k, (n, end) in enumerate(zip(arrays["natoms"], ends, strict=True))]


@pytest.mark.parametrize("name", COUNTS)
def test_card_describes_the_file(name):
    arrays, text = load(name), card(name)
    assert CARD_FIELDS <= set(text)
    assert text["sha256"] == hashlib.sha256((MINI / f"{name}.npz").read_bytes()).hexdigest()
    assert text["name"] == name and text["command"].endswith(name)
    assert text["counts"]["structures"] == len(arrays["natoms"]) == COUNTS[name]
    assert text["counts"]["atoms"] == arrays["natoms"].sum() == len(arrays["pos"]) == len(arrays["numbers"])
    assert text["counts"]["groups"] == len(arrays["group_names"]) == len(np.unique(arrays["group"]))
    assert len(set(arrays["group_names"])) == len(arrays["group_names"])
    label = "energy" if name in SLABS else "y"
    assert text["statistics"][label]["mean"] == pytest.approx(arrays[label].mean(), rel=1e-5, abs=1e-9)
    if "CHGNet" in text["level_of_theory"]:
        assert "surrogate" in text["level_of_theory"]


@pytest.mark.parametrize("name", COUNTS)
def test_cells_and_distances(name):
    arrays = load(name)
    shifts = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    shortest = np.inf
    for atoms, k in each(arrays):
        cell, pos = arrays["cell"][k].astype(float), arrays["pos"][atoms].astype(float)
        assert np.linalg.det(cell) > 5.0
        pos = (np.linalg.solve(cell.T, pos.T).T % 1.0) @ cell
        distance = np.linalg.norm(pos[:, None, None] - pos[None, :, None] - (shifts @ cell)[None, None], axis=-1)
        index = np.arange(len(pos))
        distance[index, index, 13] = np.inf  # an atom and itself, not its images
        shortest = min(shortest, distance.min())
    assert shortest > 0.5


@pytest.mark.parametrize("name", SLABS)
def test_slab_frames(name):
    arrays = load(name)
    assert len(np.unique(arrays["group"])) >= SLABS[name][1]
    assert set(np.unique(arrays["tags"])) == {0, 1, 2}
    assert np.isfinite(arrays["energy"]).all()
    length = np.linalg.norm(arrays["forces"], axis=1)
    assert length.max() <= 50.0
    free = ~arrays["fixed"]
    assert 0.2 < np.median(length[free]) < 3.0  # neither all relaxed nor all broken
    for atoms, _ in each(arrays):
        tags, fixed = arrays["tags"][atoms], arrays["fixed"][atoms]
        assert fixed.any() and not fixed[tags > 0].any() and (tags == 2).any() and (tags == 1).any()
        assert np.abs(arrays["forces"][atoms].sum(axis=0)).max() < 0.05  # no net force
        z = arrays["pos"][atoms][:, 2]
        assert z[tags == 1].mean() > z[tags == 0].mean()


@pytest.mark.parametrize("name", SLABS)
def test_slab_frames_are_trajectories(name):
    """Frames of a system come in time order: same atoms and cell, fixed atoms at rest, most energies go down."""
    arrays = load(name)
    assert (np.diff(arrays["group"]) >= 0).all()
    rows, down = each(arrays), []
    for (before, i), (after, j) in zip(rows[:-1], rows[1:], strict=True):
        if arrays["group"][i] != arrays["group"][j]:
            continue
        assert (arrays["numbers"][before] == arrays["numbers"][after]).all()
        assert (arrays["cell"][i] == arrays["cell"][j]).all()
        fixed = arrays["fixed"][before]
        assert (arrays["pos"][before][fixed] == arrays["pos"][after][fixed]).all()
        assert np.abs(arrays["pos"][before] - arrays["pos"][after]).max() > 1e-4
        down.append(arrays["energy"][j] < arrays["energy"][i])
    assert np.mean(down) > 0.6


@pytest.mark.parametrize("name", SLABS)
def test_forces_agree_with_energy_differences(name):
    """The energy change along small steps is that of the mean force (trapezoid), so labels and units fit together."""
    arrays = load(name)
    rows, measured, expected = each(arrays), [], []
    for (before, i), (after, j) in zip(rows[:-1], rows[1:], strict=True):
        moved = arrays["pos"][after] - arrays["pos"][before] if arrays["group"][i] == arrays["group"][j] else None
        if moved is None or np.linalg.norm(moved) > 0.1:
            continue
        measured.append(arrays["energy"][j] - arrays["energy"][i])
        expected.append(-float((moved * (arrays["forces"][before] + arrays["forces"][after])).sum()) / 2)
    measured, expected = np.array(measured), np.array(expected)
    assert len(measured) > 50
    assert np.median(np.abs(measured - expected)) < 0.1 * np.median(np.abs(measured))


@pytest.mark.parametrize("task", CRYSTALS)
def test_crystal_labels(task):
    unit, low, high = CRYSTALS[task]
    arrays = load(f"matbench-mini-{task}")
    assert card(f"matbench-mini-{task}")["units"]["y"] == unit
    assert low <= arrays["y"].min() and arrays["y"].max() <= high
    assert arrays["y"].std() > 0.05
    assert (arrays["natoms"] <= 12).all() and (arrays["natoms"] >= 1).all()
    assert len(np.unique(arrays["numbers"])) > 20
    if task == "perovskites":
        assert (arrays["natoms"] == 5).all()


def test_shear_and_bulk_moduli_come_from_the_same_crystals():
    shear, bulk = load("matbench-mini-log_gvrh"), load("matbench-mini-log_kvrh")
    assert (shear["group_names"] == bulk["group_names"]).all()
    poisson = (3 * 10 ** bulk["y"] - 2 * 10 ** shear["y"]) / (2 * (3 * 10 ** bulk["y"] + 10 ** shear["y"]))
    assert poisson.min() > -1 and poisson.max() < 0.5


def test_qmof_gaps():
    arrays = load("qmof-mini")
    assert card("qmof-mini")["units"]["y"] == "eV"
    assert (arrays["natoms"] >= 26).all() and (arrays["natoms"] <= 90).all()
    assert 0 <= arrays["y"].min() and arrays["y"].max() < 8 and arrays["y"].std() > 0.3
    assert {6, 1} <= set(np.unique(arrays["numbers"]))
