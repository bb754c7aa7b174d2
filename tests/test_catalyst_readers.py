"""Readers of OC20 and OC22: made-up files of every form, bad files, and the published samples."""

import lzma
import os
import pickle

import numpy as np
import pytest
import torch
from catalyst_files import ENERGY, REFERENCE, check_slab, forces, frames, record, slab, write_lmdb, write_release

from jmp_lib.data import ani1x, oc20, oc22, transition1x
from jmp_lib.paths import data_dirs


# --- OC20 ---------------------------------------------------------------------------------------------------
def test_oc20_release(tmp_path):
    images = frames()
    found = list(oc20.read(write_release(tmp_path / "a", images)))
    for number, (structure, atoms) in enumerate(zip(found, images, strict=True)):
        check_slab(structure, atoms, ENERGY - number - REFERENCE, digits=1e-6)  # XYZ has 8 digits
        assert (structure["id"], structure["group"], structure["sid"]) == (number, "random77", f"random77/{number}")


def test_oc20_lmdb(tmp_path):
    path = write_lmdb(tmp_path / "data.0000.lmdb", [record(atoms) for atoms in frames()])
    for number, (structure, atoms) in enumerate(zip(oc20.read(path), frames(), strict=True)):
        assert np.array_equal(structure["forces"], forces(atoms))
        assert structure["energy"] == ENERGY - number
        check_slab(structure, atoms, ENERGY - number)


def test_graph_records_of_transition1x_have_no_parts(tmp_path):
    with pytest.raises(ValueError,
                       match="a.lmdb holds graph records, which have no part 'val'; read the file of that part"):
        list(transition1x.read(tmp_path / "a.lmdb", part="val"))


def test_oc20_frames_without_tags_get_them(tmp_path):
    images = frames()
    for atoms in images:
        atoms.set_tags(0)
    check_slab(next(oc20.read(write_release(tmp_path / "a", images))), slab(), ENERGY - REFERENCE, digits=1e-6)


def test_oc20_tags_that_cannot_be_told_are_not_guessed():
    held = np.array([True, False, True, False, False, False])
    assert oc20.derive_tags(np.array([29, 29, 29, 29, 1, 8]), held).tolist() == [0, 1, 0, 1, 2, 2]
    for numbers in ([29, 8, 29, 29, 1, 8], [29, 29, 29, 29, 29, 29], [1, 1, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="cannot be told"):
            oc20.derive_tags(np.array(numbers), held)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["random77,frame0,-28.5", "random77,frame1,-28.5"], "0.txt.xz has 2 lines, fewer than 0.extxyz.xz has frames"),
        ([f"random77,frame{n},-28.5" for n in range(4)], "has 3 frames, fewer than 0.txt.xz has lines"),
        (["random77,frame0", "random77,frame1", "random77,frame2"],
         "line 1 is 'random77,frame0', not random<sid>,frame<fid>,<energy>"),
        (["hello"] * 3, "line 1 is 'hello', not random<sid>,frame<fid>,<energy>"),
        (["random77,frame0,x"] * 3, "line 1 is 'random77,frame0,x', not"),
    ],
)
def test_oc20_text_that_does_not_fit_its_frames(tmp_path, lines, says):
    path = write_release(tmp_path / "a", frames(), lines)
    with pytest.raises(ValueError, match=says):
        list(oc20.read(path))


