"""What makes an error a test error: nothing of a test part is trained on, splits are official,
a test part is looked at once."""

import gzip
import json
import os

import networkx as nx
import numpy as np
import pytest
from ase.data import covalent_radii
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from jmp_lib.data.structures import to_set
from jmp_lib.data.copies import shared
from jmp_lib.data.tasks import why_not
from jmp_lib.data.formats import folders_of, matching
from jmp_lib.data.matbench import official_id
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.tasks import TASKS, load_task_data
from jmp_lib.paths import data_dirs, data_root
from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning

HERE = [folder for folder in data_dirs() if (folder / "oc20").is_dir() or (folder / "matbench").is_dir()]
published = pytest.mark.skipif(not os.environ.get("JMP_DATA") or not HERE,
                               reason="JMP_DATA names no folder of published files")
# the targets of QM9 share their molecules
ONE_OF_A_SET = {(task.family, task.mini_name): task.id for task in TASKS.values()}.values()


def rewritten(structure: dict) -> list[dict]:
    """A structure as it is, turned, in another order and place (in a cell: wrapped into another image),
    in a cell of twice the size."""
    turn, rng, crystal = Rotation.random(random_state=1).as_matrix(), np.random.default_rng(0), structure["pbc"].any()
    order, pos, cell = rng.permutation(len(structure["pos"])), structure["pos"].astype(float), structure["cell"]
    numbers = structure["atomic_numbers"]
    moved = pos[order] + (rng.integers(-2, 3, pos.shape) @ cell if crystal else 1.0)
    forms = [(pos, numbers, cell), (pos @ turn.T, numbers, cell @ turn.T), (moved, numbers[order], cell)]
    if crystal:
        forms.append((np.concatenate([pos, pos + cell[2]]), np.tile(numbers, 2), cell * [[1], [1], [2]]))
    return [{"pos": p.astype(np.float32), "atomic_numbers": z, "cell": c, "pbc": structure["pbc"], "id": row}
            for row, (p, z, c) in enumerate(forms)]  # fmt: skip


@pytest.mark.parametrize("task", ["matbench_mp_gap", "rmd17_ethanol"])
def test_the_search_finds_a_test_structure_in_any_writing(task):
    test = load_task_data(task, caps={"test": 5}).test
    trained = to_set("trained", [form for form in rewritten(test.arrays(2))])
    assert shared(test, trained).tolist() == [[2, row] for row in range(len(trained))]


@published
def test_no_published_test_structure_is_in_a_pretraining_part():
    """Test parts of every task at hand, as large as published_small takes them, against
    generated and published sets."""
    profile, trained = load_profile("published_small"), [part for one in load_pretraining_data("mini+published")
                                                         for part in one[1:]]
    compared = 0
    for task in ONE_OF_A_SET:
        for fold in profile.folds_of(task):
            if why_not(TASKS[task], data_root(), fold=fold, thorough=True):
                continue
            limit = profile.finetune_settings(TASKS[task].family, task).max_test
            data = load_task_data(task, "published", data_root(), caps={"test": limit, "train": 1, "val": 1}, fold=fold)
            compared += len(data.test) > 0
            for whole in trained:
                pairs = shared(data.test, whole)
                assert not len(pairs), f"{task} fold {fold}: {len(pairs)} of its test part are in {whole.name}"
    assert compared >= 10


def molecules(structure) -> list[str]:
    """Hashes of the molecules of a structure that is not periodic: elements and bonds (1.25 times the
    sum of covalent radii)."""
    numbers, pos = np.asarray(structure["atomic_numbers"]), np.asarray(structure["pos"], float)
    radii = covalent_radii[numbers]
    bonds = (cdist(pos, pos) < 1.25 * (radii[:, None] + radii)) & ~np.eye(len(pos), dtype=bool)
    graph = nx.from_numpy_array(bonds)
    nx.set_node_attributes(graph, {atom: str(z) for atom, z in enumerate(numbers)}, "z")
    return [nx.weisfeiler_lehman_graph_hash(graph.subgraph(one), node_attr="z")
            for one in nx.connected_components(graph)]


@published
def test_the_molecules_of_tasks_in_the_published_samples_are_those_that_are_listed():
    """What docs/data.md says; of MD22 the small systems that stand for it (one holds benzene),
    of SPICE none is looked at."""
    tasks = [task for task in TASKS.values() if task.family in ("rmd17", "md22")]
    known = {one: task.id for task in tasks[::-1]
             for one in molecules(load_task_data(task.id, caps={"train": 1}).train[0])}
    found = {known[one] for sample in load_pretraining_data("published") if sample.name in ("ani1x", "transition1x")
             for part in sample[1:] for structure in part for one in molecules(structure) if one in known}
    assert found == {f"rmd17_{name}" for name in ("benzene", "uracil", "ethanol", "aspirin")}


@published
def test_matbench_test_parts_are_those_of_the_official_folds():
    files = matching("matbench_v0.1_validation*.json.gz", folders_of("matbench", data_root()))
    if not files:
        pytest.skip("the official folds are not at hand")
    with gzip.open(files[0]) as stream:
        official = json.load(stream)
    official = official.get("splits", official)
    for name in ("jdft2d", "phonons", "log_kvrh"):
        for fold in (0, 3):
            if why_not(TASKS[f"matbench_{name}"], data_root(), fold=fold):
                continue
            data, folds = (load_task_data(f"matbench_{name}", "published", data_root(), fold=fold),
                           official[f"matbench_{name}"])
            ids = [{official_id(name, int(row)) for row in part.ids} for part in (data.train, data.val, data.test)]
            assert (ids[2] <= set(folds[f"fold_{fold}"]["test"])
                    and ids[0] | ids[1] <= set(folds[f"fold_{fold}"]["train"]))
            assert not ids[0] & ids[1]


def test_a_test_part_is_looked_at_once_and_last(tmp_path, monkeypatch):
    looked, whole = [], finetuning.predict
    monkeypatch.setattr(finetuning, "predict",
                        lambda model, part, *rest: looked.append(part) or whole(model, part, *rest))
    profile = load_profile("smoke", **{"finetuning.defaults.max_val": 3, "finetuning.defaults.max_test": 5})
    record = finetuning.finetune(profile, "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    assert len(record["history"]) == len(looked) - 1 >= 1
    assert id(looked[-1]) not in map(id, looked[:-1]) and len(set(map(id, looked[:-1]))) == 1
