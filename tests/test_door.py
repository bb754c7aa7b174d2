"""The door: what no network may see is refused in one sentence, wherever it comes from; what has one meaning is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from jmp_lib.data.collect import check_structure
from jmp_lib.data.exchange import from_ase, read_atoms, to_atoms
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


# --- extended XYZ --------------------------------------------------------------------------------------------

WATER = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
FRAME = f"3\nProperties=species:S:1:pos:R:3 energy=-1.5\n{WATER}"
CRYSTAL = "2\n{}\nNa 0 0 0\nCl 2.82 0 0\n"
NINE = "5.64 0 0 0 5.64 0 0 0 5.64"


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [from_ase(atoms, i) for i, atoms in enumerate(read_atoms(path))]


READ = {
    "blank lines anywhere": ("\n \n" + FRAME + "\n\n" + FRAME.replace("H 0.96", "\nH 0.96") + "\n" + FRAME + "\n\t\n", 3),
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
    "other names": (FRAME.replace("species", "element").replace("pos", "positions").replace("Properties", "properties"), 1),
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


REFUSED = {
    "label": (FRAME.replace("H 0.96", "H1 0.96"), "frame 0, line 4: unknown element 'H1'"),
    "label of a protein": (FRAME * 2 + FRAME.replace("O 0", "CA 0"), "frame 2, line 13: unknown element 'CA'"),
    "label with _": (FRAME.replace("H 0.96", "H_1 0.96"), "line 4: unknown element 'H_1'"),
    "deuterium": (FRAME.replace("H 0.96", "D 0.96"), "line 4: unknown element 'D': heavy hydrogen .* write H"),
    "tritium": (FRAME.replace("H 0.96", "T 0.96"), "line 4: unknown element 'T': heavy hydrogen"),
    "dummy": (FRAME.replace("H 0.96", "X 0.96"), "line 4: unknown element 'X'"),
    "number 0": (FRAME.replace("H 0.96", "0 0.96"), "line 4: unknown element '0'"),
    "number 119": (FRAME.replace("H 0.96", "119 0.96"), "line 4: unknown element '119'"),
    "too small": (FRAME.replace("3\n", "2\n"), "frame 1 begins with 'H -0.24.*', .* in line 5 .does frame 0 have more atoms"),
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
    "archive": (b"PK\x03\x04abc", "is a zip archive: unpack it first"),
    "words for numbers": (FRAME.replace("0.96", "zero"), "line 4: 'zero 0 0' is no positions"),
    "energy twice as wide": (FRAME.replace("pos:R:3", "pos:R:3:forces:R:3"), "'O 0 0 0' has 4 columns where 7 are needed"),
    "no species": (FRAME.replace("species", "label"), "Properties must name species"),
    "lattice of one": (CRYSTAL.format("Lattice=5.64"), "no lattice; write Lattice="),
    "lattice of text": (CRYSTAL.format('cell="cubic"'), "no lattice; write Lattice="),
    "lattice in brackets": (CRYSTAL.format("Lattice=[[5,0,0],[0,5,0],[0,0,5]]"), "no lattice; write Lattice="),
    "two lattices": (CRYSTAL.format(f'Lattice="{NINE}" cell="5 0 0 0 5 0 0 0 5"'), "says Lattice twice"),
    "pbc of two": (CRYSTAL.format(f'Lattice="{NINE}" pbc="T T"'), "does not say in which directions"),
    "pbc of words": (CRYSTAL.format(f'Lattice="{NINE}" pbc="yes"'), "does not say in which directions"),
    "a builder's tags": ("2\nProperties=species:S:1:pos:R:3:tags:I:1\nO 0 0 0 0\nH 0 0 1 1\n", "tags are not those of OC20"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_xyz_is_refused_by_name_frame_and_line(tmp_path, kind):
    content, words = REFUSED[kind]
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path / "a.xyz", content)
    assert "\n" not in str(caught.value) and (str(tmp_path) in str(caught.value) or "builder" in kind)


@pytest.mark.parametrize("text, pbc", [
    (f'Lattice="{NINE}"', "TTT"), (f'lattice="{NINE}"', "TTT"), (f'LATTICE="{NINE}" PBC="1 1 0"', "TTF"),
    (f"cell='{NINE}' pbc=T", "TTT"), (f"Lattice={NINE} pbc=T T F energy=1", "TTF"), (f'Cell="{NINE}" Pbc=[1,0,1]', "TFT"),
    ('cell="5.64 5.64 5.64"', "TTT"), ('cell="5.64 5.64 5.64 90 90 90" pbc="true true false"', "TTF"),
    (f'Lattice="{NINE}" pbc="F F F"', "FFF"), (f'lattice="{NINE}" pbc=TTF', "TTF"), (f'lattice="{NINE}" periodic="t t t"', "TTT"),
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
    ("id=mp-100", 0, "mp-100"), ('id="_JSON [1, 2]"', 0, "[1, 2]"), ("id=100000000000000000000", 0, "100000000000000000000"),
    ("id", 0, None), ("id=7", 7, None), ("id=-7", 0, "-7"), ("id=1.5", 0, "1.5"), ('id="a b"', 0, "a b"),
    ("id=9223372036854775807", 0, "9223372036854775807"),
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


def test_sites_of_pymatgen_are_whole_or_named():
    from pymatgen.core import DummySpecies, Element, Lattice, Molecule, Structure

    def structure(*species):
        return Structure(Lattice.cubic(4), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)])

    found = from_ase(to_atoms(structure("Na+", "Cl-"), "row 4"))
    assert found["atomic_numbers"].tolist() == [11, 17] and found["pbc"].all() and np.allclose(found["cell"], np.eye(3) * 4)
    assert not from_ase(to_atoms(Molecule(["O", "H"], [[0, 0, 0], [0, 0, 1]]), "row 4"))["pbc"].any()
    for species, words in [
        (("Na", {"Cl": 0.5}), r"site 1 .* is shared by several elements or partly empty"), ((Element("D"), "O"), "site 0: unknown element 'D'"),
        (({"Na": 0.5, "K": 0.5}, "Cl"), "site 0 .* is shared"), (("Na", DummySpecies("X")), "site 1: unknown element 'X"),
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


def test_an_occupancy_that_ase_carries_along_is_seen():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.info["occupancy"] = {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1}}
    with pytest.raises(ValueError, match="^row 2: site 0 .* is shared"):
        from_ase(atoms, where="row 2")
