"""The measurement of a GPU: without one it says so; its trial runs every row."""

import torch

from tools.benchmarks import gpu
from tools.benchmarks.__main__ import main


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--json", "-"]) == 0
    assert gpu.NO_GPU in capsys.readouterr().out


def test_a_trial_runs_every_row(monkeypatch, capsys):
    """Small sizes, two of the cases: one with gradient forces, one without, in every precision;
    and the joint pre-training."""
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[:2])
    found = []
    monkeypatch.setattr(gpu, "run", lambda args, usual=gpu.run: found.append(usual(args)) or found[0])
    assert main(["gpu", "--tiny", "--steps", "1", "--json", "-"]) == 0
    (record,), printed = found, capsys.readouterr().out
    assert len(record["rows"]) == 3 and not any("why" in row for row in record["rows"]), printed
    assert all(row["seconds"] > 0 and row["kernels"] > 100 for row in record["rows"])
    assert record["joint_pretraining"]["to_bare"] > 0 and "joint pre-training, updates of 4" in printed
