"""Published files in several folders, and the samples of a pre-training set put together and split."""

import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib import paths
from jmp_lib.data import matbench, rmd17
from jmp_lib.data.catalog import entry
from jmp_lib.data.oc20 import read as read_oc20
from jmp_lib.data.pretraining import find, load_pretraining_data
from jmp_lib.settings import load_profile
from jmp_lib.train.joint_sets import heads, joint_sets


def two(tmp_path: Path) -> tuple[Path, Path, str]:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        (folder / "rmd17").mkdir(parents=True)
    return *folders, os.pathsep.join(map(str, folders))


def test_a_set_is_found_in_any_of_the_folders_and_new_files_go_into_the_first(tmp_path, monkeypatch):
    a, b, roots = two(tmp_path)
    monkeypatch.setenv("JMP_DATA", roots)
    assert paths.data_dirs() == [a, b] and paths.data_dir() == a and paths.data_root() == roots
    (b / "rmd17" / "rmd17_ethanol.npz").write_bytes(b"x")
    assert rmd17.find("ethanol", roots) == entry("rmd17-molecules").find(roots) == [b / "rmd17" / "rmd17_ethanol.npz"]
    assert f"put it in {a / 'rmd17'}" in rmd17.mend("ethanol", roots)
    (b / "matbench_more").mkdir()
    for ending in ("_subset", "_mp_structures"):  # the better of two forms, wherever they lie
        (b / "matbench_more" / f"matbench_mp_gap{ending}.json.gz").write_bytes(b"x")
    assert matbench.find("mp_gap", roots)[0].name == "matbench_mp_gap_mp_structures.json.gz"


def test_a_file_that_differs_between_two_folders_is_one_sentence(tmp_path):
    a, b, roots = two(tmp_path)
    for folder in (a, b):
        (folder / "rmd17" / "rmd17_ethanol.npz").write_bytes(b"x")
    assert rmd17.find("ethanol", roots) == [a / "rmd17" / "rmd17_ethanol.npz"]
    (b / "rmd17" / "rmd17_ethanol.npz").write_bytes(b"y")
    for ask in (lambda: rmd17.find("ethanol", roots), lambda: entry("rmd17-molecules").find(roots)):
        with pytest.raises(ValueError, match=f"rmd17_ethanol.npz lies in {a / 'rmd17'} and in {b / 'rmd17'} with "
                           "different contents; remove"):
            ask()


def relaxations(path: Path, systems: int = 12, frames: int = 4) -> None:
    """An npz of relaxations: a slab of two fixed and two free platinum atoms under CO."""
    rng, count = np.random.default_rng(0), systems * frames
    slab = np.array([[0, 0, 0], [2.8, 0, 0], [0, 0, 2.3], [2.8, 0, 2.3], [0, 0, 4.2], [0, 0, 5.4]], np.float32)
    np.savez(path, natoms=np.full(count, 6), atomic_numbers=np.tile(np.array([78, 78, 78, 78, 6, 8], np.uint8), count),
             fixed=np.tile([True, True, False, False, False, False], count),
             cell=np.tile(20 * np.eye(3, dtype=np.float32), (count, 1, 1)),
             pos=(slab + rng.normal(0, 0.1, (count, 6, 3))).reshape(-1, 3).astype(np.float32),
             energy=rng.normal(-30, 1, count), force=rng.normal(0, 1, (6 * count, 3)).astype(np.float32),
             sid=np.repeat(np.arange(systems), frames), fid=np.tile(np.arange(frames), systems))  # fmt: skip


def frames(path: Path, formulas: list[str], seed: int) -> None:
    """An npz of ANI-1x frames, five of each formula."""
    rng, symbols = np.random.default_rng(seed), {"C": 6, "N": 7}
    numbers = [[1, 1, 8, *(symbols[letter] for letter in text)] for text in formulas for _ in range(5)]
    atoms = sum(map(len, numbers))
    np.savez(path, natoms=[len(one) for one in numbers], atomic_numbers=np.array(sum(numbers, []), np.uint8),
             energy=rng.normal(-40, 1, len(numbers)), coordinates=rng.normal(0, 3, (atoms, 3)).astype(np.float32),
             forces=rng.normal(0, 0.1, (atoms, 3)).astype(np.float32),
             formula=np.array([text for text in formulas for _ in range(5)]))  # fmt: skip


def test_samples_of_two_folders_are_one_set_split_by_groups(tmp_path):
    a, b, roots = two(tmp_path)
    for folder in (a / "oc20", a / "ani1x", b / "ani1x"):
        folder.mkdir()
    relaxations(a / "oc20" / "two_relaxations.npz")
    frames(a / "ani1x" / "ani1x_truncated_1.npz", ["C" * n for n in range(1, 8)], 0)
    frames(b / "ani1x" / "ani1x_truncated_2.npz", ["C", "CC", *("N" * n for n in range(1, 8))], 1)
    (_, rows), (whole, held) = find("ani1x", roots)()
    assert len(whole) == 80 and len(held) >= 8 and not set(whole.group[rows]) & set(whole.group[held])
    assert len(set(whole.group[np.char.endswith([one.sid for one in whole], "C/0")])) == 1  # of both files
    found = load_pretraining_data("mini+published", {"ani1x": {"train": 30}}, roots)
    assert ([one.name for one in found] == ["oc20", "oc22", "ani1x", "transition1x", "oc20", "ani1x"]
            and len(found[5].train) == 30)
    assert list(heads(joint_sets(load_profile("smoke", data_root=roots,
                                              **{"pretraining.data": "mini+published"}))))[4:] == [
                                                  "oc20-published", "ani1x-published"]  # fmt: skip


def test_relaxations_of_arrays_get_tags_and_keep_their_systems(tmp_path):
    relaxations(tmp_path / "some_relaxations.npz", systems=2)
    first, *rest = read_oc20(tmp_path / "some_relaxations.npz")
    assert (first["sid"], first["group"], len(rest)) == ("random0/0", "random0", 7)
    assert first["tags"].tolist() == [0, 0, 1, 1, 2, 2] and first["fixed"].tolist() == [True, True] + 4 * [False]
