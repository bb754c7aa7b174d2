"""The plan: counts and ranges are those of the settings, memory and time grow with structures,
what does not fit is said."""

import dataclasses

import pandas as pd
import pytest
import torch

from jmp_lib.graphs import GraphConfig
from jmp_lib.settings import load_profile
from jmp_lib.sweep import read
from structures import methanol
from tools import plan
from tools.plan import Cost

COST = Cost((0.1, 0.001), (0.0, 1.0e6), 30_000_000)
COSTS = {(size, kind): COST for size in ("small", "large") for kind in plan.HEADS}


def paper(**config):
    return read({"profile": "paper", **config})


def test_smoke_profile_writes_every_run(tmp_path, capsys):
    assert plan.main(["--profile", "smoke", "--arms", "GN-OC-S,JMP-S", "--results-dir", str(tmp_path)]) == 0
    runs = pd.read_csv(tmp_path / "plan/runs.csv")
    assert len(runs) == 13 and (runs["run"] == "pre-training").sum() == 1
    assert (runs["hours_low"] > 0).all() and (runs["hours_high"] >= runs["hours_low"]).all()
    assert (runs["data"] == "at hand").all()
    assert (runs.loc[runs["run"] == "fine-tuning", "updates_high"] == 4).all()
    said = capsys.readouterr().out
    assert "factor of about" in said and "do not fit" not in said
    assert plan.main(["--profile", "mni"]) == 2 and "'mini'" in capsys.readouterr().err


def test_updates_follow_the_settings():
    """QM9: 110,831 structures in batches of 48; it stops between epoch 32 + 50 and epoch 500."""
    (row,) = plan.run_rows(paper(tasks="qm9_mu", arms="GN-OC-S"), COSTS, True)
    epoch = -(-110831 // 48)
    assert (row["updates_low"], row["updates_high"], row["data"]) == (82 * epoch, 500 * epoch, "published counts")
    assert row["seconds_per_update"] == pytest.approx(0.1 + 0.001 * 48 * row["edges"])
    assert row["atoms"] == pytest.approx(18.0)  # the published mean
    (row,) = plan.run_rows(paper(tasks="qm9_mu", arms="GN-OC-S", max_steps=10), COSTS, True)
    assert row["updates_low"] == row["updates_high"] == 10


def test_folds_and_pretraining_are_counted():
    rows = plan.run_rows(paper(tasks="matbench_phonons"), COSTS, True)
    assert [row["arm"] for row in rows[:2]] == ["JMP-S", "JMP-L"] and len(rows) == 22
    assert rows[0]["updates_high"] == pytest.approx(2 * 174049183 / 4, rel=1e-6)
    table = plan.totals(pd.DataFrame(rows))
    assert table["runs"].tolist()[-1] == 22
    assert table["hours to"].iloc[-1] == pytest.approx(table["hours to"].iloc[:-1].sum())


def test_what_does_not_fit_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "memory_of", lambda device: 4e9)
    monkeypatch.setattr(plan, "measure_costs", lambda *_: COSTS)
    plan.report(paper(tasks="qm9_mu", arms="GN-OC-S", results_dir=str(tmp_path)))
    said = capsys.readouterr().out
    assert "1 runs do not fit into 4.0 GB" in said and "max_edges" in said


def test_edges_are_counted_and_scaled():
    n = len(methanol()["pos"])
    graph = GraphConfig(cutoff=12.0, max_neighbors=30, periodic=False)
    assert plan.typical([methanol()], graph) == (n, n * (n - 1))
    assert plan.typical([methanol()], graph, 2.0 * n) == (2 * n, 2 * n * (n - 1))


@pytest.mark.parametrize("values, found", [((0.3, 1.2), (0.2, 0.01)), ((0.3, 0.2), (0.0, 0.002)),
                                           ((0.1, 1.2), (0.0, 0.012))])
def test_the_line_goes_through_what_was_measured(values, found):
    assert plan.line([10, 100], values) == pytest.approx(found)


def test_costs_grow_with_the_structure_and_the_network():
    costs = plan.measure_costs(load_profile("smoke"), torch.device("cpu"))
    assert costs.keys() == COSTS.keys() and all(cost.kept[1] > 0 and cost.seconds[1] > 0 for cost in costs.values())
    assert costs["large", "property"].parameters > costs["small", "property"].parameters


@pytest.mark.parametrize(
    "text, mean", [("mean 73", 73.0), ("2 to 63; mean 15", 15.0), ("26 to 60", 43.0), ("21", 21.0), (None, None)]
)
def test_published_mean_of_atoms(text, mean):
    assert plan.published_atoms(text) == mean


def test_pretraining_on_both_sources_counts_what_is_at_hand(tmp_path, monkeypatch):
    """Generated structures, and the published samples beside them."""
    profile = load_profile("published_small", data_root=str(tmp_path))
    alone = plan.pretraining_data(profile)
    more = [dataclasses.replace(s, train=[methanol()] * 5000) if s.key == "oc20" else s
            for s in plan.joint_sets(profile)]
    monkeypatch.setattr(plan, "joint_sets", lambda profile: more)
    assert alone.data == "at hand" and plan.pretraining_data(profile).n_train > alone.n_train


def test_a_fold_that_is_not_at_hand_is_not_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(plan, "task_data",
                        lambda profile, task, fold: tried.append(fold) or (_ for _ in ()).throw(ValueError))
    profile = load_profile("published_small", data_root="nowhere",
                           **{"finetuning.task_folds": {"matbench_mp_gap": [1]}})
    assert profile.folds_of("matbench_mp_gap") == (1,)
    plan.finetuning_data(profile, "matbench_mp_gap")
    assert tried == [1]
