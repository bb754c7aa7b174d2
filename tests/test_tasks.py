"""The 40 tasks and their data."""

import csv
import json

import numpy as np
import pytest

from jmp_lib.data import mini, splits, tasks
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.files import file_sha256
from jmp_lib.data.tasks import TASKS, get_task, load_task_data
from jmp_lib.paths import FACTS_DIR


def test_the_forty_tasks():
    assert len(TASKS) == 40
    families = [task.family for task in TASKS.values()]
    assert {family: families.count(family) for family in FAMILIES} == {
        "qm9": 12,
        "rmd17": 10,
        "md22": 7,
        "spice": 2,
        "matbench": 8,
        "qmof": 1,
    }
    with open(FACTS_DIR / "tasks.csv", newline="", encoding="utf-8") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == list(TASKS)


def test_heads_and_reductions_of_the_run_script():
    heads = {task.id: task.head for task in TASKS.values()}
    assert [task for task, head in heads.items() if head == "spatial_extent"] == ["qm9_r2"]
    direct = [task for task in TASKS.values() if task.head == "direct_forces"]
    assert {task.id for task in direct} == {"md22_ac-ala3-nhme", "md22_double-walled-nanotube"}
    for task in TASKS.values():
        assert task.is_force_task == task.head.endswith("forces") == (task.metric == "force MAE")
        assert task.is_force_task == (task.family in ("rmd17", "md22", "spice"))
    assert get_task("matbench_phonons").reduction == "max"
    assert {task.reduction for task in TASKS.values() if task.family == "qm9"} == {"sum"}


def test_printed_units():
    factors = {task.id: task.print_factor for task in TASKS.values()}
    assert factors["qm9_u0"] == factors["rmd17_aspirin"] == factors["matbench_mp_e_form"] == 1000
    assert factors["matbench_jdft2d"] == factors["matbench_mp_gap"] == factors["qm9_mu"] == factors["qmof_bandgap"] == 1
    assert sum(factor == 1000 for factor in factors.values()) == 8 + 19 + 1


def test_unknown_task_names_the_nearest():
    with pytest.raises(ValueError, match="no task 'qm9_epshomo'.*qm9_eps_homo"):
        get_task("qm9_epshomo")


def write_set(folder, name, n, *, scalars=(), forces=False, cell=False, groups=None):
    """A mini set of ``n`` random three-atom structures with a card."""
    rng = np.random.default_rng(5)
    stored = {
        "natoms": np.full(n, 3, np.int32),
        "pos": 30 * rng.normal(size=(3 * n, 3)).astype(np.float32),
        "numbers": np.tile([8, 1, 1], n).astype(np.uint8),
        "group_names": np.array([f"g{i}" for i in range(groups or n)]),
        "group": (np.arange(n) if groups is None else np.arange(n) % groups).astype(np.int32),
    }
    stored |= {key: rng.normal(size=n) for key in scalars}
    stored |= {"forces": rng.normal(size=(3 * n, 3)).astype(np.float32)} if forces else {}
    stored |= {"cell": np.tile(np.eye(3, dtype=np.float32) * 4, (n, 1, 1))} if cell else {}
    np.savez_compressed(folder / f"{name}.npz", **stored)
    about = {
        "name": name,
        "stands_for": "TOY",
        "level_of_theory": "GFN2-xTB (tblite); y: none (made up)",
        "sha256": file_sha256(folder / f"{name}.npz"),
    }
    (folder / f"{name}.card.json").write_text(json.dumps(about))


@pytest.fixture
def toy_mini(tmp_path, monkeypatch):
    """Toy files in place of the shipped mini sets."""
    write_set(tmp_path, "qm9-mini", 800, scalars=["mu", "R2"])
    write_set(tmp_path, "rmd17-mini-ethanol", 400, scalars=["energy"], forces=True)
    write_set(tmp_path, "matbench-mini-phonons", 300, scalars=["y"], cell=True)
    for name in tasks.PRETRAINING_SETS.values():
        write_set(tmp_path, name, 200, scalars=["energy"], forces=True, groups=20)
    monkeypatch.setattr(mini.load_mini, "__defaults__", (tmp_path,))
    monkeypatch.setattr(mini.card, "__defaults__", (tmp_path,))
    return tmp_path


