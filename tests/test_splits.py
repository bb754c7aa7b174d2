"""Split rules: official counts on the sizes alone, official MatBench folds, group-wise splits, mini splits."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import splits
from jmp_lib.data.tasks import FAMILIES, get_family
from jmp_lib.data.tasks import TASKS

FOLDS_FILE = "matbench/matbench_v0.1_validation.structure_tasks.json.gz"


# the official rule of each family: what its file applies to the whole set
OFFICIAL = {
    "qm9": lambda task, fold: splits.qm9(task.n_total),
    "rmd17": lambda task, fold: splits.rmd17(task.n_total, task.n_train, task.n_val),
    "md22": lambda task, fold: splits.md22(task.n_total, pool=task.n_train + task.n_val),
    "spice": lambda task, fold: splits.eighty_ten_ten(task.n_total),
    "qmof": lambda task, fold: splits.eighty_ten_ten(task.n_total),
    "matbench": lambda task, fold: splits.matbench(task.n_total, fold),
}


def official(task, fold=0):
    return OFFICIAL[task.family](task, fold)


def parts_of(split):
    return np.concatenate([split.train, split.val, split.test])


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.id)
def test_official_counts_of_every_task(task):
    split = official(task)
    assert split.counts == (task.n_train, task.n_val, task.n_test)
    assert sum(split.counts) == task.n_total
    rows = parts_of(split)
    assert np.array_equal(np.sort(rows), np.arange(task.n_total))  # every structure in one part only


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.family == "matbench"], ids=lambda task: task.id)
def test_official_counts_of_every_fold(task):
    assert task.n_folds == 5
    counts = tuple(official(task, fold).counts for fold in range(5))
    assert counts == task.fold_counts
    tests = np.concatenate([official(task, fold).test for fold in range(5)])
    assert np.array_equal(np.sort(tests), np.arange(task.n_total))


def test_the_order_is_the_legacy_shuffle_with_seed_42():
    # numpy.random.RandomState is frozen: these values hold for every numpy version
    assert splits.shuffled(10).tolist() == [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]
    split = splits.rmd17(2000)
    assert np.array_equal(parts_of(split), splits.shuffled(2000))  # train, val, test one after the other
    md22 = splits.md22(300, pool=200)
    assert md22.counts == (190, 10, 100)
    assert np.array_equal(md22.val, splits.shuffled(300)[190:200])


def test_eighty_ten_ten_gives_the_remainder_to_validation():
    assert splits.eighty_ten_ten(20375).counts == (16300, 2038, 2037)
    assert splits.eighty_ten_ten(1299).counts == (1039, 131, 129)


def test_matbench_folds_are_scikit_learns():
    from sklearn.model_selection import KFold

    for n in (636, 1265, 303):
        folds = KFold(5, shuffle=True, random_state=18012019).split(np.arange(n))
        for fold, (rest, test) in enumerate(folds):
            ours = splits.matbench_fold(n, fold)
            assert np.array_equal(ours[0], rest)
            assert np.array_equal(ours[1], test)


def test_matbench_folds_are_the_official_ones():
    root = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]
    if not root:
        pytest.skip("JMP_DATA is not set")
    path = Path(root) / FOLDS_FILE
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with gzip.open(path) as stream:
        official = json.load(stream)["splits"]
    tasks = [task for task in TASKS.values() if task.family == "matbench"]
    assert len(tasks) == len(official) == 8
    for task in tasks:
        for fold in range(5):
            parts = official[task.id][f"fold_{fold}"]
            for ours, key in zip(splits.matbench_fold(task.n_total, fold), ("train", "test"), strict=True):
                rows = [int(name.rsplit("-", 1)[1]) - 1 for name in parts[key]]
                assert ours.tolist() == rows, (task.id, fold, key)


def test_matbench_inner_split_stays_inside_the_fold():
    rest, test = splits.matbench_fold(1265, 3)
    split = splits.matbench(1265, 3)
    assert np.array_equal(split.test, test)
    assert np.array_equal(np.concatenate([split.train, split.val]), rest[splits.shuffled(len(rest))])
    assert len(split.train) == int(0.9 * len(rest))


def test_group_split_shares_no_group():
    rng = np.random.default_rng(1)
    group = rng.integers(0, 60, size=1500)
    val, train = splits.group_parts(group, (0.1,))
    assert not set(group[train]) & set(group[val])
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(1500))
    assert 0.1 <= len(val) / 1500 < 0.1 + np.bincount(group).max() / 1500
    again = splits.group_parts(group, (0.1,))
    assert np.array_equal(train, again[1])
    assert len(set(group[train[:100]])) > 30  # a cap keeps a mixture of groups
    with pytest.raises(ValueError, match="1 groups in 20 structures"):
        splits.group_parts(np.zeros(20), (0.1,))


@pytest.mark.parametrize(
    "family, n, counts",
    [
        ("qm9", 800, (600, 100, 100)),
        ("rmd17", 400, (200, 50, 150)),
        ("md22", 80, (40, 16, 24)),
        ("spice", 300, (240, 30, 30)),
        ("matbench", 300, (192, 48, 60)),
        ("qmof", 200, (140, 40, 20)),
    ],
)
def test_mini_splits(family, n, counts):
    split = FAMILIES[family].mini_split(n, 0)
    assert split.counts == counts
    assert len(np.unique(parts_of(split))) == sum(counts) == n
    capped = split.capped(train=10, test=5)
    assert capped.counts == (10, counts[1], 5)
    assert np.array_equal(capped.train, split.train[:10])
    assert capped.sha256 != split.sha256


def test_mini_splits_keep_the_official_test_parts():
    """Larger validation parts come out of the training parts."""
    assert FAMILIES["spice"].mini_split(300, 0).sha256 == splits.eighty_ten_ten(300).sha256
    assert FAMILIES["matbench"].mini_split(300, 2).test.tolist() == splits.matbench(300, 2).test.tolist()
    assert FAMILIES["qmof"].mini_split(200, 0).test.tolist() == splits.eighty_ten_ten(200).test.tolist()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: splits.qm9(20_000), "too few"),
        (lambda: splits.rmd17(1000), "1000 structures are too few for 950 train, 50 validation"),
        (lambda: splits.md22(6000, 6000), "too few"),
        (lambda: splits.eighty_ten_ten(5), "too few"),
        (lambda: splits.matbench(4), "too few"),
        (lambda: splits.matbench(300, 5), "no fold 5"),
        (lambda: FAMILIES["qm9"].check_fold(1), "only MatBench tasks have folds"),
        (lambda: get_family("qm8"), "no family 'qm8'"),
    ],
)
def test_impossible_splits_get_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
