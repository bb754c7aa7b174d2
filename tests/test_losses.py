"""Losses: against the reference fixtures when JMP_REFERENCE is set, against frozen and hand-made values always."""

import json
import os
from pathlib import Path

import pytest
import torch

from jmp_lib.train.losses import (
    finetuning_loss,
    force_distance,
    label_loss,
    pretraining_loss,
)


@pytest.fixture(scope="module")
def golden() -> dict:
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    return json.loads((Path(folder) / "golden_training.json").read_text())


def pretraining_inputs() -> dict:
    """Three structures of 1, 2 and 1 atoms, two tasks; the wrong task's predictions are far off."""
    return {"predicted_energy": torch.tensor([[1.0, 99.0], [99.0, 2.0], [0.5, 99.0]]),
            "predicted_forces": torch.stack([torch.zeros(4, 3), torch.full((4, 3), 50.0)], -1).index_copy(
                0, torch.tensor([1, 2]), torch.stack([torch.full((2, 3), 50.0), torch.zeros(2, 3)], -1)),
            "energy": torch.tensor([0.0, 4.0, 1.0]),
            "forces": torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]),
            "batch": torch.tensor([0, 1, 1, 2]), "task": torch.tensor([0, 1, 0]),
            "energy_scale": torch.tensor([1.0, 0.5]), "force_scale": torch.tensor([10.0, 2.0])}


def test_pretraining_loss_by_hand():
    loss = pretraining_loss(**pretraining_inputs())
    assert loss["energy"].item() == pytest.approx((1.0 + 0.5 * 2.0 + 0.5) / 3)
    assert loss["force"].item() == pytest.approx((10 * 5.0 + 2 * (1.0 + 3.0) / 2 + 10 * 2.0) / 3, rel=1e-5)
    assert loss["total"].item() == pytest.approx(loss["energy"].item() + loss["force"].item())


def test_force_loss_is_structurewise():
    atomwise = pretraining_loss(**pretraining_inputs(), structurewise=False)
    assert atomwise["force"].item() == pytest.approx((50.0 + 2.0 + 6.0 + 20.0) / 4, rel=1e-5)


def test_other_tasks_get_no_gradient():
    inputs = pretraining_inputs()
    energy = inputs["predicted_energy"].requires_grad_()
    forces = inputs["predicted_forces"].requires_grad_()
    pretraining_loss(**inputs)["total"].backward()
    assert torch.equal(energy.grad != 0, torch.tensor([[True, False], [False, True], [True, False]]))
    assert not forces.grad[0, :, 1].any() and not forces.grad[1, :, 0].any() and forces.grad[1, :, 1].any()


def test_norm_has_the_shift():
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert force_distance(zero, zero).tolist() == pytest.approx([3**0.5 * 1e-6] * 2)


def test_finetuning_loss_leaves_out_zero_coefficients():
    predicted = {"energy": torch.tensor([1.0]), "forces": torch.tensor([[3.0, 4.0, 0.0]])}
    target = {"energy": torch.tensor([0.0]), "forces": torch.zeros(1, 3)}
    assert finetuning_loss(predicted, target, {"energy": 0.0, "forces": 10.0}).item() == pytest.approx(50.0, rel=1e-5)
    assert finetuning_loss(predicted, target, {"energy": 1.0, "forces": 10.0}).item() == pytest.approx(51.0, rel=1e-5)
    with pytest.raises(ValueError, match="coefficients are 0"):
        finetuning_loss(predicted, target, {"energy": 0.0})


@pytest.mark.parametrize("structurewise", [True, False])
def test_pretraining_loss_against_reference(golden, structurewise):
    inputs, outputs = golden["pretrain_loss"]["inputs"], golden["pretrain_loss"]["outputs"]
    wanted = next(v for k, v in outputs.items() if k == f"structurewise={structurewise},reduction=mean")
    task = torch.tensor(inputs["task_of_structure"]).long()
    scale = {"energy": torch.ones(inputs["num_tasks"]), "force": torch.ones(inputs["num_tasks"])}
    for which in scale:
        scale[which][task] = torch.tensor(inputs[f"{which}_scale"])
    loss = pretraining_loss(torch.tensor(inputs["pred_energy"]), torch.tensor(inputs["pred_forces"]),
                            torch.tensor(inputs["y"]), torch.tensor(inputs["force"]),
                            torch.tensor(inputs["batch"]).long(), task, scale["energy"], scale["force"], structurewise)
    assert {k: v.item() for k, v in loss.items()} == pytest.approx(wanted, rel=1e-6)


def test_finetuning_losses_against_reference(golden):
    inputs, outputs = golden["finetune_loss"]["inputs"], golden["finetune_loss"]["outputs"]
    pred = {k: torch.tensor(v) for k, v in inputs["pred"].items()}
    target = {k: torch.tensor(v) for k, v in inputs["target"].items()}
    coefficient = inputs["coefficients"]
    y = label_loss(pred["y"], target["y"])
    force = label_loss(pred["force"], target["force"])
    assert coefficient["y"] * y.item() == pytest.approx(outputs["y_only"], rel=1e-6)
    assert coefficient["force"] * force.item() == pytest.approx(outputs["force_only"], rel=1e-6)
    both = finetuning_loss(pred, target, {"y": 1.0, "force": 100.0}).item()
    assert both == pytest.approx(outputs["energy_forces_model model_type=energy_forces y=1 force=100"], rel=1e-6)
    alone = finetuning_loss(pred, target, {"y": 0.0, "force": 100.0}).item()
    assert alone == pytest.approx(outputs["energy_forces_model model_type=forces y=1 force=100"], rel=1e-6)


def test_atoms_that_do_not_count():
    """Their forces change neither the loss nor the weight of the others; without such atoms nothing
    changes to the last bit."""
    generator = torch.Generator().manual_seed(0)
    forces, other = torch.randn(5, 3, 1, generator=generator), torch.randn(5, 3, generator=generator)
    batch, task = torch.tensor([0, 0, 0, 1, 1]), torch.zeros(2, dtype=torch.long)
    ones = torch.ones(1)

    def loss(predicted, target, counted, batch=batch):
        count = int(batch.max()) + 1
        return pretraining_loss(torch.zeros(count, 1), predicted, torch.zeros(count), target, batch, task[:count], ones,
                                ones, counted=counted)["force"]

    free = torch.tensor([True, False, True, False, False])
    wild = torch.where(free[:, None], other, 1e3 * other)
    assert loss(forces, other, free) == loss(forces, wild, free)
    alone = loss(forces[[0, 2]], other[[0, 2]], None, torch.tensor([0, 0]))
    assert loss(forces, other, free) == pytest.approx(float(alone) / 2)  # the second structure has none that counts
    assert loss(forces, other, torch.ones(5, dtype=torch.bool)) == loss(forces, other, None)
