"""The plan: counts and ranges are those of the settings, memory grows with structures, and advice names the setting."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from jmp_lib import plan, plan_cost
from jmp_lib.graphs import GraphConfig
from jmp_lib.plan_cost import Cost, Size
from jmp_lib.settings import load_profile
from jmp_lib.sweep import read
from structures import methanol

plan_load = plan.load_pretraining_data

COST = Cost(
    seconds=(0.1, 0.001, 0.0), activations=(0.0, 1.0e6, 0.0), evaluation=0.3, parameters=30_000_000, measured="given"
)
COSTS = {(size, kind): COST for size in ("small", "large") for kind in plan_cost.HEADS}
BIG = plan.Machine("a device", True, 80e9, 1e15, 1e15)


def paper(**config):
    return read({"profile": "paper", **config})


def test_smoke_profile_writes_every_run(tmp_path, capsys):
    sweep = read({"profile": "smoke", "arms": "GN-OC-S,JMP-S", "results_dir": str(tmp_path)})
    assert plan.main(sweep, seconds=1.0) == 0
    runs, about = pd.read_csv(tmp_path / "plan/runs.csv"), json.loads((tmp_path / "plan/plan.json").read_text())
    assert len(runs) == len(about["runs"]) == 13 and (runs["run"] == "pre-training").sum() == 1
    assert (runs["hours_low"] > 0).all() and (runs["hours_high"] >= runs["hours_low"]).all()
    assert runs["does_not_fit"].isna().all() and (runs["counts"] == "data at hand").all()
    assert (runs.loc[runs["run"] == "fine-tuning", "updates_high"] == 4).all()
    assert "factor of about" in capsys.readouterr().out


def test_updates_follow_the_settings():
    """QM9: 110,831 structures in batches of 48; it stops between epoch 32 + 50 and epoch 500."""
    (row,) = plan.finetuning_rows(paper(tasks="qm9_mu", arms="GN-OC-S"), COSTS, BIG)
    epoch = -(-110831 // 48)
    assert (row["updates_low"], row["updates_high"], row["counts"]) == (82 * epoch, 500 * epoch, "published counts")
    assert row["seconds_per_update"] == pytest.approx(0.1 + 0.001 * 48 * row["edges"])
    assert row["atoms"] == pytest.approx(18.0)  # the published mean
    (row,) = plan.finetuning_rows(paper(tasks="qm9_mu", arms="GN-OC-S", max_steps=10), COSTS, BIG)
    assert row["updates_low"] == row["updates_high"] == 10


def test_folds_and_pretraining_are_counted():
    sweep = paper(tasks="matbench_phonons")
    rows = plan.pretraining_rows(sweep, COSTS, BIG) + plan.finetuning_rows(sweep, COSTS, BIG)
    assert [row["arm"] for row in rows[:2]] == ["JMP-S", "JMP-L"] and len(rows) == 22
    assert rows[0]["updates_high"] == pytest.approx(2 * 174049183 / 4, rel=1e-6)
    table = plan.totals(pd.DataFrame(rows))
    assert table["runs"].tolist()[-1] == 22 and table["hours to"].iloc[-1] == pytest.approx(
        table["hours to"].iloc[:-1].sum()
    )


@pytest.mark.parametrize(
    "machine, words",
    [
        (replace(BIG, device_bytes=4e9), "device memory: set max_edges: "),
        (replace(BIG, device_bytes=1e8), "device memory, even for one structure"),
        (replace(BIG, host_bytes=1e9), "host memory: smaller parts of a batch"),
    ],
)
def test_advice_names_the_setting(machine, words):
    (row,) = plan.finetuning_rows(paper(tasks="qm9_mu", arms="GN-OC-S"), COSTS, machine)
    found = row["does_not_fit"]
    assert found and re.search(words, found)
    (row,) = plan.finetuning_rows(paper(tasks="qm9_mu", arms="GN-OC-S", max_steps=10), COSTS, BIG)
    assert row["does_not_fit"] == ""


def test_the_micro_batch_that_is_named_fits():
    machine = replace(BIG, device_bytes=4e9)
    (row,) = plan.finetuning_rows(paper(tasks="qm9_mu", arms="GN-OC-S"), COSTS, machine)
    max_edges = int(row["does_not_fit"].split("max_edges: ")[1].split()[0])
    assert row["edges"] <= max_edges < 48 * row["edges"]
    half = (
        COST.state_bytes()
        + plan.BASE["device"]
        + plan.PEAK * plan.HALF * COST.activation_bytes(Size(1, max_edges, 0, 0))
    )
    assert half <= machine.device_bytes


def test_quadruplets_are_counted_as_pairs_of_neighbours():
    structure = methanol()
    found = plan_cost.measure(structure, GraphConfig(cutoff=12.0, max_neighbors=30, periodic=False))
    n = len(structure["pos"])
    assert (found.atoms, found.edges) == (n, n * (n - 1))
    assert found.quadruplets == n * (n - 1) * (n - 1) ** 2  # every atom sees every other one


def test_the_model_goes_through_what_was_measured():
    sizes = [Size(1, e, q, 0) for e, q in ((10, 100), (100, 500), (200, 9000), (1000, 2000))]
    steps = [(s, plan_cost.Step(0.2 + 0.01 * s.edges + 1e-5 * s.quadruplets, 0.1, 1e3 * s.edges)) for s in sizes]
    cost = plan_cost.fitted(steps, torch.nn.Linear(1, 1))
    assert cost.seconds == pytest.approx((0.2, 0.01, 1e-5), rel=1e-6)
    assert np.allclose(cost.activation_bytes(sizes[2]), 2e5)


def test_kept_bytes_grow_with_the_structure():
    profile = load_profile("smoke")
    model = plan_cost.new_network(profile, "small", "gradient_forces", torch.device("cpu"))
    steps = [
        plan_cost.one_step(model, batch, torch.device("cpu"), warm=False)
        for _, batch in plan_cost.probe_batches(profile, torch.device("cpu"))
    ]
    assert steps[-1].activations > 2 * steps[0].activations > 0


@pytest.mark.parametrize(
    "text, mean", [("mean 73", 73.0), ("2 to 63; mean 15", 15.0), ("26 to 60", 43.0), ("21", 21.0), (None, None)]
)
def test_published_mean_of_atoms(text, mean):
    assert plan.published_atoms(text) == mean


def test_pretraining_on_both_sources_counts_what_is_at_hand(tmp_path, monkeypatch):
    """Generated structures, and the published samples beside them."""
    profile = load_profile("published_small", data_root=str(tmp_path))
    alone = plan.pretraining_data(profile)
    more = {"oc20": ([methanol()] * 5000, [])}
    monkeypatch.setattr(plan, "load_pretraining_data", lambda *given: [
        one._replace(train=more[one.name][0]) if one.name in more else one
        for one in plan_load(*given)])
    assert alone.counts_from == "data at hand" and plan.pretraining_data(profile).n_train > alone.n_train


def test_a_fold_that_is_not_at_hand_is_not_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(plan, "load_task_data", lambda *_, fold, **__: tried.append(fold) or (_ for _ in ()).throw(ValueError))
    plan.at_hand.cache_clear()
    profile = load_profile("published_small", data_root="nowhere")
    assert profile.folds_of("matbench_mp_gap") == (1,)
    plan.finetuning_data(profile, "matbench_mp_gap", 1)
    plan.at_hand.cache_clear()
    assert tried == [1]