def test_oc20_release_that_is_damaged(tmp_path):
    path = write_release(tmp_path / "a", frames(60))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for content, says in [
        (whole[: len(whole) // 2], "cannot be read"), (bytes(flipped), "cannot be read|: frame"),
        (b"<html></html>", "is a web page"), (b"", "is empty"), (b"hello", "begins with 'hello', not with a number"),
        (lzma.compress(b"3\n\nCu 0 0 0\n"), "frame 0 ends after 1 of 3"),
        (lzma.compress(b"1\n\nCu 0 0 0\n"), "there is no energy, forces, cell"),
        (lzma.compress(b"1\n\nCu 0 0 zero\n"), "frame 0, line 3: '0 0 zero' is no positions"),
        (lzma.compress(b"once upon a time"), "not with a number of atoms"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says) as raised:
            list(oc20.read(path))
        assert "\n" not in str(raised.value)
    path.with_name("0.txt.xz").unlink()
    path.write_bytes(whole)
    with pytest.raises(FileNotFoundError, match="0.txt.xz is missing beside 0.extxyz.xz"):
        list(oc20.read(path))


def test_options_and_places_that_are_not_there(tmp_path):
    for read in (oc20.read, oc22.read, ani1x.read, transition1x.read):
        with pytest.raises(FileNotFoundError, match=r"nowhere.lmdb is missing; get .*http"):
            next(read(tmp_path / "nowhere.lmdb"))
        with pytest.raises(ValueError, match="is a folder, not .*; get .*http"):
            next(read(tmp_path))


# --- OC22 and records in general ------------------------------------------------------------------------------
def test_oc22_lmdb_and_pickles(tmp_path):
    records = [record(atoms, sid=n, nads=1, oc22=1, id="0_0") for n, atoms in enumerate(frames())]
    write_lmdb(tmp_path / "a.lmdb", records)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(records))
    for place in (tmp_path / "a.lmdb", tmp_path / "a.pkl"):
        found = list(oc22.read(place))
        assert [(s["id"], s["group"], s["sid"]) for s in found] == [(n, str(n), f"{n}/5") for n in range(3)]
        check_slab(found[0], slab(), ENERGY)
    relaxed = write_lmdb(tmp_path / "b.lmdb", [record(slab(), y_relaxed=-1.0)])
    assert next(oc22.read(relaxed))["energy"] == -1.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y": float("nan")}, "field 'energy' holds NaN or infinity"),
        ({"force": torch.full((6, 3), float("inf"))}, "field 'forces' holds NaN or infinity"),
        ({"force": torch.zeros(5, 3)}, "field 'forces' has shape (5, 3)"),
        ({"pos": torch.zeros(7, 3)}, "field 'pos' has shape (7, 3)"),
        ({"tags": torch.zeros(5)}, "field 'tags' has shape (5,)"),
        ({"natoms": 7}, "natoms is 7 where there are 6 atomic numbers"),
        ({"atomic_numbers": torch.tensor([29.0, 29, 29, 29, 1, 250])}, "250 is not an element"),
        ({"atomic_numbers": torch.tensor([29.0, 29, 29, 29, 1, 8.5])}, "atomic number 8.5"),
        ({"cell": torch.ones(1, 3, 3)}, "its lattice vectors span no volume"),
        ({"cell": torch.ones(2, 3, 3)}, "cell has shape (2, 3, 3)"),
        ({"force": None}, "field 'force' is missing"),
        ({"y": "low"}, "field 'energy' does not hold numbers"),
        ({name: torch.zeros(0, 3) for name in ("pos", "force")} | {"natoms": 0, "atomic_numbers": torch.zeros(0)},
         "a structure with 0 atoms"),
    ],
)  # fmt: skip
def test_unsound_records_are_raised_or_left_out(tmp_path, changes, says):
    path = write_lmdb(tmp_path / "a.lmdb", [record(slab()), record(slab(1), **changes), record(slab(2))])
    with pytest.raises(ValueError) as raised:
        list(oc22.read(path))
    assert f"{path}: record 1" in str(raised.value) and says in str(raised.value) and "\n" not in str(raised.value)
    rejected = []
    assert [structure["id"] for structure in oc22.read(path, rejected=rejected)] == [0, 1]
    assert len(rejected) == 1 and rejected[0] == str(raised.value)


def test_lmdb_that_is_damaged(tmp_path):
    whole = write_lmdb(tmp_path / "a.lmdb", [record(atoms) for atoms in frames(40)]).read_bytes()
    bad = tmp_path / "bad.lmdb"
    for content, says in [
        (b"", "is empty"), (b"<html>", "is a web page"), (b"hello", "cannot be read .it is not an LMDB"),
        (b"hello" * 5000, "cannot be read"), (whole[: len(whole) // 2], "cannot be read .it is cut short"),
    ]:  # fmt: skip
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"bad.lmdb {says}"):
            list(oc22.read(bad))
    short = write_lmdb(tmp_path / "short.lmdb", [record(slab())], length=2)
    with pytest.raises(ValueError, match="record 1: it is missing"):
        list(oc22.read(short))
    rejected = []
    assert len(list(oc22.read(short, rejected=rejected))) == 1 and len(rejected) == 1


def test_an_lmdb_that_wants_to_run_something_is_refused_even_when_bad_records_are_left_out(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    path = write_lmdb(tmp_path / "a.lmdb", [Runs()])
    with pytest.raises(ValueError, match="record 0 asks for posix.mkdir, which is never loaded"):
        list(oc22.read(path, rejected=[]))
    assert not (tmp_path / "mark").exists()


def test_records_of_another_data_set(tmp_path):
    periodic = write_lmdb(tmp_path / "a.lmdb", [record(slab())])
    free = write_lmdb(tmp_path / "b.lmdb", [record(slab(), cell=None)])
    for read, path, says in [
        (ani1x.read, periodic, "has a cell, so it is not of ANI-1x"),
        (oc22.read, free, "has no cell, so it is not of OC22"),
        (transition1x.read, periodic, "has a cell, so it is not of Transition-1x"), (oc20.read, free, "is not of OC20"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=says):
            list(read(path))


# --- published files ------------------------------------------------------------------------------------------
RELAXATIONS = [path for folder in data_dirs() for path in folder.glob("oc20/*relaxations*.npz")]


@pytest.mark.skipif(not RELAXATIONS, reason="JMP_DATA names no folder with relaxations of OC20")
def test_published_oc20_relaxations():
    adsorbates = set()
    for structure in oc20.read(RELAXATIONS[0]):
        assert np.array_equal(structure["tags"] == 0, structure["fixed"]) and (structure["tags"] == 1).any()
        adsorbates.add((structure["group"], int((structure["tags"] == 2).sum())))
        assert structure["pbc"].all() and structure["energy"] < 0
    assert len(dict(adsorbates)) == len(adsorbates) == 30  # one adsorbate a system, the same in all its frames
    assert {n for _, n in adsorbates} <= set(range(1, 12))