@pytest.mark.parametrize(
    "task_id, fold, counts",
    [("qm9_mu", 0, (600, 100, 100)), ("rmd17_ethanol", 0, (200, 50, 150)), ("matbench_phonons", 4, (192, 48, 60))],
)
def test_task_data(toy_mini, task_id, fold, counts):
    data = load_task_data(task_id, fold=fold)
    assert (len(data.train), len(data.val), len(data.test)) == counts
    assert data.label in data.train[0]
    assert data.data_kind == "generated"
    assert data.name == f"{data.task.mini_name} (GFN2-xTB; y: none)"
    ids = np.concatenate([data.train.ids, data.val.ids, data.test.ids])
    assert len(np.unique(ids)) == sum(counts)
    assert data.train.periodic == (data.task.family == "matbench")
    assert data.split_sha256 == splits.Split(data.train.ids, data.val.ids, data.test.ids).sha256
    assert data.data_sha256 == mini.load_mini(data.task.mini_name).sha256
    again = load_task_data(task_id, fold=fold)
    assert (again.data_sha256, again.split_sha256) == (data.data_sha256, data.split_sha256)


def test_caps_take_the_first_and_change_the_split_hash(toy_mini):
    whole = load_task_data("qm9_mu")
    capped = load_task_data("qm9_mu", caps={"train": 32, "val": None})
    assert np.array_equal(capped.train.ids, whole.train.ids[:32])
    assert np.array_equal(capped.test.ids, whole.test.ids)
    assert capped.split_sha256 != whole.split_sha256
    assert capped.data_sha256 == whole.data_sha256


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"caps": {"trian": 3}}, "unknown key 'trian'.*'train'"),
        ({"caps": {"train": 0}}, "at least 1"),
        ({"data": "real"}, "data is 'real'"),
        ({"data": "published"}, "data='published' needs data_root.*qm9_v3.pt"),
        ({"fold": 1}, "only MatBench tasks have folds"),
    ],
)
def test_wrong_requests_get_one_sentence(toy_mini, arguments, words):
    with pytest.raises(ValueError, match=words):
        load_task_data("qm9_mu", **arguments)


def test_a_set_without_the_label(toy_mini):
    with pytest.raises(ValueError, match="qm9-mini has no label 'alpha' for qm9_alpha"):
        load_task_data("qm9_alpha")


def test_pretraining_sets_share_no_group(toy_mini):
    sets = load_pretraining_data(caps={"oc22": {"train": 50, "val": 7}})
    assert [name for name, _, _ in sets] == ["oc20", "oc22", "ani1x", "transition1x"]
    for name, train, val in sets:
        assert (len(train), len(val)) == ((50, 7) if name == "oc22" else (180, 20))
        assert not set(train.group) & set(val.group)
        assert {"energy", "forces"} <= set(train[0].keys())
    with pytest.raises(ValueError, match="unknown key 'oc21'"):
        load_pretraining_data(caps={"oc21": {"train": 5}})
    with pytest.raises(ValueError, match="can be 'mini', 'large', 'published', 'mini.published' or 'large.published'"):
        load_pretraining_data("maxi")


@pytest.mark.parametrize(
    "task", [t for t in TASKS.values() if t.mini_name in mini.list_mini()], ids=lambda task: task.id
)
def test_shipped_mini_data_serves_the_task(task):
    data = load_task_data(task.id)
    about = mini.card(task.mini_name)
    unit = about["units"][task.label].replace("Å", "A")
    assert unit == task.label_unit
    assert data.train.periodic == (task.family in ("matbench", "qmof"))
    assert min(len(data.train), len(data.val), len(data.test)) >= 8
    if not task.is_force_task:
        assert np.ptp(data.test.scalars[task.label]) > 0


def test_pretraining_validation_has_no_element_that_training_lacks():
    for name, train, val in load_pretraining_data("mini"):
        seen = set(train.atomic_numbers.tolist())
        assert seen.issuperset(val.atomic_numbers.tolist()), name
        assert not set(train.group[: len(train)].tolist()) & set(val.group.tolist()), name
