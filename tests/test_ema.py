"""The moving average of the weights."""

import json
import os
from pathlib import Path

import pytest
import torch

from jmp_lib.train.schedule import EMA

AFTER = [([0.9, -2.0, 3.1], [0.99, -2.0, 3.01]), ([0.8, -2.1, 3.2], [0.971, -2.01, 3.029]),
         ([0.7, -2.3, 3.3], [0.9439, -2.039, 3.0561]), ([0.6, -2.6, 3.4], [0.90951, -2.0951, 3.09049])]


def run_sgd(decay, lr, start, steps):
    """The example of the reference: gradient of step i is [1, i, -1]."""
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.tensor(start))
    ema, optimizer = EMA(model, decay), torch.optim.SGD(model.parameters(), lr=lr)
    rows = []
    for i in range(steps):
        model.weight.grad = torch.tensor([1.0, float(i), -1.0])
        optimizer.step()
        ema.update()
        rows.append((model.weight.tolist(), ema.averages[0].tolist()))
    return rows, model, ema


def test_frozen_values():
    rows, _, _ = run_sgd(0.9, 0.1, [1.0, -2.0, 3.0], 4)
    for got, wanted in zip(rows, AFTER):
        assert got[0] == pytest.approx(wanted[0], rel=1e-5) and got[1] == pytest.approx(wanted[1], rel=1e-5)


def test_against_reference():
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    case = json.loads((Path(folder) / "golden_training.json").read_text())["ema"]
    rows, _, _ = run_sgd(case["decay"], case["sgd_lr"], case["start"], len(case["after_step"]))
    for got, wanted in zip(rows, case["after_step"]):
        assert got[0] == pytest.approx(wanted["param"], rel=1e-6) and got[1] == pytest.approx(wanted["ema"], rel=1e-6)


def test_swap_in_and_out():
    _, model, ema = run_sgd(0.9, 0.1, [1.0, -2.0, 3.0], 4)
    raw, average = model.weight.detach().clone(), ema.averages[0].clone()
    with ema.swapped_in():
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, raw) and torch.equal(ema.averages[0], average)
    ema.copy_to_model()
    assert torch.equal(model.weight, average)
