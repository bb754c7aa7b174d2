"""Mixed precision through whole trainings, on a CPU: autocast where it is asked for, and steps that
the scaler leaves out."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from jmp_lib.settings import load_profile
from jmp_lib.records import load_predictions
from jmp_lib.train import finetuning, pretraining
from jmp_lib.train.saving import load_checkpoint
from jmp_lib.train.processes import Processes
from jmp_lib.train.trainer import Training, train
from test_resume import tiny_run

MIXED = ("bfloat16-mixed", "float16-mixed")


def smoke(precision: str, autocast: bool = True, **changes):
    wanted = {"pretraining.precision": precision, "finetuning.defaults.precision": precision}
    return load_profile("smoke", device="cpu", **{"engine.cpu_autocast": autocast, **wanted, **changes})


def seen_types(monkeypatch) -> set:
    """Number types of the products of matrices in whatever is trained after this."""
    seen, linear = set(), torch.nn.functional.linear

    def watched(x, *arguments):
        found = linear(x, *arguments)
        seen.add(found.dtype)
        return found

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    return seen


@pytest.mark.parametrize("precision", MIXED)
def test_pretraining_and_finetuning_in_mixed_precision(toy, tmp_path, monkeypatch, precision):
    """Scalar, direct forces, gradient forces; the numbers are those of float32 within the coarseness of the type."""
    seen = seen_types(monkeypatch)
    found = {}
    for name, profile in (("mixed", smoke(precision)), ("float32", smoke("float32"))):
        pretrained = pretraining.pretrain(profile, "small", tmp_path / name, progress=False)
        made = [finetuning.finetune(profile, task, "JMP-S", tmp_path / name, progress=False)
                for task in ("qm9_mu", "rmd17_ethanol")]
        direct = smoke(profile.pretraining.precision, **{"finetuning.defaults.force_head": "direct_forces"})
        made.append(finetuning.finetune(direct, "rmd17_ethanol", "GN-OC-S", tmp_path / name, progress=False))
        found[name] = [pretrained, *made]
        if name == "mixed":
            assert {torch.bfloat16 if precision == "bfloat16-mixed" else torch.float16} <= seen
    for mixed, plain in zip(found["mixed"], found["float32"]):
        assert mixed["precision"] == precision and plain["precision"] == "float32"
        assert mixed["fingerprint"] != plain["fingerprint"]
        a, b = (np.array([row["train_loss"] for row in record["history"]]) for record in (mixed, plain))
        assert np.isfinite(a).all() and a == pytest.approx(b, rel=0.05)
    true, predicted = load_predictions(tmp_path / "mixed", found["mixed"][2])
    assert np.isfinite(predicted).all() and predicted.dtype == np.float64 and len(true) == len(predicted)


def test_without_being_asked_a_cpu_computes_in_float32(toy, tmp_path):
    """As always: the record says float32, and the numbers and the fingerprint are those of
    before there was a choice."""
    profile = smoke("bfloat16-mixed", autocast=False)
    record = pretraining.pretrain(profile, "small", tmp_path / "a", progress=False)
    plain = pretraining.pretrain(smoke("float32", autocast=False), "small", tmp_path / "b", progress=False)
    assert record["precision"] == "float32" and record["final"].keys() == plain["final"].keys()
    assert all(record["final"][k] == plain["final"][k] for k in plain["final"] if not k.endswith("seconds"))
    assert "cpu_autocast" not in record["parameters"]
    assert pretraining.pretraining_parameters(smoke("bfloat16-mixed"), "small")["cpu_autocast"] is True


def half_run(folder, ema=True, **changes):
    """The small regression with the scaler of float16, whose first scale is too large for a gradient."""
    run = tiny_run(folder, ema=ema)
    run = dataclasses.replace(run, processes=Processes("cpu", "float16-mixed", cpu_autocast=True), **changes)
    run.processes.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=1000)
    return run


def test_the_average_stays_where_the_scaler_leaves_out_a_step(tmp_path):
    """float16: an infinite scaled gradient means no step, so the weights and their average stay as they were."""
    run = half_run(tmp_path)
    seen, clip = [], run.clip

    def watched(norm):
        clip(norm)
        seen.append([torch.cat([p.detach().flatten() for p in of])
                     for of in (run.model.parameters(), run.ema.averages)])

    run.clip = watched
    done = train(run)
    moved = [[not torch.equal(a, b) for a, b in zip(one, other)] for one, other in zip(seen, seen[1:])]
    assert all(weights == averages for weights, averages in moved)
    stayed = [weights for weights, _ in moved].count(False)
    assert stayed > 0 and done.skipped_by_scaler in (stayed, stayed + 1) and any(weights for weights, _ in moved)
    assert done.step == 30  # an update that is left out counts: its batch is used up


def test_a_loss_that_float16_does_not_hold_is_left_out_and_one_that_no_scale_mends_ends_the_run(tmp_path):
    def poisoned(folder, bad) -> Training:
        """Losses of the updates in ``bad`` are not finite."""
        run, asked = half_run(tmp_path / folder), iter(range(30))
        usual = run.loss
        run.loss = lambda batch, counts: {"total": usual(batch, counts)["total"] * (
            math.nan if next(asked) in bad else 1.0)}
        return run

    usual = train(half_run(tmp_path / "usual"))
    done = train(poisoned("once", {20}))
    assert done.step == 30 and done.skipped_by_scaler == usual.skipped_by_scaler + 1
    assert all(math.isfinite(row["train_loss"]) for row in done.history)
    with pytest.raises(FloatingPointError, match="loss of update 24 is nan"):  # the scale falls from 2^24 to below 1
        train(poisoned("always", range(30)))


def test_a_resumed_float16_run_has_the_same_numbers(tmp_path):
    whole_run = half_run(tmp_path / "whole")
    whole = train(whole_run)
    stopped = half_run(tmp_path / "stopped")
    usual = stopped.validate

    def killed():
        state = load_checkpoint(stopped.checkpoint)
        if state and state["progress"]["step"] >= 8:
            raise KeyboardInterrupt
        return usual()

    stopped.validate = killed
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    again_run = half_run(tmp_path / "stopped")
    again = train(again_run)
    assert again.skipped_by_scaler == whole.skipped_by_scaler and again.step == whole.step
    for name, tensor in whole_run.model.state_dict().items():
        assert torch.equal(tensor, again_run.model.state_dict()[name])


def test_tf32_is_for_a_gpu():
    """On a CPU it is float32, autocast or not; a later run does not inherit the rounding of an earlier one."""
    torch.set_float32_matmul_precision("high")
    assert Processes("cpu", "tf32").precision == Processes("cpu", "tf32", cpu_autocast=True).precision == "float32"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_tf32_rounds_products_on_a_gpu():
    a = torch.rand(64, 64, device="cuda") + 0.5
    found = {name: (Processes("cuda", name), a @ a)[1] for name in ("tf32", "float32")}
    assert 1e-5 < ((found["tf32"] - found["float32"]).abs() / found["float32"]).max() < 1e-2
