"""Learning rates: warm-up, cosine, restart, layer-wise groups and the plateau stage."""

import json
import os
from pathlib import Path

import pytest
import torch

from jmp_lib.settings import Schedule
from jmp_lib.train.schedule import (
    Updates,
    group_min_factor,
    in_updates,
    layerwise_groups,
    parameter_groups,
    plateau,
    set_rates,
    warmup_cosine,
)

JMP_L = (0.55, 0.40, 0.30, 0.40, 0.55, 0.625)


@pytest.fixture(scope="module")
def golden() -> dict:
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    return json.loads((Path(folder) / "golden_training.json").read_text())


def rate(k, restart=True):
    return warmup_cosine(k, 3.0e-4, 2000, 10000, 0.2, 0.1, restart)


def test_pretraining_rates():
    """Frozen from the verified schedule: base reached at update W-1 and held at W, rising again after the end."""
    wanted = {0: 6.0e-5, 1000: 1.80060030015002e-4, 1999: 3.0e-4, 2000: 3.0e-4, 6000: 1.65e-4, 9000: 4.0276263111e-5,
              10000: 3.0e-5, 10500: 3.259398714537e-5}
    assert {k: rate(k) for k in wanted} == pytest.approx(wanted, rel=1e-9)
    assert rate(10500, restart=False) == pytest.approx(3.0e-5)


def test_pretraining_rates_against_reference(golden):
    case = golden["lr_pretrain"]
    for k, wanted in case["lr_before_update_number"].items():
        got = warmup_cosine(int(k), case["base_lr"], case["warmup_steps"], case["max_steps"],
                            case["warmup_start_lr_factor"], case["min_lr_factor"], restart=True)
        assert got == pytest.approx(wanted, rel=1e-9), k


def fake_finetuning_model(blocks: int) -> torch.nn.Module:
    """Parameters with the names of a fine-tuning model, one per module."""
    model = torch.nn.Module()
    model.embedding = torch.nn.Embedding(2, 1)
    model.backbone = torch.nn.Module()
    model.backbone.bases = torch.nn.Linear(1, 1, bias=False)
    model.backbone.int_blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in range(blocks))
    model.backbone.out_blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in range(blocks + 1))
    model.out_energy = torch.nn.Linear(1, 1, bias=False)
    return model


def optimizer_of(blocks=JMP_L, lr=8.0e-5):
    model = fake_finetuning_model(len(blocks))
    return torch.optim.AdamW(parameter_groups(model, layerwise_groups(0.3, blocks), lr), lr=lr), model


def test_layerwise_groups():
    optimizer, model = optimizer_of()
    groups = {g["name"]: g for g in optimizer.param_groups}
    assert list(groups) == ["embedding", *(f"blocks_{i}" for i in range(6)), "rest"]
    assert [g["base_lr"] / 8.0e-5 for g in groups.values()] == pytest.approx([0.3, *JMP_L, 1.0])
    names = {id(p): n for n, p in model.named_parameters()}
    members = {name: [names[id(p)] for p in g["params"]] for name, g in groups.items()}
    assert members["blocks_0"] == ["backbone.int_blocks.0.weight", "backbone.out_blocks.0.weight",
                                   "backbone.out_blocks.1.weight"]
    assert members["blocks_5"] == ["backbone.int_blocks.5.weight", "backbone.out_blocks.6.weight"]
    assert members["rest"] == ["backbone.bases.weight", "out_energy.weight"]
    assert sum(len(m) for m in members.values()) == len(names)


def test_block_1_and_block_10_are_told_apart():
    optimizer, model = optimizer_of(tuple(0.5 for _ in range(11)))
    groups = {g["name"]: g["params"] for g in optimizer.param_groups}
    assert any(model.backbone.int_blocks[10].weight is p for p in groups["blocks_10"])
    assert len(groups["blocks_1"]) == 2


def test_group_minimum_factors():
    assert group_min_factor(0.1, 0.3) == pytest.approx(1 / 3)
    assert group_min_factor(0.1, 0.01) == 0.99 and group_min_factor(0.001, 1.0) == 0.01


