"""The door: what no network may see is refused in one sentence, wherever it comes from;
what has one meaning is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, graphene, molecule, nanotube
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import jmp_lib
from jmp_lib.__main__ import main
from jmp_lib.data.door import check_structure
from jmp_lib.data.exchange import from_ase, iter_atoms, to_atoms
from jmp_lib.data.structures import StructureSet
from jmp_lib.graphs import GraphConfig, build_graphs
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.own.data import read_own, split_own
from own_models import finetuned


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
    "position of 1e6 Å": (spoilt(water(), "pos", (1, 2), 1e6), r"field 'pos' is beyond 900 at atom 1 \(H\)"),
    "NaN in the cell": (spoilt(salt(), "cell", (0, 0), np.nan), "field 'cell' holds NaN"),
    "infinite cell": (spoilt(salt(), "cell", (0, 0), np.inf), "field 'cell' holds NaN or infinity"),
    "cell of 1e6 Å": (spoilt(salt(), "cell", (2, 2), 1e6), "field 'cell' is beyond 1000"),
    "cell of 1e6 Å, a molecule": (water(cell=np.eye(3) * 1e6), "field 'cell' is beyond 1000"),
    "pbc without cell": (water(pbc=PBC), "periodic, but its lattice vectors span no volume; give a cell"),
    "pbc, one vector": (water(pbc=PBC, cell=np.diag([5.0, 0, 0])), "span no volume"),
    "cell in nm": (salt(cell=np.eye(3) * 0.564), "an atom has less than 1 Å³"),
    "thin cell": (spoilt(salt(), "cell", (2, 2), 0.01), "it is thinner than 0.5 Å"),
    "skewed cell": (salt(cell=np.array([[900.0, 0, 0], [0, 900, 0], [500, 500, 0.4]])), "it is thinner than 0.5 Å"),
    "thin layer": (water(cell=np.diag([0.4, 9, 9]), pbc=np.array([True, True, False])), "it is thinner than 0.5 Å"),
    "dummy": (spoilt(water(), "atomic_numbers", 2, 0), r"0\.0 is not an element \(1 to 118\) at atom 2"),
    "half an element": (spoilt(water(), "atomic_numbers", 0, 6.5), r"6\.5 is not an element"),
    "element 119": (spoilt(water(), "atomic_numbers", 0, 119), r"119\.0 is not an element"),
    "negative tag": (water(tags=np.array([2, -1, 2])), r"field 'tags': -1 at atom 1 \(H\) is none of 0"),
    "layers of a builder": (water(tags=np.array([3, 2, 1])), r"field 'tags': 3 at atom 0 \(O\) is none of 0"),
    "tag 300": (water(tags=np.array([2, 2, 300])), r"300 at atom 2"),
    "NaN force": (spoilt(water(forces=np.zeros((3, 3))), "forces", (0, 0), np.nan),
                  r"'forces' holds NaN .* at atom 0 \(O\)"),
    "force of 1e10": (spoilt(water(forces=np.zeros((3, 3))), "forces", (0, 0), -1e10),
                      r"'forces' is beyond 100000 at atom 0"),
    "energy of 1e30": (water(energy=1e30), r"'energy' is beyond 1e\+08"),
    "label of 1e30": (water(gap=-1e30), r"'gap' is beyond 1e\+15"),
    "NaN label": (water(gap=np.nan), "'gap' holds NaN"),
    "one place": (spoilt(water(), "pos", 2, water()["pos"][1]),
                  r"field 'pos': atom 1 \(H\) and atom 2 \(H\) are 0 Å apart"),
    "1e-4 Å": (spoilt(water(), "pos", 2, water()["pos"][1] + 1e-4), r"are 0\.00017 Å apart, less than 0\.1 Å"),
    "image listed": (spoilt(salt(), "pos", 7, salt()["pos"][0] + [5.64, 0, -5.64]),
                     r"atom 0 \(Na\) and atom 7 \(Cl\) are"),
    "across a face": (spoilt(spoilt(salt(), "pos", 7, [-0.04, 0, 0]), "pos", 0, [5.65, 0, 0]),
                      r"atom 0 \(Na\) and atom 7 \(Cl\) are 0\.05"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_the_door_refuses_and_names_the_atom(kind):
    structure, words = SPOILT[kind]
    with pytest.raises(ValueError,
                       match=f"^a file, frame 7: {'.*' if not words.startswith('field') else ''}{words}") as caught:
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


@pytest.mark.parametrize("cell, pbc", [(np.diag([999.0, 999, 0.6]), [1, 1, 1]), (np.diag([999.0, 999, 5]), [1, 1, 0]),
                                       (np.zeros((3, 3)), [0, 0, 0]),
                                       (np.diag([999.0, 0.6, 5]), [1, 1, 1])])  # fmt: skip
def test_what_the_door_lets_in_does_not_end_python(cell, pbc):
    """The neighbour search died of flat things of 5000 Å; here at the widest that is taken."""
    pos = np.random.default_rng(0).uniform(-899, 899, (50, 3)).astype(np.float32) * [1, 1, 0]
    structure = {"pos": pos, "atomic_numbers": np.full(50, 6), "cell": cell, "pbc": np.array(pbc, bool)}
    check_structure(structure, "sheet")
    find_neighbors(pos, cell, structure["pbc"], 6.0, True)


def test_a_hundred_thousand_atoms_at_one_place_take_no_memory():
    with pytest.raises(ValueError, match=r"atom 0 \(C\) and atom \d+ \(C\) are 0 Å apart"):
        check_structure({"pos": np.zeros((100_000, 3), np.float32), "atomic_numbers": np.full(100_000, 6)}, "frame")


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
        images = np.stack(np.meshgrid(*[[-4, -3, -2, -1, 0, 1, 2, 3, 4] if p else [0] for p in pbc]),
                          -1).reshape(-1, 3) @ cell
        apart = np.linalg.norm(pos[:, None, None] - pos[None, :, None] - images, axis=-1)
        apart[np.arange(natoms), np.arange(natoms)] = np.inf  # the cells are too wide for an atom to meet its own image
        structure = {"pos": pos, "atomic_numbers": np.full(natoms, 6), "cell": cell, "pbc": pbc}
        try:
            check_structure(structure, "case")
            assert apart.min() > 0.0999, case
        except ValueError as error:
            assert ("apart" in str(error) and apart.min() < 0.1001) or 'thinner' in str(error), (case, str(error))


# --- extended XYZ --------------------------------------------------------------------------------------------

WATER = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
FRAME = f"3\nProperties=species:S:1:pos:R:3 energy=-1.5\n{WATER}"
CRYSTAL = "2\n{}\nNa 0 0 0\nCl 2.82 0 0\n"
NINE = "5.64 0 0 0 5.64 0 0 0 5.64"


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [from_ase(atoms, i) for i, atoms in enumerate(iter_atoms(path))]


READ = {
    "blank lines anywhere": ("\n \n" + FRAME + "\n\n" + FRAME.replace("H 0.96", "\nH 0.96")
                             + "\n" + FRAME + "\n\t\n", 3),
    "CRLF": (FRAME.replace("\n", "\r\n") * 2, 2),
    "CR": (FRAME.replace("\n", "\r") * 2, 2),
    "BOM": (b"\xef\xbb\xbf" + FRAME.encode(), 1),
    "UTF-16": (FRAME.encode("utf-16"), 1),
    "Latin-1": (FRAME.replace("energy", "name=\"caf\xe9\" energy").encode("latin-1"), 1),
    "no comment": (f"3\n\n{WATER}", 1),
    "a comment": (f"3\nwater = good\n{WATER}", 1),
    "no line end": (FRAME.rstrip(), 1),
    "numbers as species": (FRAME.replace("O 0", "8 0").replace("H ", "1 "), 1),
    "numbers as Z": (FRAME.replace("species:S", "Z:I").replace("O 0", "8 0").replace("H ", "1 "), 1),
    "other names": (FRAME.replace("species", "element").replace("pos", "positions").replace("Properties", "properties"),
                    1),
    "lower case": (FRAME.replace("O 0", "o 0").replace("H ", "h "), 1),
    "columns that nobody names": (f"3\n\n{WATER}".replace("0\n", "0 0.1 0.2\n"), 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("name", ["a.xyz", "A.EXTXYZ", "noending", "a.xyz.gz", "a.extxyz.bz2", "a.xyz.xz"])
def test_xyz_is_read(tmp_path, kind, name):
    content, count = READ[kind]
    content = content if isinstance(content, bytes) else content.encode()
    pack = {"gz": gzip, "bz2": bz2, "xz": lzma}.get(name.rpartition(".")[2])
    found = read(tmp_path / name, pack.compress(content) if pack else content)
    assert len(found) == count
    for structure in found:
        assert structure["atomic_numbers"].tolist() == [8, 1, 1] and not structure["pbc"].any()
        assert np.allclose(structure["pos"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        assert structure.get("energy", -1.5) == -1.5
        assert structure.get("name", "café") == "café"


REFUSED = {
    "label": (FRAME.replace("H 0.96", "H1 0.96"), "frame 0, line 4: unknown element 'H1'"),
    "label of a protein": (FRAME * 2 + FRAME.replace("O 0", "CA 0"), "frame 2, line 13: unknown element 'CA'"),
    "label with _": (FRAME.replace("H 0.96", "H_1 0.96"), "line 4: unknown element 'H_1'"),
    "deuterium": (FRAME.replace("H 0.96", "D 0.96"), "line 4: unknown element 'D': heavy hydrogen .* write H"),
    "tritium": (FRAME.replace("H 0.96", "T 0.96"), "line 4: unknown element 'T': heavy hydrogen"),
    "dummy": (FRAME.replace("H 0.96", "X 0.96"), "line 4: unknown element 'X'"),
    "number 0": (FRAME.replace("H 0.96", "0 0.96"), "line 4: unknown element '0'"),
    "number 119": (FRAME.replace("H 0.96", "119 0.96"), "line 4: unknown element '119'"),
    "too small": (FRAME.replace("3\n", "2\n"),
                  "frame 1 begins with 'H -0.24.*', .* in line 5 .does frame 0 have more atoms"),
    "too large": (FRAME.replace("3\n", "4\n") + FRAME, "frame 0, line 6: '3' has 1 columns where 4 are needed"),
    "cut": (FRAME + FRAME[:-16], "frame 1 ends after 2 of 3 atoms"),
    "cut in an atom": (FRAME + FRAME[:-7], "frame 1, line 10: 'H -0.24' has 2 columns"),
    "count alone": (FRAME + "3\n", "frame 1 ends after 0 of 3 atoms"),
    "no atoms": ("0\n\n" + FRAME, "frame 0 says that it has 0 atoms"),
    "negative": ("-3\n\n" + WATER, "frame 0 begins with '-3', not with a number of atoms"),
    "no whole number": ("3.0\n\n" + WATER, "begins with '3.0', not"),
    "giant": ("99999999999\n\n" + WATER, "frame 0 says that it has 99999999999 atoms, .* 1 to 100,000 are taken"),
    "beyond int64": ("9223372036854775808\n\n" + WATER, "says that it has 9223372036854775808 atoms"),
    "empty": ("", "is empty"),
    "html": ("<!DOCTYPE html><html>sign in</html>", "is a web page"),
    "archive": (b"PK\x03\x04abc", "is a zip archive .* first"),
    "words for numbers": (FRAME.replace("0.96", "zero"), "line 4: 'zero 0 0' is no positions"),
    "energy twice as wide": (FRAME.replace("pos:R:3", "pos:R:3:forces:R:3"),
                             "'O 0 0 0' has 4 columns where 7 are needed"),
    "no species": (FRAME.replace("species", "label"), "Properties must name species"),
    "lattice of one": (CRYSTAL.format("Lattice=5.64"), "no lattice; write Lattice="),
    "lattice of text": (CRYSTAL.format('cell="cubic"'), "no lattice; write Lattice="),
    "lattice in brackets": (CRYSTAL.format("Lattice=[[5,0,0],[0,5,0],[0,0,5]]"), "no lattice; write Lattice="),
    "two lattices": (CRYSTAL.format(f'Lattice="{NINE}" cell="5 0 0 0 5 0 0 0 5"'), "says Lattice twice"),
    "pbc of two": (CRYSTAL.format(f'Lattice="{NINE}" pbc="T T"'), "does not say in which directions"),
    "pbc of words": (CRYSTAL.format(f'Lattice="{NINE}" pbc="yes"'), "does not say in which directions"),
    "a builder's tags": ("2\nProperties=species:S:1:pos:R:3:tags:I:1\nO 0 0 0 0\nH 0 0 1 1\n",
                         "tags are not those of OC20"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_xyz_is_refused_by_name_frame_and_line(tmp_path, kind):
    content, words = REFUSED[kind]
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path / "a.xyz", content)
    assert "\n" not in str(caught.value) and (str(tmp_path) in str(caught.value) or "builder" in kind)


@pytest.mark.parametrize("text, pbc", [
    (f'Lattice="{NINE}"', "TTT"), (f'lattice="{NINE}"', "TTT"), (f'LATTICE="{NINE}" PBC="1 1 0"', "TTF"),
    (f"cell='{NINE}' pbc=T", "TTT"), (f"Lattice={NINE} pbc=T T F energy=1", "TTF"),
    (f'Cell="{NINE}" Pbc=[1,0,1]', "TFT"), ('cell="5.64 5.64 5.64"', "TTT"),
    ('cell="5.64 5.64 5.64 90 90 90" pbc="true true false"', "TTF"), (f'Lattice="{NINE}" pbc="F F F"', "FFF"),
    (f'lattice="{NINE}" pbc=TTF', "TTF"), (f'lattice="{NINE}" periodic="t t t"', "TTT"),
    (f'lattice="{NINE.replace(" ", ", ")}" pbc="T, T, F"', "TTF"), (f'pbc=1 1 0 lattice={NINE}', "TTF"),
])  # fmt: skip
def test_lattice_and_pbc_are_honoured_however_they_are_spelled(tmp_path, text, pbc):
    (found,) = read(tmp_path / "a.xyz", CRYSTAL.format(text))
    assert found["pbc"].tolist() == [letter == "T" for letter in pbc]
    assert np.allclose(found["cell"], np.eye(3) * 5.64)


def test_periodic_without_a_lattice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="frame: field 'cell': periodic, but"):
        check_structure(read(tmp_path / "a.xyz", CRYSTAL.format('pbc="T T T"'))[0], "frame")


@pytest.mark.parametrize("text, id, sid", [
    ("id=mp-100", 0, "mp-100"), ('id="_JSON [1, 2]"', 0, "[1, 2]"),
    ("id=100000000000000000000", 0, "100000000000000000000"), ("id", 0, None), ("id=7", 7, None), ("id=-7", 0, "-7"),
    ("id=1.5", 0, "1.5"), ('id="a b"', 0, "a b"), ("id=9223372036854775807", 0, "9223372036854775807"),
])  # fmt: skip
def test_ids_are_text(tmp_path, text, id, sid):
    (found,) = read(tmp_path / "a.xyz", f"3\n{text}\n{WATER}")
    assert found["id"] == id and found.get("sid") == sid


# --- ASE's and pymatgen's objects ----------------------------------------------------------------------------


def slab_tags(*tags):
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    add_adsorbate(atoms, "O", 1.5)
    atoms.set_tags(tags)
    return atoms


def test_tags_of_a_slab():
    as_built = fcc111("Cu", (2, 2, 2), vacuum=6.0, periodic=True)
    add_adsorbate(as_built, "O", 1.5)  # 2, 1 and, for the adsorbate, 0
    assert from_ase(slab_tags(0, 0, 1, 2))["tags"].tolist() == [0, 0, 1, 2]
    assert from_ase(slab_tags(0, 0, 0, 0))["tags"].tolist() == [2, 2, 2, 2]
    assert from_ase(slab_tags(1, 1, 1, 1))["tags"].tolist() == [1, 1, 1, 1]
    low = slab_tags(0, 0, 1, 2)
    low.positions -= low.positions[0] + [0, 0, 0.5]  # its lowest layer lies across the face of the cell
    low.wrap()
    assert from_ase(low)["tags"].tolist() == [0, 0, 1, 2]
    molecule_in_two = molecule("H2O")
    molecule_in_two.set_tags([0, 1, 1])
    for atoms in (as_built, molecule_in_two, slab_tags(1, 1, 0, 0)):
        with pytest.raises(ValueError, match="^row 3: its tags are not those of OC20"):
            from_ase(atoms, where="row 3")
    with pytest.raises(ValueError, match="field 'tags': 3 at atom 0"):
        check_structure(from_ase(slab_tags(3, 2, 1, 1)), "a file")


def test_results_of_other_codes():
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=np.array([-3.0]))
    atoms.calc.results |= {"node_energy": np.zeros(3), "descriptor": "x"}
    found = from_ase(to_atoms(atoms, "row 0"))
    assert found["energy"] == -3.0
    atoms.calc.results["energy"] = None
    assert "energy" not in from_ase(to_atoms(atoms, "row 0"))
    atoms.calc.results["energy"] = "low"
    with pytest.raises(ValueError, match="row 0: its energy 'low' is no number"):
        from_ase(to_atoms(atoms, "row 0"), where="row 0")


def test_info_of_any_kind_does_no_harm():
    atoms = molecule("H2O")
    atoms.info |= {"natoms": 3, "pos": 1.0, "ragged": [[1], [2, 3]], "none": None, "dict": {"a": np.zeros(3)},
                   "occupancy": 0.5, "id": [[1], [2, 3]], "x": np.float32(2), "flag": True,
                   "group": "a", "code": 2}  # fmt: skip
    found = from_ase(atoms)
    check_structure(found, "frame")
    assert found["sid"] == "[[1], [2, 3]]" and found["x"] == 2 and found["group"] == "a" and "natoms" not in found


@pytest.mark.parametrize("tags, words", [([0.5, 1, 2], "0.5 at atom 0"), ([2, np.nan, 2], "nan at atom 1"),
                                         (["a", "b", "c"], "not numbers")])
def test_tags_that_are_no_whole_numbers(tags, words):
    atoms = molecule("H2O")
    atoms.new_array("tags", np.array(tags))
    with pytest.raises(ValueError, match=words):
        check_structure(from_ase(atoms), "frame")


def test_sites_of_pymatgen_are_whole_or_named():
    from pymatgen.core import DummySpecies, Element, Lattice, Molecule, Structure

    def structure(*species):
        return Structure(Lattice.cubic(4), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)])

    found = from_ase(to_atoms(structure("Na+", "Cl-"), "row 4"))
    assert (found["atomic_numbers"].tolist() == [11, 17] and found["pbc"].all()
            and np.allclose(found["cell"], np.eye(3) * 4))
    assert not from_ase(to_atoms(Molecule(["O", "H"], [[0, 0, 0], [0, 0, 1]]), "row 4"))["pbc"].any()
    for species, words in [
        (("Na", {"Cl": 0.5}), r"site 1 .* is shared by several elements or partly empty"),
        ((Element("D"), "O"), "site 0: unknown element 'D'"), (({"Na": 0.5, "K": 0.5}, "Cl"), "site 0 .* is shared"),
        (("Na", DummySpecies("X")), "site 1: unknown element 'X"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^row 4: {words}"):
            to_atoms(structure(*species), "row 4")


CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


@pytest.mark.parametrize("name", ["a.cif", "A.CIF", "a.cif.gz"])
@pytest.mark.parametrize("sites, words", [
    ("Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1", None), ("Na1 Na+ 0 0 0 1.0\nCl1 Cl1- 0.5 0.5 0.5 .", None),
    ("Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 0.5", r"site Cl1 \(occupancy 0.5\) is shared"),
    ("Na1 Na 0 0 0 0.5(1)\nCl1 Cl 0.5 0.5 0.5 1", "site Na1 .* is shared"),
    ("Na1 Na 0 0 0 1\nK1 K 0 0 0 1", r"sites: field 'pos': atom 0 \(Na\) and atom 1 \(K\) are 0 Å apart"),
    ("Na1 Na 0 0 0 1\nD1 D 0.5 0.5 0.5 1", "site D1: unknown element 'D': heavy hydrogen"),
    ("Na1 Na 0 0 0 1\nX1 X 0.5 0.5 0.5 1", "site X1: unknown element 'X'"),
    ("Na1 Na 0 0 0 1\nCL1 CL 0.5 0.5 0.5 1", "site CL1: unknown element 'CL'"),
    ("Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1 1 1", "Wrong number 8 of tokens"),
])  # fmt: skip
def test_sites_of_a_cif_are_whole_or_named(tmp_path, name, sites, words):
    content = (CIF + sites + "\n").encode()
    content = gzip.compress(content) if name.endswith("gz") else content
    if words is None:
        assert read(tmp_path / name, content)[0]["atomic_numbers"].tolist() == [11, 17]
        return
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path / name, content)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", ["a.pdb", "A.ENT.gz"])
def test_names_of_a_protein_are_no_elements(tmp_path, name):
    with pytest.raises(ValueError, match="files are not read .* write extended XYZ"):
        list(iter_atoms(tmp_path / name))


def test_an_occupancy_that_ase_carries_along_is_seen():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.info["occupancy"] = {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1}}
    with pytest.raises(ValueError, match="^row 2: site 0 .* is shared"):
        from_ase(atoms, where="row 2")


# --- a folder with a CSV, tables, databases ------------------------------------------------------------------


def salts(folder, stems):
    folder.mkdir()
    for i, stem in enumerate(stems):
        write(folder / f"{stem}.cif", bulk("NaCl", "rocksalt", a=5.6 + 0.01 * i, cubic=True))
    return folder


STEMS = [f"mof-{i}" for i in range(10)]
ZEROS = [f"{i:04d}" for i in range(10)]
LABELS = [round(0.1 * i - 0.3, 3) for i in range(10)]


def lines(names, head="file,gap", delimiter=",", label=str):
    return "\n".join([head, *(f"{name}{delimiter}{label(value)}" for name, value in zip(names, LABELS))]) + "\n"


def comma(value):
    return str(value).replace(".", ",")


CSV_READ = {
    "id column": (STEMS, lines(STEMS, "id,gap")), "leading zeros": (ZEROS, lines(ZEROS)),
    "zeros lost": (ZEROS, lines(range(10))), "numbers": (range(1, 11), lines(range(1, 11))),
    "numbers as floats": (range(1, 11), lines([f"{i}.0" for i in range(1, 11)])),
    "semicolons": (STEMS, lines(STEMS, "file;gap", ";")), "tabs": (STEMS, lines(STEMS, "file\tgap", "\t")),
    "decimal commas": (STEMS, lines(STEMS, "file;gap", ";", comma)),
    "BOM": (STEMS, b"\xef\xbb\xbf" + lines(STEMS).encode()),
    "UTF-16 with tabs": (STEMS, lines(STEMS, "file\tgap", "\t").encode("utf-16")),
    "CRLF": (STEMS, lines(STEMS).replace("\n", "\r\n")),
    "Latin-1": (STEMS, lines(STEMS, "file,gap,note", label=lambda v: f"{v},\xe9").encode("latin-1")),
    "blank rows": (STEMS, "\n" + lines(STEMS).replace("mof-3", "\n,\nmof-3") + "\n,\n"),
    "spaces": (STEMS, lines(STEMS, "file , gap", " , ")),
    "endings": (STEMS, lines([f"{s}.cif" for s in STEMS])), "folders": (STEMS, lines([f"cifs/{s}.cif" for s in STEMS])),
    "upper case": (STEMS, lines([f"{s.upper()}.CIF" for s in STEMS])),
    "quotes": (STEMS, lines([f'"{s}"' for s in STEMS])), "a column of rows":
    (range(10), "".join(f"{i if i else ''},{w}\n" for i, w in enumerate(lines(range(10)).split("\n")[:-1]))),
}  # fmt: skip


@pytest.mark.parametrize("kind", CSV_READ)
def test_a_csv_with_one_meaning_is_read(tmp_path, kind):
    stems, content = CSV_READ[kind]
    (tmp_path / "l.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    data = read_own(salts(tmp_path / "f", stems), ["gap"], ["eV"], labels_csv=tmp_path / "l.csv")
    assert np.allclose(data.structures.scalars["gap"], LABELS)
    assert np.allclose(data.structures.cell[:, 0, 0], 5.6 + 0.01 * np.arange(10))


def test_a_file_of_a_folder_holds_one_structure_compressed_or_not(tmp_path):
    (tmp_path / "l.csv").write_text(lines(STEMS))
    path = salts(tmp_path / "f", STEMS) / "mof-3.cif"
    path.with_name("mof-3.cif.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert len(read_own(tmp_path / "f", ["gap"], ["eV"], labels_csv=tmp_path / "l.csv").structures) == 10
    path.with_name("mof-4.cif").write_text(path.with_name("mof-4.cif").read_text() * 2)
    with pytest.raises(ValueError, match="mof-4.cif holds 2 structures where a row of labels is for one"):
        read_own(tmp_path / "f", ["gap"], ["eV"], labels_csv=tmp_path / "l.csv")


@pytest.mark.parametrize("content, words", [
    (lines(STEMS).split("\n", 1)[1], "its first line 'mof-0,-0.3' is a row, not the names"),
    (lines(STEMS).replace("mof-3,0.0", "mof-3,"), r"mof-3.cif .line 5 of l.csv.: 'gap' is empty"),
    (lines(STEMS).replace("mof-3,0.0", "mof-3,nan"), r"mof-3.cif .line 5 of l.csv.: field 'gap' holds NaN"),
    (lines(STEMS).replace("mof-3,0.0", "mof-3,n/a"), r"mof-3.cif .line 5 of l.csv.: 'gap' is 'n/a', not a number"),
    (lines(STEMS).replace("mof-3,0.0", "mof-3,1e30"), r"mof-3.cif .line 5 of l.csv.: field 'gap' is beyond"),
    (lines(STEMS, label=comma), "line 2 has 3 columns where the first line has 2"),
    (lines(STEMS).replace("mof-3", "mof-2"), "lines 4 and 5 both name mof-2.cif"),
    (lines(STEMS).replace("mof-3", "mof-x"), "1 of 10 rows name no file of .* 'mof-x'"),
    (lines(STEMS[:9]), "1 files have no row in l.csv, for instance mof-9.cif"),
    (lines(STEMS).replace("file,gap", "gap,gap"), "two columns have the same name"),
    ("file\n" + "\n".join(STEMS), "has one column, or none"),
    ("", "is empty"), ("<html>sign in</html>", "is a web page"),
])  # fmt: skip
def test_a_csv_with_a_fault_is_one_sentence(tmp_path, content, words):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_own(salts(tmp_path / "f", STEMS), ["gap"], ["eV"], labels_csv=tmp_path / "l.csv")
    assert "\n" not in str(caught.value)


def waters(count: int = 12) -> list[Atoms]:
    rng, frames = np.random.default_rng(0), [molecule("H2O") for _ in range(count)]
    for i, atoms in enumerate(frames):
        atoms.positions += rng.normal(0, 0.02, (3, 3))
        atoms.info["gap"] = 0.1 * i
    return frames


@pytest.mark.parametrize("ending", ["db", "json"])
@pytest.mark.parametrize("place", ["data", "calculator", "key_value_pairs"])
def test_labels_of_a_database_are_found(tmp_path, ending, place):
    from ase.db import connect

    with connect(tmp_path / f"a.{ending}") as database:
        for i, atoms in enumerate(waters()):
            forces = np.full((3, 3), 0.1 * i)
            atoms.info = {}
            if place == "calculator":
                atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * i, forces=forces)
            database.write(atoms, data={"energy": -1.0 * i, "forces": forces, "about": {"code": "x"}} if place == "data"
                           else {}, **({"energy_total": -1.0 * i} if place == "key_value_pairs" else {}))
    keys = ["energy_total"] if place == "key_value_pairs" else ["energy", "forces"]
    data = read_own(tmp_path / f"a.{ending}", keys, ["eV", "eV/Å"][: len(keys)])
    assert data.structures.scalars[keys[0]].tolist() == [-1.0 * i for i in range(12)]
    if place != "key_value_pairs":
        assert data.structures.forces[-1].tolist() == pytest.approx([1.1] * 3)


def test_a_table_names_its_row():
    from pymatgen.core import Lattice, Structure

    def crystals(bad):
        good = [Structure(Lattice.cubic(3 + 0.1 * i), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]) for i in range(11)]
        return pd.DataFrame({"structure": [*good[:4], bad, *good[4:]], "gap": np.arange(12.0)}, index=[7] * 12)

    with pytest.raises(ValueError, match="^row 4 of the table: site 1 .* is shared"):
        read_own(crystals(Structure(Lattice.cubic(3), ["Na", {"Cl": 0.5}], [[0, 0, 0], [0.5] * 3])), ["gap"], ["eV"])
    with pytest.raises(ValueError, match="^row 4 of the table is a NoneType"):
        read_own(crystals(None), ["gap"], ["eV"])
    with pytest.raises(ValueError, match="^row 4 of the table: field 'pos': atom 0 .* and atom 1"):
        read_own(crystals(Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0, 0, 1]])), ["gap"], ["eV"])
    frames = waters()
    for atoms in frames:
        atoms.set_tags(0)
    assert (read_own(pd.DataFrame({"atoms": frames, "gap": np.arange(12.0)}), ["gap"],
                     ["eV"]).structures.tags == 2).all()
    frames[3].set_tags([0, 1, 2])
    with pytest.raises(ValueError, match="^row 3 of the table: its tags are not those of OC20"):
        read_own(pd.DataFrame({"atoms": frames, "gap": np.arange(12.0)}), ["gap"], ["eV"])


def test_a_source_of_another_kind_is_named():
    with pytest.raises(ValueError, match="source must be a path or a pandas table .* not a list"):
        read_own(waters(), ["gap"], ["eV"])


@pytest.mark.parametrize("value", ["0.5", np.array([0.5]), [0.5], np.float32(0.5), "  0.5 "])
def test_a_label_of_one_number_is_a_number(value):
    frames = waters()
    for i, atoms in enumerate(frames[1:]):
        atoms.info["gap"] = float(i)
    frames[0].info["gap"] = value
    labels = [atoms.info.pop("gap") for atoms in frames]
    assert read_own(pd.DataFrame({"atoms": frames, "gap": labels}), ["gap"], ["eV"]).structures.scalars["gap"][0] == 0.5


def test_equal_energies_with_forces_are_learnt_and_parts_have_their_names(tmp_path):
    frames = waters()
    for i, atoms in enumerate(frames):
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=np.full((3, 3), 0.1 * i))
        atoms.info["split"] = np.str_(["Train", "validation", "TEST "][i % 3])
    data = read_own(pd.DataFrame({"atoms": frames}), ["energy", "forces"], ["eV", "eV/Å"])
    assert set(data.structures.scalars["energy"]) == {-3.0} and split_own(data, "given").counts
    frames[5].info["split"] = np.str_("holdout")
    with pytest.raises(ValueError, match="structure 5: its split is 'holdout'; write train, val or test"):
        split_own(read_own(pd.DataFrame({"atoms": frames}), ["energy", "forces"], ["eV", "eV/Å"]), "given")
    for atoms in frames:
        atoms.calc.results["forces"] = np.zeros((3, 3))
    with pytest.raises(ValueError, match="'forces' is the same for all 12"):
        read_own(pd.DataFrame({"atoms": frames}), ["energy", "forces"], ["eV", "eV/Å"])


# --- every entry point ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return finetuned(tmp_path_factory.mktemp("model"))


def copied(key: str):
    def change(atoms):
        if key == "overlap":
            atoms.positions[2] = atoms.positions[1] + 1e-3
        elif key == "far":
            atoms.positions[2, 0] = 1e6
        elif key == "NaN":
            atoms.positions[2, 0] = np.nan
        elif key == "cell":
            atoms.set_cell([np.nan, 5, 5])
        elif key == "pbc":
            atoms.pbc = True
        elif key == "tags":
            atoms.set_tags([3, 4, 5])
        elif key == "dummy":
            atoms.numbers[2] = 0
        return atoms

    return change


@pytest.mark.parametrize("kind", ["overlap", "far", "NaN", "cell", "pbc", "tags", "dummy"])
def test_no_entry_point_takes_what_the_door_refuses(tmp_path, capsys, network, kind):
    frames = waters()
    copied(kind)(frames[7])
    words = {"overlap": "are 0.0017 Å apart", "far": "is beyond 900", "NaN": "holds NaN", "cell": "holds NaN",
             "pbc": "span no volume", "tags": "is none of 0", "dummy": "element"}[kind]
    target = tmp_path / "out.extxyz"
    write(tmp_path / "in.extxyz", frames)
    if kind != "cell":  # ASE writes no such cell
        assert main(["predict", str(network), str(tmp_path / "in.extxyz"), "-o", str(target)]) == 2
        said = capsys.readouterr().err
        assert words in said and "frame 7" in said and "Traceback" not in said and not target.exists()
        with pytest.raises(ValueError, match=f"in.extxyz.*7.*{words}"):
            read_own(tmp_path / "in.extxyz", ["gap"], ["eV"])
    with pytest.raises(ValueError, match=f"row 7 .*{words}"):
        read_own(pd.DataFrame({"atoms": frames, "gap": [a.info.pop("gap") for a in frames]}), ["gap"], ["eV"])
    for call in (lambda: list(jmp_lib.predictions(network, frames)), lambda: jmp_lib.embed(frames, network)):
        with pytest.raises(ValueError, match=f"structure 7.*{words}"):
            call()
    frames[7].calc = jmp_lib.JMPCalculator(network)
    with pytest.raises(ValueError, match=words):
        frames[7].get_potential_energy()


def test_all_zero_tags_and_none_predict_the_same(network):
    frames = [molecule("CH3CH2OH"), molecule("CH3CH2OH")]
    frames[1].set_tags(0)
    energies = [found["energy"] for found in jmp_lib.predictions(network, frames)]
    for atoms in frames:
        atoms.calc = jmp_lib.JMPCalculator(network)
    assert [*energies, frames[1].get_potential_energy()] == pytest.approx([frames[0].get_potential_energy()] * 3)


CASES = Path(os.environ.get("JMP_CASES", ""))


@pytest.mark.skipif(not (CASES / "INDEX.md").is_file(),
                    reason="set JMP_CASES to the folder with the cases of bad input")
def test_the_cases(tmp_path):
    """Every small input that once went wrong is read, or one sentence that names it."""
    read_whole = {"01-tags-zero": 5, "05-blank-line-between-frames": 4, "07-numbers-as-species": 3,
                  "08-deuterium-dummy": 1, "24-ase-db-labels-in-data": 3, "25-id-is-text": 4,
                  "27-paths-and-packing": 8, "42-elements-never-seen": 1}
    for folder in sorted(path for path in CASES.iterdir() if path.is_dir() and path.name[:2] not in ("22", "49")):
        whole = 0
        for path in sorted(folder.iterdir()):
            try:
                frames = list(iter_atoms(path))
                for i, atoms in enumerate(frames):
                    check_structure(from_ase(atoms, i, f"{path}: frame {i}"), f"{path}: frame {i}")
            except ValueError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                continue
            whole += 1
            assert len(frames) == {"05": 30, "24": 14, "25": 14, "27": 30}.get(folder.name[:2], 1), path
        assert whole == read_whole.get(folder.name, 0), folder
    for table in sorted((CASES / "22-cif-folder-csv").glob("*.csv")):
        try:
            assert len(read_own(table.with_suffix(""), ["gap"], ["eV"], labels_csv=table).structures) == 14
        except ValueError as error:
            assert table.stem in ("no_header", "nan_label") and table.name in str(error)


def test_sheets_and_tubes_of_ase_need_no_vacuum():
    """Their vectors along which nothing repeats are zero; neighbours are those with vacuum."""
    for made, roomy in ((graphene(), graphene(vacuum=8.0)),
                        (nanotube(4, 0, length=2), nanotube(4, 0, length=2, vacuum=8.0))):
        structures = [from_ase(atoms) for atoms in (made, roomy)]
        for structure in structures:
            check_structure(structure, "a file")
        one, other = (build_graphs(structure, GraphConfig(4.0, 30)) for structure in structures)
        assert one["main_edge_index"].shape[1] == other["main_edge_index"].shape[1] > 0


def test_a_long_array_in_a_sentence_stays_in_its_line(tmp_path):
    file = tmp_path / "a.xyz"
    file.write_text('1\npbc="1.1985e+06 -3.3690e-02 -3.8997e-02 -1.17168379e+00 -1.44165786e+00 '
                    '-3.27850660e-01"\nH 0 0 0\n')
    with pytest.raises(ValueError, match="a.xyz: frame 0: pbc=.* does not say in which directions") as caught:
        list(iter_atoms(file))
    assert "\n" not in str(caught.value)
