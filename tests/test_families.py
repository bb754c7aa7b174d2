"""The one registry of families: a family from outside, prepared sets in place of original files,
what importing costs."""

import csv
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from jmp_lib import facts
from jmp_lib.data import cli, tasks
from jmp_lib.data.tasks import (
    FAMILIES, TASKS, Family, add_tasks, get_family, get_task, load_published,
    load_task_data, prepare_task, register, store_path, why_not,
)  # fmt: skip
from jmp_lib.settings import load_profile
from tests.test_rmd17 import write_parts

READER = '''
from pathlib import Path
import numpy as np
from jmp_lib.data import splits
from jmp_lib.data.structures import StructureSet

def mend(name, root="DATA_ROOT"):
    return f"put toy.npz into {root}"

def find(name, root):
    path = Path(root) / "toy.npz"
    if not path.is_file():
        raise FileNotFoundError(f"no toy file in {root}; {mend(name, root)}")
    return [path]

def load(name, root, fold=0):
    (path,) = find(name, root)
    arrays = np.load(path)
    data = StructureSet.from_arrays("toy", arrays["natoms"], arrays["pos"], arrays["z"],
                                    scalars={"width": arrays["width"]})
    return data, splits.consecutive(len(data), len(data) - 10, 5)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A family that no file of the package names, with "_" in its name: its reader, its row, its task and its data."""
    (tmp_path / "toy_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(facts, "_MORE_TASKS", [])
    with open(facts.FOLDER / "tasks.csv", newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    row |= {"id": "toy_box_width", "family": "toy_box", "target": "width", "label": "width", "unit_in_loader": "A",
            "unit_printed": "A", "n_train": 30, "n_val": 5, "n_test": 5, "n_total": 40,
            "reduction_run_script": "mean"}  # fmt: skip
    with open(tmp_path / "tasks.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row)
        writer.writeheader(), writer.writerow(row)
    rng = np.random.default_rng(0)
    natoms = rng.integers(3, 6, 40)
    pos = rng.uniform(0, 2.5, (natoms.sum(), 3))
    ends = np.cumsum(natoms)
    np.savez(tmp_path / "toy.npz", natoms=natoms, pos=pos, z=rng.choice([1, 6, 8], natoms.sum()),
             width=[np.ptp(pos[end - n : end, 0]) for n, end in zip(natoms, ends)])  # fmt: skip
    register(Family("toy_box", "Toy", "toy_reader", "tasks", "20_toy", lambda n, fold: None, domain="MOFs",
                    graph={"cutoff": 5.0, "max_neighbors": 12, "periodic": False}))  # fmt: skip
    add_tasks(tmp_path / "tasks.csv")
    yield tmp_path
    del FAMILIES["toy_box"], TASKS["toy_box_width"]
    sys.modules.pop("toy_reader", None)


def test_a_family_from_outside_runs_from_its_file_to_the_table(toy):
    from jmp_lib.results.overview import method
    from jmp_lib.results.tables import write_tables
    from jmp_lib.train.finetuning import finetune
    from jmp_lib.workbook import start

    data = load_task_data("toy_box_width", data="published", data_root=toy)
    assert (len(data.train), len(data.val), len(data.test)) == (30, 5, 5) and data.name == "toy (published)"
    nowhere = toy / "nowhere"
    assert why_not(get_task("toy_box_width"), nowhere) == f"no toy file in {nowhere}; put toy.npz into {nowhere}"
    parameters = {"profile": "smoke", "data": "published", "data_root": str(toy), "results_dir": str(toy / "out"),
                  "tasks": ["width"], "arms": None, "max_steps": 2, "max_eval": 3}  # fmt: skip
    run = start(parameters, tuple(parameters), family="toy_box")
    assert run.tasks == ("toy_box_width",) and run.profile.graphs["toy_box"].cutoff == 5.0
    record = finetune(run.profile, "toy_box_width", "GN-OC-S", run.results_dir, progress=False)
    assert record["task"] == "toy_box_width" and record["data_sha256"] == data.data_sha256 and record["value"] > 0
    assert (record["n_val"], record["n_test"]) == (3, 3)  # max_eval changes settings of the family
    write_tables(run.results_dir)
    assert "Toy, 1 task" in {text.get_text() for text in method().axes[0].texts}
    table = (run.results_dir / "tables" / "all_tasks.csv").read_text().splitlines()
    assert any(line.startswith("toy_box_width,toy_box,") for line in table), table[-1]


def test_what_is_there_already_is_refused(toy):
    with pytest.raises(ValueError, match="there is a family 'toy_box' already"):
        register(FAMILIES["toy_box"])
    with pytest.raises(ValueError, match="there is a task 'toy_box_width' already"):
        add_tasks(toy / "tasks.csv")
    with pytest.raises(ValueError, match="there is no family 'toy'.*toy_box"):
        get_family("toy")


def test_a_prepared_set_serves_in_place_of_the_files(toy, monkeypatch):
    task = get_task("toy_box_width")
    whole, split = load_published(task, toy)
    store = prepare_task(task, toy, {"licence": "none"})
    assert store.path == store_path(task, toy) == toy / "stores" / "toy_box-width"
    tasks._load.cache_clear()
    again, same = load_published(task, toy)
    assert again.path and again.sha256 == whole.sha256 and same.sha256 == split.sha256
    assert np.array_equal(again.subset(same.test).scalars["width"], whole.subset(split.test).scalars["width"])
    (toy / "toy.npz").rename(toy / "away.npz")
    tasks._load.cache_clear()
    assert (load_published(task, toy)[0].path and why_not(task, toy) is None
            and why_not(task, toy, thorough=True) is None)
    (toy / "toy.npz").write_bytes((toy / "away.npz").read_bytes())  # another file than the one that was prepared
    tasks._load.cache_clear()
    assert load_published(task, toy)[0].path is None
    with pytest.raises(ValueError, match="is a store made from other files or settings; remove it"):
        prepare_task(task, toy, {})


def test_the_command_prepares_every_set_of_a_family_at_hand(tmp_path):
    write_parts(tmp_path / "rmd17")
    before = load_task_data("rmd17_ethanol", "published", tmp_path)
    (store,) = cli.prepare("rmd17", tmp_path, progress=False)
    assert store.path == tmp_path / "stores" / "rmd17-ethanol" and store.about["card"]["dataset"] == "rMD17"
    tasks._load.cache_clear()
    after = load_task_data("rmd17_ethanol", "published", tmp_path)
    assert (after.data_sha256, after.split_sha256) == (before.data_sha256, before.split_sha256) and after.train.path
    assert all(np.array_equal(a.forces, b.forces) and a.energy == b.energy
               for a, b in zip(after.test, before.test, strict=True))
    assert "1 store" in cli.table(tmp_path).set_index("name").loc["rmd17", "present"]


def test_settings_and_tasks_import_no_reader():
    code = """
        import sys
        from jmp_lib.settings import load_profile
        load_profile("mini")
        names = ("qm9", "rmd17", "md22", "spice", "matbench", "qmof", "pretraining", "store")
        readers = {f"jmp_lib.data.{name}" for name in names}
        assert not readers & set(sys.modules), readers & set(sys.modules)
        assert "h5py" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_every_family_has_a_notebook_and_tasks():
    assert set(FAMILIES) == {task.family for task in tasks.TASKS.values()}
    assert all(get_family(name).subset in ("targets", "molecules", "tasks") for name in FAMILIES)
    assert set(load_profile("paper").graphs) > set(FAMILIES)