def test_all_groups_end_at_the_same_rate():
    optimizer, _ = optimizer_of()
    set_rates(optimizer, 320, Updates(50, 0.1, 320, 0.1, 1000, 10))
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([8.0e-6] * 8)


def finetuning_history(golden_or_none, updates: int) -> tuple[dict, list]:
    """Rates before every update of the reference's example: 10 updates per epoch, metric stuck from epoch 38 on."""
    optimizer, _ = optimizer_of()
    schedule = Updates(50, 0.1, 320, 0.1, updates, 10)
    rlp = plateau(optimizer, 0.8, 3)
    rates, after_epoch = {}, []
    set_rates(optimizer, 0, schedule)
    for k in range(updates):
        rates[k] = [g["lr"] for g in optimizer.param_groups]
        set_rates(optimizer, k + 1, schedule)
        if (k + 1) % 10 == 0:
            epoch = k // 10
            metric = 1 / (1 + epoch) if epoch < 38 else 0.5
            if k + 1 >= schedule.cosine_until:
                rlp.step(metric)
                after_epoch.append([epoch, metric, optimizer.param_groups[-1]["lr"]])
    return rates, after_epoch


def test_finetuning_rates_frozen():
    rates, after = finetuning_history(None, 470)
    assert [min(rates[0]), max(rates[0])] == pytest.approx([2.4e-6, 8.0e-6])
    assert rates[200][0] == pytest.approx(1.4610814578664558e-05, rel=1e-9)
    assert rates[200][-1] == pytest.approx(3.774866560399051e-05, rel=1e-9)
    assert rates[400] == pytest.approx([8.0e-6] * 8) and rates[460] == pytest.approx([5.12e-6] * 8)
    assert [epoch for epoch, _, lr in after if lr < 7.0e-6][0] == 41  # three bad epochs are forgiven


def test_finetuning_rates_against_reference(golden):
    case = golden["lr_finetune"]
    rates, after = finetuning_history(case, 480)
    for k, wanted in case["lr_before_update_number"].items():
        assert rates[int(k)] == pytest.approx(wanted, rel=1e-9), k
    wanted = {int(epoch): lr for epoch, _, lr in case["plateau_stage_epoch_metric_restlr"]}
    got = {epoch: lr for epoch, _, lr in after}
    assert {e: got[e] for e in wanted} == pytest.approx(wanted, rel=1e-9)


def test_layerwise_groups_against_reference(golden):
    case = golden["layerwise_lr"]
    groups = layerwise_groups(case["scales"]["embedding"],
                              tuple(v for k, v in case["scales"].items() if k != "embedding"))
    assert [g.name for g in groups] == [g["name"] for g in case["groups"]]
    for group, wanted in zip(groups, case["groups"]):
        assert group.multiplier == pytest.approx(wanted["lr_multiplier"])
        assert group_min_factor(0.1, group.multiplier) == pytest.approx(wanted["min_lr_factor"])
        if group.name != "rest":
            assert set(group.patterns) == set(wanted["patterns"])


def schedule(**changes) -> Schedule:
    values = dict(warmup="5 epochs", warmup_start_factor=0.1, cosine_until="32 epochs", min_factor=0.1,
                  stop_at="500 epochs", validate_every="1 epoch")
    return Schedule(**{**values, **changes})


def test_lengths_in_epochs_and_updates():
    updates = in_updates(schedule(warmup="2000 updates"), updates_per_epoch=300)
    assert (updates.warmup, updates.cosine_until, updates.stop_at, updates.validate_every) == (2000, 9600, 150000, 300)


def test_max_steps_shortens_in_proportion():
    updates = in_updates(schedule(), updates_per_epoch=10, max_steps=32)
    assert (updates.warmup, updates.cosine_until, updates.stop_at, updates.validate_every) == (5, 32, 32, 10)
    longer = in_updates(schedule(), updates_per_epoch=10, max_steps=1000)
    assert (longer.warmup, longer.cosine_until, longer.stop_at) == (50, 320, 1000)


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="length such as"):
        schedule(warmup="5 epoch s")
    with pytest.raises(ValueError, match="warmup <= cosine_until"):
        in_updates(schedule(warmup="40 epochs"), updates_per_epoch=10)
