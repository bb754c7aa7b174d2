"""The published rMD17 files: both layouts, units, splits, and what is said about bad files."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib import units
from jmp_lib.data import rmd17, splits
from jmp_lib.data.tasks import TASKS, load_task_data

ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1], dtype=np.uint8)


def frames(n, seed=0, **changes):
    """Arrays of an rMD17 file with ``n`` made-up frames of ethanol."""
    rng = np.random.default_rng(seed)
    made = {
        "nuclear_charges": ETHANOL,
        "coords": 30 * rng.normal(size=(n, 9, 3)),
        "energies": -97000 + rng.normal(size=n),
        "forces": rng.normal(size=(n, 9, 3)),
        "old_indices": np.arange(n) + 1_000_000 * seed,
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def write_parts(folder, n=100, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "rmd17_ethanol_train_01.npz", **frames(n, seed=1, **changes))
    np.savez(folder / "rmd17_ethanol_test_01.npz", **frames(n, seed=2))
    return folder


def test_parts_are_converted_once_and_split(tmp_path):
    write_parts(tmp_path / "rmd17", n=1000)
    data, split = rmd17.load("ethanol", tmp_path)
    raw = [frames(1000, seed=1), frames(1000, seed=2)]
    assert split.counts == (950, 50, 1000)
    assert np.array_equal(np.concatenate([split.train, split.val]), splits.shuffled(1000))
    assert np.array_equal(split.test, np.arange(1000, 2000))
    for row, (part, frame) in {7: (0, 7), 1003: (1, 3)}.items():
        assert data[row]["energy"] == raw[part]["energies"][frame] / 23.061
        assert np.allclose(data[row]["forces"], raw[part]["forces"][frame] * units.KCAL_PER_MOL, rtol=1e-6)
        assert np.array_equal(data[row]["pos"], raw[part]["coords"][frame].astype(np.float32))
        assert np.array_equal(data[row]["atomic_numbers"], ETHANOL)
    assert not data.periodic


@pytest.mark.parametrize("place", ["", "rmd17", "npz_data", "rmd17/npz_data", "raw/rmd17/npz_data"])
def test_archive_is_found_and_goes_before_the_parts(tmp_path, place):
    write_parts(tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    np.savez(tmp_path / place / "rmd17_ethanol.npz", **frames(1500))
    data, split = rmd17.load("ethanol", tmp_path)
    assert split.counts == (950, 50, 500)
    assert np.array_equal(np.concatenate([split.train, split.val, split.test]), splits.shuffled(1500))
    assert "1500 frames of rmd17_ethanol.npz" in data.description


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 0x01
    path.write_bytes(content)


def html(path):
    path.write_text("\n<html><body>404</body></html>")


def rewrite(**changes):
    return lambda path: np.savez(path, **frames(100, seed=1, **changes))


with_nan = frames(100, seed=1)["forces"]
with_nan[17, 3, 2] = np.nan
endless = frames(100, seed=1)["energies"]
endless[5] = np.inf


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.unlink(), "rmd17_ethanol_train_01.npz is missing"),
        (cut, "cannot be read"),
        (flip, "cannot be read"),
        (html, "is a web page"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (rewrite(coords=np.array([None])), "pickled"),
        (rewrite(forces=None), "has no array 'forces'"),
        (rewrite(forces=np.zeros((100, 8, 3))), r"array 'forces' has shape \(100, 8, 3\)"),
        (rewrite(coords=np.zeros((99, 9, 3))), r"array 'coords' has shape \(99, 9, 3\)"),
        (rewrite(energies=np.zeros((100, 1))), r"array 'energies' has shape \(100, 1\)"),
        (rewrite(energies=np.zeros(())), r"array 'energies' has shape \(\)"),
        (rewrite(energies=endless), "row 5, field 'energy' holds NaN or infinity"),
        (rewrite(forces=with_nan), "row 17, field 'forces' holds NaN or infinity"),
        (rewrite(nuclear_charges=np.full(9, 6)), "it has C9 where ethanol is C2H6O"),
        (rewrite(nuclear_charges=ETHANOL[::-1]), "list their atoms in different orders"),
        (rewrite(old_indices=frames(100, seed=2)["old_indices"]), "share frames"),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, spoil, words):
    folder = write_parts(tmp_path / "rmd17")
    spoil(folder / "rmd17_ethanol_train_01.npz")
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        load_task_data("rmd17_ethanol", data="published", data_root=tmp_path)
    message = str(caught.value)
    assert "rmd17_ethanol_train_01.npz" in message  # which file
    assert "https://figshare.com/" in message  # where it comes from
    assert f"put it in {tmp_path / 'rmd17'}" in message  # where to put it
    assert "\n" not in message


def test_no_flipped_bit_changes_the_numbers_silently(tmp_path):
    path = tmp_path / "rmd17_ethanol.npz"
    np.savez(path, **frames(20))
    good, before = path.read_bytes(), rmd17.read_arrays(path, "ethanol", "get it again")
    refused = 0
    for position in np.random.default_rng(4).integers(0, len(good), size=200):
        content = bytearray(good)
        content[position] ^= 0x10
        path.write_bytes(content)
        try:
            after = rmd17.read_arrays(path, "ethanol", "get it again")
        except ValueError:
            refused += 1
        else:  # a bit of the zip's own headers that carries no data
            assert all(np.array_equal(before[key], after[key]) for key in before), position
    assert refused > 150


def test_nothing_there_and_no_such_molecule(tmp_path):
    with pytest.raises(FileNotFoundError, match="no rMD17 file of aspirin.*figshare.*put it in"):
        rmd17.load("aspirin", tmp_path)
    with pytest.raises(ValueError, match="no molecule 'water'"):
        rmd17.load("water", tmp_path)
    with pytest.raises(ValueError, match="needs data_root"):
        load_task_data("rmd17_ethanol", data="published")


def test_the_molecules_are_those_of_the_tasks():
    assert sorted(rmd17.MOLECULES) == sorted(task.target for task in TASKS.values() if task.family == "rmd17")


# --- the real files ----------------------------------------------------------------------------------------


def real_root():
    root = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]
    if not root:
        pytest.skip("JMP_DATA is not set")
    if not (Path(root) / "rmd17").is_dir():
        pytest.skip(f"{root} has no folder rmd17")
    return Path(root)


def published_statistics(task_id):
    """(energy mean, energy deviation, force deviation) of the task, eV and eV/Å, from the facts."""
    from jmp_lib.paths import FACTS_DIR

    with open(FACTS_DIR / "tasks.csv", newline="", encoding="utf-8") as stream:
        row = next(row for row in csv.DictReader(stream) if row["id"] == task_id)
    return float(row["energy_mean"]), float(row["energy_std"]), float(row["std"])


@pytest.mark.parametrize("molecule", rmd17.MOLECULES)
def test_real_files_have_the_published_statistics(molecule):
    data = load_task_data(f"rmd17_{molecule}", data="published", data_root=real_root())
    assert (len(data.train), len(data.val), len(data.test)) == (950, 50, 1000)
    assert (data.data_kind, data.label) == ("published", "forces")
    mean, deviation, force = published_statistics(f"rmd17_{molecule}")
    # the published numbers are of another 950 frames of the same trajectory
    assert data.train.scalars["energy"].mean() == pytest.approx(-abs(mean), abs=5 * deviation / np.sqrt(950))
    assert data.train.scalars["energy"].std() == pytest.approx(deviation, rel=0.1)
    assert data.train.forces.std() == pytest.approx(force, rel=0.02)


def test_real_forces_pull_no_molecule_along():
    # forces of another frame, or of atoms in another order, would not sum to zero over each molecule
    data = load_task_data("rmd17_ethanol", data="published", data_root=real_root(), caps={"train": 100}).train
    net = np.array([structure["forces"].sum(axis=0) for structure in data])
    assert np.abs(net).max() < 0.02 * data.forces.std()
