"""The door: what no network may see is refused in one sentence, wherever it comes from; what has one meaning is read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk, molecule

from jmp_lib.data.collect import check_structure
from jmp_lib.data.exchange import from_ase
from jmp_lib.data.structures import StructureSet


def water(**changes) -> dict:
    return from_ase(molecule("H2O")) | changes


def salt(**changes) -> dict:
    return from_ase(bulk("NaCl", "rocksalt", a=5.64, cubic=True)) | changes


def spoilt(structure: dict, key: str, index, value) -> dict:
    array = np.array(structure[key], float)
    array[index] = value
    return structure | {key: array}


PBC = np.ones(3, bool)
SPOILT = {
    "NaN position": (spoilt(water(), "pos", (1, 2), np.nan), r"field 'pos' holds NaN or infinity at atom 1 \(H\)"),
    "position of 1e6 Å": (spoilt(water(), "pos", (1, 2), 1e6), r"field 'pos' is beyond 10000 at atom 1 \(H\)"),
    "NaN in the cell": (spoilt(salt(), "cell", (0, 0), np.nan), "field 'cell' holds NaN"),
    "infinite cell": (spoilt(salt(), "cell", (0, 0), np.inf), "field 'cell' holds NaN or infinity"),
    "cell of 1e6 Å": (spoilt(salt(), "cell", (2, 2), 1e6), "field 'cell' is beyond 10000"),
    "cell of 1e6 Å, a molecule": (water(cell=np.eye(3) * 1e6), "field 'cell' is beyond 10000"),
    "pbc without cell": (water(pbc=PBC), "periodic, but its lattice vectors span no volume; give a cell"),
    "pbc, one vector": (water(pbc=PBC, cell=np.diag([5.0, 0, 0])), "span no volume"),
    "cell in nm": (salt(cell=np.eye(3) * 0.564), "an atom has less than 0.5 Å³"),
    "thin cell": (spoilt(salt(), "cell", (2, 2), 0.01), "an atom has less than 0.5 Å³"),
    "dummy": (spoilt(water(), "atomic_numbers", 2, 0), r"0\.0 is not an element \(1 to 118\) at atom 2"),
    "half an element": (spoilt(water(), "atomic_numbers", 0, 6.5), r"6\.5 is not an element"),
    "element 119": (spoilt(water(), "atomic_numbers", 0, 119), r"119\.0 is not an element"),
    "negative tag": (water(tags=np.array([2, -1, 2])), r"field 'tags': -1 at atom 1 \(H\) is none of 0"),
    "layers of a builder": (water(tags=np.array([3, 2, 1])), r"field 'tags': 3 at atom 0 \(O\) is none of 0"),
    "tag 300": (water(tags=np.array([2, 2, 300])), r"300 at atom 2"),
    "NaN force": (spoilt(water(forces=np.zeros((3, 3))), "forces", (0, 0), np.nan), r"'forces' holds NaN .* at atom 0 \(O\)"),
    "force of 1e10": (spoilt(water(forces=np.zeros((3, 3))), "forces", (0, 0), -1e10), r"'forces' is beyond 100000 at atom 0"),
    "energy of 1e30": (water(energy=1e30), r"'energy' is beyond 1e\+08"),
    "label of 1e30": (water(gap=-1e30), r"'gap' is beyond 1e\+15"),
    "NaN label": (water(gap=np.nan), "'gap' holds NaN"),
    "one place": (spoilt(water(), "pos", 2, water()["pos"][1]), r"field 'pos': atom 1 \(H\) and atom 2 \(H\) are 0 Å apart"),
    "1e-4 Å": (spoilt(water(), "pos", 2, water()["pos"][1] + 1e-4), r"are 0\.00017 Å apart, less than 0\.1 Å"),
    "image listed": (spoilt(salt(), "pos", 7, salt()["pos"][0] + [5.64, 0, -5.64]), r"atom 0 \(Na\) and atom 7 \(Cl\) are"),
    "across a face": (spoilt(spoilt(salt(), "pos", 7, [-0.04, 0, 0]), "pos", 0, [5.65, 0, 0]), r"atom 0 \(Na\) and atom 7 \(Cl\) are 0\.05"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_the_door_refuses_and_names_the_atom(kind):
    structure, words = SPOILT[kind]
    with pytest.raises(ValueError, match=f"^a file, frame 7: {'.*' if not words.startswith('field') else ''}{words}") as caught:
        check_structure(structure, "a file, frame 7")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in SPOILT if "label" not in kind and "energy" not in kind])
def test_a_set_names_the_row(kind):
    structure, words = SPOILT[kind]
    sound = salt() if structure["pbc"].any() else water()
    both = [sound | ({"forces": np.zeros_like(sound["pos"])} if "forces" in structure else {}), structure]
    keys = [key for key in ("cell", "pbc", "tags", "forces") if key in structure]
    arrays = {key: (np.concatenate if key in ("tags", "forces") else np.stack)([s[key] for s in both]) for key in keys}
    with pytest.raises(ValueError, match=f"^set: row 1, .*{re.sub('^field ', '', words)}"):
        StructureSet.from_arrays("set", [len(s["pos"]) for s in both], np.concatenate([s["pos"] for s in both]),
                                 np.concatenate([s["atomic_numbers"] for s in both]), **arrays)


def test_close_pairs_are_those_of_a_full_search():
    """Random cells, skewed and thin, partly periodic: as all images of all pairs say."""
    rng = np.random.default_rng(0)
    for case in range(200):
        natoms = int(rng.integers(1, 9))
        cell = rng.normal(0, 1.5, (3, 3)) + np.diag(rng.uniform(4, 8, 3))
        pbc = rng.random(3) < 0.5
        fractions = rng.uniform(-1.2, 2.2, (natoms, 3))
        if natoms > 1:
            fractions[-1] = fractions[0] + rng.integers(-2, 3, 3) * pbc + rng.normal(0, 0.012, 3)
        pos = (fractions @ cell).astype(np.float32)
        images = np.stack(np.meshgrid(*[[-4, -3, -2, -1, 0, 1, 2, 3, 4] if p else [0] for p in pbc]), -1).reshape(-1, 3) @ cell
        apart = np.linalg.norm(pos[:, None, None] - pos[None, :, None] - images, axis=-1)
        apart[np.arange(natoms), np.arange(natoms)] = np.inf  # the cells are too wide for an atom to meet its own image
        structure = {"pos": pos, "atomic_numbers": np.full(natoms, 6), "cell": cell, "pbc": pbc}
        try:
            check_structure(structure, "case")
            assert apart.min() > 0.0999, case
        except ValueError as error:
            assert "apart" in str(error) and apart.min() < 0.1001 or np.linalg.det(cell) < natoms / 2, (case, str(error))
