"""Baselines: the mean, the composition, MACE where it is installed; their records."""

import dataclasses
import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jmp_lib import pool, records
from jmp_lib.__main__ import main
from jmp_lib.data.tasks import load_task_data
from jmp_lib.graphs import AddGraphs, collate
from jmp_lib.results import baselines, networks
from jmp_lib.results.baselines import linear_composition
from jmp_lib.results.values import baseline_table
from jmp_lib.settings import load_profile
from jmp_lib.train.loading import load
from jmp_lib.data.normalise import Normaliser, numbers_of, true_values
from jmp_lib.train.pretraining import pretrain

SMOKE = load_profile("smoke")


@pytest.mark.parametrize("extensive", [True, False])
def test_composition_finds_a_linear_law(extensive):
    rng = np.random.default_rng(0)
    molecules = [rng.choice([1, 6, 7, 8], size=rng.integers(2, 9)) for _ in range(60)]
    law = np.zeros(120)
    law[[1, 6, 7, 8]] = -13.6, -1030.0, -1480.0, -2040.0
    values = np.array([law[m].sum() if extensive else law[m].mean() for m in molecules])
    predicted = linear_composition(molecules[:40], values[:40], molecules[40:], extensive)
    assert np.abs(predicted - values[40:]).max() < 1e-2


def test_the_mean_is_that_of_the_training_labels(tmp_path):
    record = baselines.baseline(SMOKE, "qm9_mu", "mean", tmp_path)
    data = load_task_data("qm9_mu", caps={"train": 8, "val": 2, "test": 4})
    labels = [np.array([float(s[data.label]) for s in part]) for part in (data.train, data.test)]
    assert record["value"] == pytest.approx(np.abs(labels[1] - labels[0].mean()).mean() * data.task.print_factor)
    arrays = np.load(tmp_path / record["predictions"]["file"])
    assert len(set(arrays["predicted"])) == 1 and record["kind"] == "baseline" and record["data_kind"] == "generated"


def test_forces_have_no_mean(tmp_path):
    record = baselines.baseline(SMOKE, "rmd17_aspirin", "mean", tmp_path)
    arrays = np.load(tmp_path / record["predictions"]["file"])
    assert not arrays["predicted"].any() and record["value"] == pytest.approx(np.abs(arrays["true"]).mean())


def test_a_finished_record_is_not_made_again(tmp_path):
    baselines.baseline(SMOKE, "qm9_mu", "composition", tmp_path)
    path = tmp_path / "records" / "baselines" / "qm9_mu--composition.json"
    before = path.stat().st_mtime_ns
    baselines.baseline(SMOKE, "qm9_mu", "composition", tmp_path)
    assert path.stat().st_mtime_ns == before
    baselines.baseline(load_profile("smoke", seed=1), "qm9_mu", "composition", tmp_path)
    assert path.stat().st_mtime_ns != before and records.read_record(path)["seed"] == 1


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(ValueError, match="unknown baseline 'compositions'.*'composition'"):
        baselines.baseline(SMOKE, "qm9_mu", "compositions", tmp_path)
    with pytest.raises(ValueError, match="does not apply to rmd17_aspirin"):
        baselines.baseline(SMOKE, "rmd17_aspirin", "composition", tmp_path)
    with pytest.raises(FileNotFoundError, match="GN-OC-L"):
        baselines.baseline(SMOKE, "rmd17_aspirin", "mace", tmp_path)


def test_the_ridge_finds_what_the_composition_leaves():
    data = load_task_data("qm9_u0", caps={"train": 60, "test": 20})
    labels = [np.array([float(s[data.label]) for s in part]) for part in (data.train, data.test)]
    rest = [y - linear_composition(numbers_of(data.train), labels[0], numbers_of(part), True)
            for y, part in zip(labels, (data.train, data.test))]
    told = [(left / part.natoms)[:, None] for left, part in zip(rest, (data.train, data.test))]  # sums tell all of it
    assert np.abs(baselines.ridge(*told, data) - labels[1]).max() < 0.05 * np.abs(rest[1]).max()
    nothing = [np.ones((len(left), 1)) / part.natoms[:, None] for left, part in zip(rest, (data.train, data.test))]
    assert baselines.ridge(*nothing, data) == pytest.approx(labels[1] - rest[1],
                                                            abs=1e-2), "no more than the composition"


def test_frozen_embeddings_are_those_of_the_network_and_made_once(tmp_path):
    run = SimpleNamespace(profile=SMOKE.model_copy(update={"workers": 1}),
                          tasks=("qm9_mu", "qm9_alpha", "rmd17_aspirin"), results_dir=tmp_path)
    assert baselines.run_all(run, ["frozen"]) == [], "left out before the pre-training"
    with pytest.raises(FileNotFoundError, match="run notebook 03 first"):
        baselines.baseline(SMOKE, "qm9_mu", "frozen", tmp_path)
    pretrain(SMOKE, "small", tmp_path, progress=False)
    assert [outcome.error for outcome in baselines.run_all(run, ["frozen", "untrained"])] == [""] * 4
    kept = sorted((tmp_path / "work" / "embeddings").iterdir())
    assert len(kept) == 2, "two targets of one set share them; one file per network"
    records_ = {row.baseline: row.value for row in baseline_table(tmp_path).itertuples() if row.task == "qm9_mu"}
    assert set(records_) == {"frozen", "untrained"} and len(set(records_.values())) == 2
    data = load_task_data("qm9_mu", caps={"train": 8, "val": 2, "test": 4})
    model = load(tmp_path / "work" / "pretrain" / "small").model
    graphs = AddGraphs(SMOKE.graphs["qm9"])
    with torch.no_grad():
        mine = [model.embed(collate([graphs(s)])).mean(0).numpy() for s in data.test]
    found = [np.load(file)["test"] for file in kept]
    assert sum(np.allclose(mine, test, rtol=1e-4, atol=1e-5) for test in found) == 1


