"""The published SPICE files: sign of the forces, units, subsets, order, the cut-out part, bad files."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from jmp_lib.data import spice, splits
from jmp_lib.data.tasks import load_task_data

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
real = pytest.mark.skipif(not DATA, reason="set JMP_DATA to the folder with the published files")
AMINO = "SPICE Solvated Amino Acids Single Points Dataset v1.1"
DIPEPTIDES = "SPICE Dipeptides Single Points Dataset v1.3"
OTHER = "SPICE PubChem Set 1 Single Points Dataset v1.2"


def molecule(n_atoms, n_frames, seed, subset, **changes):
    rng = np.random.default_rng(seed)
    made = {
        "atomic_numbers": rng.integers(1, 9, n_atoms).astype(np.int16),
        "conformations": rng.normal(size=(n_frames, n_atoms, 3)).astype(np.float32),
        "dft_total_energy": -100 - rng.random(n_frames),
        "formation_energy": -rng.random(n_frames),
        "dft_total_gradient": rng.normal(size=(n_frames, n_atoms, 3)).astype(np.float32),
        "mbis_charges": rng.random((n_frames, n_atoms, 1)),
        "subset": None if subset is None else [subset.encode()],
    } | changes
    return {key: value for key, value in made.items() if value is not None}


def write(path, molecules):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        for name, fields in molecules.items():
            for key, value in fields.items():
                file.create_dataset(f"{name}/{key}", data=value)
    return path


@pytest.fixture
def upstream(tmp_path):
    """A made-up upstream release whose molecules are stored out of the order of their names."""
    molecules = {
        "val": molecule(4, 3, 1, AMINO),
        "10001": molecule(2, 5, 2, OTHER),
        "ala": molecule(3, 8, 3, AMINO),
        "ala-ala": molecule(5, 2, 4, DIPEPTIDES),
    }
    return write(tmp_path / "spice" / "SPICE-1.1.4.hdf5", molecules), molecules


def test_units_sign_and_order(upstream):
    path, molecules = upstream
    read = list(spice.read(path, "solvated_amino_acids"))
    assert [s["sid"] for s in read] == [f"ala/{i}" for i in range(8)] + [f"val/{i}" for i in range(3)]
    assert [s["id"] for s in read] == list(range(11))
    hartree, bohr = 1 / 0.0367493, 0.529177
    for structure, (name, i) in zip(read, [("ala", i) for i in range(8)] + [("val", i) for i in range(3)]):
        raw = molecules[name]
        assert structure["group"] == name
        assert structure["atomic_numbers"].tolist() == raw["atomic_numbers"].tolist()
        assert np.allclose(structure["pos"], raw["conformations"][i] * bohr, rtol=1e-6)
        assert np.allclose(structure["forces"], -raw["dft_total_gradient"][i] * hartree / bohr, rtol=1e-6)
        assert structure["energy"] == pytest.approx(raw["dft_total_energy"][i] * hartree, rel=1e-14)
        assert structure["formation_energy"] == pytest.approx(raw["formation_energy"][i] * hartree, rel=1e-14)


def test_the_upstream_file_serves_both_tasks(upstream, tmp_path):
    data = load_task_data("spice_solvated_amino_acids", "published", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 1)
    order = splits.shuffled(11)
    assert data.train.ids.tolist() == order[:8].tolist()
    assert data.test.ids.tolist() == order[10:].tolist()
    assert data.name == "SPICE solvated_amino_acids, 11 of 1300 (published)"
    assert spice.find("dipeptides", tmp_path) == [upstream[0]]  # although too few to split
    with pytest.raises(ValueError, match="too few"):
        load_task_data("spice_dipeptides", "published", tmp_path)


@pytest.mark.parametrize("ends, found",
                         [("", 2), (" v1.2", 2), (" (subset)", 2), (" v1.3 (subset)", 2), (" with water", 0)])
def test_a_subset_by_its_name_and_what_may_follow(tmp_path, ends, found):
    path = write(tmp_path / "spice" / "SPICE-1.1.4.hdf5", {"ala": molecule(3, 2, 0, DIPEPTIDES[:-5] + ends)})
    if found:
        assert len(list(spice.read(path, "dipeptides"))) == found
    else:
        with pytest.raises(ValueError, match="no conformation of dipeptides"):
            list(spice.read(path, "dipeptides"))


def test_official_file_without_subset_field(tmp_path):
    write(tmp_path / "dipeptides.h5", {"a": molecule(3, 2, 1, None)})
    assert len(list(spice.read(tmp_path / "dipeptides.h5", "dipeptides"))) == 2
    (tmp_path / "dipeptides.h5").rename(tmp_path / "mine.h5")
    with pytest.raises(ValueError, match="does not say which subset"):
        list(spice.read(tmp_path / "mine.h5", "dipeptides"))


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no SPICE file with dipeptides in .*SPICE-1.1.4.hdf5 from https"):
        spice.load("dipeptides", tmp_path)
    with pytest.raises(ValueError, match="SPICE has no part 'pubchem'"):
        spice.load("pubchem", tmp_path)
    path = tmp_path / "SPICE-1.1.4.hdf5"
    bad = np.zeros((3, 4, 3), np.float32)
    bad[1, 2, 0] = np.nan
    write(path, {"ala": molecule(4, 3, 1, AMINO, dft_total_gradient=bad)})
    with pytest.raises(ValueError, match="ala/1: field 'forces' holds NaN"):
        list(spice.read(path, "solvated_amino_acids"))
    write(path, {"ala": molecule(4, 3, 1, AMINO, dft_total_gradient=np.zeros((3, 5, 3)))})
    with pytest.raises(ValueError, match=r"'dft_total_gradient' has shape \(3, 5, 3\)"):
        list(spice.read(path, "solvated_amino_acids"))
    write(path, {"ala": molecule(4, 3, 1, AMINO, dft_total_gradient=None)})
    with pytest.raises(ValueError, match="group ala has no 'dft_total_gradient'"):
        list(spice.read(path, "solvated_amino_acids"))
    write(path, {"C2H6": {"coordinates": np.zeros((1, 8, 3))}})
    with pytest.raises(ValueError, match="molecule C2H6 does not say which subset it is of"):
        list(spice.read(path, "solvated_amino_acids"))
    write(path, {"ala": molecule(40, 300, 1, AMINO)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be read"):
        list(spice.read(path, "solvated_amino_acids"))
    path.write_text("<html>")
    with pytest.raises(ValueError, match="web page"):
        list(spice.read(path, "solvated_amino_acids"))


@real
def test_published_statistics_are_reproduced():
    data = load_task_data("spice_solvated_amino_acids", "published", DATA)
    assert (len(data.train), len(data.val), len(data.test)) == (1040, 130, 130)
    assert data.name == "SPICE solvated_amino_acids (published)"
    energy = data.train.scalars["energy"]
    assert energy.mean() == pytest.approx(-60673.68, abs=5e-3)
    assert energy.std() == pytest.approx(3310.6692, rel=1e-7)
    std = np.sqrt(np.mean(data.train.forces.astype(float) ** 2))
    assert std * 0.529177 == pytest.approx(0.81945145, rel=1e-7)  # published: of eV/bohr
    assert std == pytest.approx(1.54854, abs=1e-5)


@real
def test_published_file_without_the_subset():
    with pytest.raises(ValueError, match="has no conformation of dipeptides"):
        list(spice.read(Path(DATA, "spice", "SPICE-1.1.4_n2.hdf5"), "dipeptides"))


@pytest.mark.skipif(os.pathsep not in os.environ.get("JMP_DATA", ""), reason="JMP_DATA names no second folder")
def test_the_sample_of_dipeptides():
    data = load_task_data("spice_dipeptides", "published", os.environ["JMP_DATA"].partition(os.pathsep)[2])
    assert len(data.train) + len(data.val) + len(data.test) == 717
