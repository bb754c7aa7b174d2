"""Pre-training on generated and published structures together."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from jmp_lib import facts
from jmp_lib.data.families import why_not
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.store import open_store
from jmp_lib.data.tasks import get_task, load_task_data
from jmp_lib.settings import load_profile
from jmp_lib.train.normalise import fit
from jmp_lib.train.sampling import Sampler

DATA = os.environ.get("JMP_DATA", "")


def references(train):
    return fit(iter(train)).energy().offset


def test_without_published_files_the_generated_ones_remain(tmp_path):
    both = load_pretraining_data("mini+published", data_root=tmp_path, fit=references)
    mini = load_pretraining_data("mini")
    for a, b in zip(both, mini):
        assert a.train.name == b.train.name and len(a.train) == len(b.train) and len(a.val) == len(b.val)
        np.testing.assert_array_equal(a.train.pos, b.train.pos)
        np.testing.assert_array_equal(a.train.forces, b.train.forces)
        reference = fit(iter(b.train)).energy()
        row = b.train[3]
        assert float(a.train[3]["energy"]) == pytest.approx(float(row["energy"]) - reference.offset(row["atomic_numbers"]), abs=1e-9)
        assert abs(np.mean(a.train.scalars["energy"])) < 1e-6


@pytest.mark.skipif(not Path(DATA, "oc20").is_dir(), reason="JMP_DATA with published samples is not set")
def test_published_samples_join_and_nothing_of_a_test_part_is_among_them():
    both = {s.name: s for s in load_pretraining_data("mini+published", data_root=DATA, fit=references)}
    mini = {s.name: s for s in load_pretraining_data("mini")}
    for name, s in both.items():
        assert len(s.train) > len(mini[name].train) and "+" in s.train.name
    seen = {_key(s) for one in both.values() for part in (one.train, one.val) for s in part}
    profile, compared = load_profile("published_small"), []
    for task in facts.tasks()["id"]:
        if task.startswith("qm9") and task != "qm9_mu":  # the other targets belong to the same molecules
            continue
        for fold in profile.folds_of(task):
            if why_not(get_task(task), DATA, fold=fold, thorough=True):
                continue
            limit = profile.finetune_settings(task.split("_")[0], task).max_test
            test = load_task_data(task, "published", DATA, caps={"test": limit, "train": 1, "val": 1}, fold=fold).test
            assert len(test) and not seen & {_key(s) for s in test}, task
            compared.append(task)
    assert len(set(compared)) >= 20


def _key(structure) -> tuple:
    """Elements and distances from the centre, sorted: the same for a moved, turned or reordered copy."""
    centred = np.asarray(structure["pos"], float) - np.asarray(structure["pos"], float).mean(axis=0)
    distances = np.round(np.linalg.norm(centred, axis=1), 2)
    return tuple(sorted(zip(structure["atomic_numbers"].tolist(), distances.tolist())))


def test_sets_that_are_not_sampled_are_never_drawn():
    sampler = Sampler.joint([10, 20, 30, 40], 2.0, 8, 0, [True, False, True, False])
    drawn = {which for step in range(sampler.batches_per_epoch) for which, _ in sampler.batch(step)}
    assert drawn == {0, 2}
    with pytest.raises(ValueError, match="no pre-training set is sampled"):
        Sampler.joint([10, 20], 2.0, 8, 0, [False, False])


def test_references_are_fitted_once_and_prepared_sets_stay_on_disk(tmp_path, monkeypatch):
    from tests.test_pretraining_files import make_all

    make_all(tmp_path)
    fitted = []

    def counted(train):
        fitted.append(train.name)
        return references(train)

    both = load_pretraining_data("mini+published", data_root=tmp_path, fit=counted)
    oc22 = both[1]
    assert fitted == [] and oc22.train.name == "oc22-mini+oc22"  # nothing is read yet
    mini = load_pretraining_data("mini")[1]
    n, published = len(mini.train), open_store(tmp_path / "stores" / "oc22")
    assert len(oc22.train) == n + 60 and oc22.train[n + 7].id == n + 7
    offset = references(published)
    for row in (0, 7, 59):
        assert float(oc22.train[n + row].energy) == float(published[row].energy) - offset(published[row].z)
        assert np.array_equal(oc22.train[n + row].forces, published[row].forces)
    again = pickle.loads(pickle.dumps(oc22.train[n:]))
    assert np.array_equal(again.scalars["energy"], oc22.train.scalars["energy"][n:]) and again.sha256 == oc22.train[n:].sha256
    assert list(oc22.val) and sorted(fitted) == ["oc22", "oc22-mini"]  # once for train and validation
    mixed = np.array([n + 3, 2, n + 1])
    assert np.array_equal(oc22.train[mixed].pos, np.concatenate([oc22.train[int(row)].pos for row in mixed]))
    in_memory = [array for array in vars(oc22.train.columns).values() if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in in_memory) < 20 * len(oc22.train)  # sizes alone
    with pytest.raises(ValueError, match="energies of oc22-mini beside those of another source need references"):
        load_pretraining_data("mini+published", data_root=tmp_path)[1].train[0]