def test_the_table_has_a_row_per_record(tmp_path):
    assert baseline_table(tmp_path).empty
    for name in ("mean", "composition"):
        baselines.baseline(SMOKE, "qm9_mu", name, tmp_path)
    assert list(baseline_table(tmp_path)["baseline"]) == ["composition", "mean"]


def test_a_failed_baseline_is_seen_as_failed(tmp_path, monkeypatch, capsys):
    """The others are made, the outcome says why, `reproduce` finds it, and the command ends with 1."""
    whole = baselines.linear_composition

    def fails_for_mu(train, values, test, extensive):
        if np.ptp(values) < 10:
            raise ValueError("singular")
        return whole(train, values, test, extensive)

    monkeypatch.setattr(baselines, "linear_composition", fails_for_mu)
    run = SimpleNamespace(profile=SMOKE.model_copy(update={"workers": 1}),
                          tasks=("qm9_mu", "qm9_u0"), results_dir=tmp_path)
    outcomes = baselines.run_all(run, ["composition"])
    assert [(o.label, o.error) for o in outcomes if o.error] == [("qm9_mu composition", "ValueError: singular")]
    assert list(baseline_table(tmp_path)["task"]) == ["qm9_u0"] and pool.failures_file(tmp_path).is_file()
    assert "1 of 2 baseline runs failed" in capsys.readouterr().out
    command = ["baselines", "--profile", "smoke", "--results-dir", str(tmp_path), "--workers", "1",
               "--only", "composition", "--tasks"]
    assert main([*command, "qm9_mu,qm9_u0"]) == 1 and main([*command, "qm9_u0"]) == 0
    with pytest.raises(RuntimeError, match="singular"):
        baselines.run_all(SimpleNamespace(**{**vars(run), "tasks": ("qm9_mu",)}), ["composition"])


@pytest.mark.parametrize("task", ["rmd17_ethanol", "matbench_phonons"])
def test_schnet_learns_forces_and_properties(task, monkeypatch):
    """What it has seen, in 80 updates: a clock that goes on by 1 s with every look at it."""
    monkeypatch.setattr(networks.time, "process_time", itertools.count().__next__)
    data = load_task_data(task, caps={"train": 16, "val": 4, "test": 1})
    data = dataclasses.replace(data, test=data.train, val=data.train)
    predicted, about = networks.train_network("schnet", data, SMOKE.finetune_settings(data.task.family, task), 80, 0)
    true = true_values(data.test, data.label)
    assert about["updates"] == 80 and predicted.shape == true.shape
    assert about["best_val"] == pytest.approx(np.abs(predicted - true).mean(), rel=1e-4)
    assert about["best_val"] < 0.8 * np.abs(true - (0 if data.task.is_force_task else true.mean())).mean()


def test_schnet_sees_the_images_of_a_crystal():
    """A supercell has the property of its cell, and forces are the gradient of the energy."""
    data = load_task_data("matbench_phonons", caps={"train": 8, "val": 2, "test": 1})
    cell = data.test.arrays(0)
    double = {**cell, "pos": np.concatenate([cell["pos"], cell["pos"] + cell["cell"][0].astype(np.float32)]),
              "atomic_numbers": np.tile(cell["atomic_numbers"], 2), "cell": cell["cell"] * [[2.0], [1.0], [1.0]]}
    torch.manual_seed(0)
    model = networks._schnet("mean").double()
    frames = [networks._frame(one, "y", Normaliser(), 5.0) for one in (cell, double)]
    frames = [{key: value.double() if value.is_floating_point() else value for key, value in one.items()}
              for one in frames]
    first, second = networks._schnet_output(model, networks._joined(frames), False)
    assert first.item() == pytest.approx(second.item(), rel=1e-5)
    rattled = frames[0]["pos"] + 0.05 * torch.rand(len(frames[0]["pos"]), 3)
    step = torch.zeros_like(rattled)
    step[0, 0] = 1e-4
    moved = [{**frames[0], "pos": rattled + sign * step} for sign in (0, 1, -1)]
    _, ahead, behind = networks._schnet_output(model, networks._joined(moved), False).tolist()
    assert networks._schnet_output(model, networks._joined(moved[:1]), True)[0, 0].item() == pytest.approx(
        (behind - ahead) / 2e-4, rel=1e-2)


@pytest.mark.skipif(not networks.mace_available(), reason="MACE is not installed (make mace)")
def test_mace_learns_forces():
    data = load_task_data("rmd17_ethanol", caps={"train": 40, "val": 4, "test": 10})
    predicted, about = networks.train_network("mace", data, SMOKE.finetune_settings("rmd17", "rmd17_ethanol"), 10.0, 0)
    true = np.concatenate([s["forces"] for s in data.test])
    assert about["updates"] > 5 and np.abs(predicted - true).mean() < 0.8 * np.abs(true).mean()


def test_a_network_gets_its_seconds_of_the_processor_whatever_else_runs():
    model = torch.nn.Linear(1, 1)

    def loss(chosen):
        time.sleep(0.02)  # another program has the core
        return model(torch.tensor(chosen)).square().mean()

    found = networks.train_for(0.05, model, [[1.0]] * 8, loss, lambda: 1.0, batch=2, rate=0.01, seed=0)
    assert found["updates"] > 5 and found["seconds"] >= 0.05
