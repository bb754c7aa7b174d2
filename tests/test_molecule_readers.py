"""Readers of ANI-1x and Transition-1x: made-up files, bad files, and the published samples."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from jmp_lib import units
from jmp_lib.data import ani1x, oc22, transition1x

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
published = pytest.mark.skipif(not DATA, reason="JMP_DATA names no folder of published files")


def write_ani(path, n_frames=3, **changes):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for formula, numbers in {"C1H4": [6, 1, 1, 1, 1], "H2O1": [8, 1, 1]}.items():
            arrays = {
                "atomic_numbers": np.array(numbers, np.uint8),
                "coordinates": rng.normal(size=(n_frames, len(numbers), 3)).astype(np.float32),
                "wb97x_dz.energy": rng.normal(size=n_frames) - 40,
                "wb97x_dz.forces": rng.normal(size=(n_frames, len(numbers), 3)).astype(np.float32),
                "ccsd(t)_cbs.energy": np.full(n_frames, np.nan),
            }
            for key, value in (arrays | (changes if formula == "C1H4" else {})).items():
                if value is not None:
                    file[f"{formula}/{key}"] = value
    return path


def write_t1x(path, **changes):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for part, reactions in {"data": ("rxn0003", "rxn0012"), "train": ("rxn0003",), "val": ("rxn0012",)}.items():
            for reaction in reactions:
                arrays = {
                    "atomic_numbers": np.array([6, 1, 1, 8]),
                    "positions": rng.normal(size=(5, 4, 3)),
                    transition1x.ENERGY: rng.normal(size=5) - 3000,
                    transition1x.FORCES: rng.normal(size=(5, 4, 3)),
                }
                for key, value in (arrays | changes).items():
                    file[f"{part}/C1H2O1/{reaction}/{key}"] = value
                file[f"{part}/C1H2O1/{reaction}/reactant/positions"] = np.zeros((1, 4, 3))
    return path


def test_ani1x_is_converted_once(tmp_path):
    path = write_ani(tmp_path / "a.h5")
    found = list(ani1x.read(path))
    assert [s["sid"] for s in found] == [f"{formula}/{n}" for formula in ("C1H4", "H2O1") for n in range(3)]
    assert [s["id"] for s in found] == list(range(6)) and found[3]["group"] == "H2O1"
    with h5py.File(path) as file:
        group = file["H2O1"]
        assert found[4]["energy"] == group["wb97x_dz.energy"][1] * units.HARTREE_ASE
        assert np.allclose(found[4]["forces"], group["wb97x_dz.forces"][1] * 27.211386, rtol=1e-6)
        assert np.array_equal(found[4]["pos"], group["coordinates"][1])
    assert found[4]["atomic_numbers"].tolist() == [8, 1, 1] and not found[4]["pbc"].any()
    assert found[4]["tags"].tolist() == [2, 2, 2] and not found[4]["cell"].any()
    assert [s["group"] for s in found[3:]] == ["H2O1"] * 3


def test_ani1x_frames_without_labels_are_left_out(tmp_path):
    path = write_ani(tmp_path / "a.h5", **{"wb97x_dz.energy": np.array([-40.0, np.nan, -41.0])})
    rejected = []
    found = list(ani1x.read(path, rejected=rejected))
    assert [s["sid"] for s in found][:2] == ["C1H4/0", "C1H4/2"] and len(found) == 5
    assert rejected == [f"{path}: group C1H4, frame 1: no wb97x_dz label (NaN)"]
    path = write_ani(tmp_path / "b.h5", **{"wb97x_dz.energy": np.array([-40.0, np.inf, -41.0])})
    with pytest.raises(ValueError, match="group C1H4, frame 1: field 'energy' holds NaN or infinity"):
        list(ani1x.read(path))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"wb97x_dz.forces": None}, "group C1H4 has no 'wb97x_dz.forces' .* another kind of file"),
        ({"wb97x_dz.energy": np.zeros(2)}, "the numbers of frames differ"),
        ({"wb97x_dz.forces": np.zeros((3, 4, 3))}, r"field 'forces' has shape \(4, 3\)"),
        ({"atomic_numbers": np.array([6, 1, 1, 1, 0])}, "0 is not an element"),
        ({"atomic_numbers": np.array([6.5, 1, 1, 1, 0])}, "does not hold whole numbers"),
    ],
)
def test_ani1x_files_that_are_wrong(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        list(ani1x.read(write_ani(tmp_path / "a.h5", **changes)))


def test_transition1x_parts(tmp_path):
    path = write_t1x(tmp_path / "a.h5")
    found = list(transition1x.read(path))
    assert [s["sid"] for s in found] == [f"C1H2O1/{rxn}/{n}" for rxn in ("rxn0003", "rxn0012") for n in range(5)]
    assert [s["group"] for s in transition1x.read(path, part="val")] == ["C1H2O1/rxn0012"] * 5
    with h5py.File(path) as file:
        group = file["data/C1H2O1/rxn0012"]
        assert found[6]["energy"] == group[transition1x.ENERGY][1]
        assert np.array_equal(found[6]["forces"], group[transition1x.FORCES][1].astype(np.float32))
    with pytest.raises(ValueError, match="has no group 'test' "):
        list(transition1x.read(path, part="test"))


def test_hdf5_files_that_are_damaged_or_of_another_set(tmp_path):
    whole = write_ani(tmp_path / "a.h5", n_frames=50).read_bytes()
    bad = tmp_path / "bad.h5"
    for content, says in [
        (b"", "is empty"), (b"<html>", "is a web page"), (b"hello" * 500, "is not an HDF5 file"),
        (whole[: len(whole) // 2], "cannot be read"),
    ]:  # fmt: skip
        bad.write_bytes(content)
        for read in (ani1x.read, transition1x.read):
            with pytest.raises(ValueError, match=f"bad.h5 {says}"):
                list(read(bad))
    with pytest.raises(ValueError, match="has no group 'data' .*; get Transition1x.h5 from"):
        list(transition1x.read(tmp_path / "a.h5"))
    with pytest.raises(ValueError, match="group data has no 'coordinates' .*; get ani1x-release.h5 from"):
        list(ani1x.read(write_t1x(tmp_path / "t.h5")))


def test_ani1x_split_of_formulas():
    sizes = {f"C{n}": (n, 3 + n % 7) for n in range(200)}
    train, val, test = ani1x.split_formulas(sizes, n_held_out=3000)
    assert sorted(train + val + test) == sorted(name for name, (_, atoms) in sizes.items() if atoms >= 4)
    for part in (val, test):
        frames_of = [sizes[name][0] for name in part]
        assert sum(frames_of) >= 3000 > sum(frames_of[:-1])
    assert ani1x.split_formulas(dict(reversed(sizes.items())), n_held_out=3000) == (train, val, test)
    assert ani1x.split_formulas(sizes, n_held_out=3000, seed=1) != (train, val, test)
    with pytest.raises(ValueError, match="do not hold two parts"):
        ani1x.split_formulas(sizes)


# --- published files ------------------------------------------------------------------------------------------
@published
@pytest.mark.parametrize(
    ("read", "file"),
    [(oc22.read, "oc22/oc22_train"), (ani1x.read, "ani1x/ani1x_val"),
     (transition1x.read, "transition1x/trans1x_train")],
)
def test_published_records(read, file):
    found = list(read(Path(DATA) / f"{file}_pickle16.pkl"))
    copy = np.load(Path(DATA) / f"{file}_pickle16.npz")
    assert [s["energy"] for s in found] == copy["y"].tolist()
    assert [s["group"] for s in found] == copy["sid"].astype(str).tolist()
    for key, name in {"pos": "pos", "forces": "force", "atomic_numbers": "atomic_numbers", "tags": "tags"}.items():
        assert np.array_equal(np.concatenate([s[key] for s in found]), copy[name])


@published
def test_published_lmdb_of_transition1x():
    found = list(transition1x.read(Path(DATA) / "transition1x" / "horm_sample_100.lmdb"))
    copy = np.load(Path(DATA) / "transition1x" / "horm_sample_100.npz")
    assert [s["energy"] for s in found] == copy["energy"].tolist()
    assert np.array_equal(np.concatenate([s["forces"] for s in found]), copy["forces"])
    assert np.array_equal(np.concatenate([s["atomic_numbers"] for s in found]), copy["atomic_numbers"])


@published
def test_published_hdf5_of_ani1x():
    path = Path(DATA) / "ani1x" / "ani1x_n5.hdf5"
    found = list(ani1x.read(path))
    assert [s["sid"] for s in found][:2] == ["C1H4N4O4/0", "C1H4N4O4/1"] and len(found) == 8
    with h5py.File(path) as file:
        assert found[0]["energy"] == file["C1H4N4O4/wb97x_dz.energy"][0] * units.HARTREE_ASE
    for name in ("ani_gdb_s01.h5", "analog_C2H6_wB97x_EF_NMS.h5"):  # ANI-1, which is another data set
        with pytest.raises(ValueError, match="another kind of file.?; get ani1x-release.h5"):
            list(ani1x.read(path.with_name(name)))
