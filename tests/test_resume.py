"""A killed run ends with the same numbers, to the last bit, as an uninterrupted one (CPU)."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from jmp_lib import records
from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning as finetune_module
from jmp_lib.train import joint_sets as joint_sets_module
from jmp_lib.train import trainer
from jmp_lib.train import pretraining as pretrain_module
from jmp_lib.train.batches import Share
from jmp_lib.train.saving import load_checkpoint, save_checkpoint
from jmp_lib.train.schedule import EMA
from jmp_lib.train.trainer import Training, train
from jmp_lib.train.losses import Counts
from jmp_lib.train.processes import Processes
from test_files import no_file_above
from jmp_lib.train.schedule import Updates, plateau
from toy_sets import toy_pretraining, toy_task

TIMES = ("seconds", "train_seconds")


class Killed(Exception):
    pass


def tiny_run(folder, ema=False, kill_at=None, poison_at=None, patience=None) -> Training:
    """The real loop on a small regression: cosine to update 12, plateau after, best weights kept."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "base_lr": 0.05, "multiplier": 1.0}], lr=0.05,
                                  fused=True)

    class Batches:
        max_edges = None

        def __getitem__(self, step):
            if step == kill_at:
                raise Killed
            x = torch.from_numpy(np.random.default_rng([1, step]).normal(size=(4, 3))).float()
            part = Data(x=x, y=x[:, :1] * x[:, 1:2] * (float("nan") if step == poison_at else 1.0))
            return Share([part], [4], [[f"toy[{step}]", "toy[7]"]], Counts(4, 4), None)

    grid = torch.linspace(-1, 1, 30).reshape(10, 3)

    def validate():
        with torch.no_grad():
            return {"val_metric": (model(grid) - grid[:, :1] * grid[:, 1:2]).abs().mean().item()}

    return Training(model=model, optimizer=optimizer, schedule=Updates(3, 0.1, 12, 0.1, 30, 2), updates_per_epoch=5,
                    data=Batches(), loss=lambda b, counts: {"total": (model(b["x"]) - b["y"]).abs().mean()},
                    validate=validate,
                    clip=lambda norm: torch.nn.utils.clip_grad_value_(model.parameters(), 1.0),
                    checkpoint=folder / "checkpoint.pt", checkpoint_every=4, ema=EMA(model, 0.9) if ema else None,
                    gradient_divisors={"0.weight": 2}, watch="val_metric", plateau=plateau(optimizer, 0.5, 1),
                    patience=patience)


def numbers(progress) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in progress.history]


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("kills", [(3,), (5, 13, 14, 29)])
def test_resume_is_bitwise(tmp_path, ema, kills):
    whole_run = tiny_run(tmp_path / "whole", ema)
    whole = train(whole_run)
    for kill in kills:
        with pytest.raises(Killed):
            train(tiny_run(tmp_path / "killed", ema, kill_at=kill))
    resumed_run = tiny_run(tmp_path / "killed", ema)
    resumed = train(resumed_run)
    assert numbers(resumed) == numbers(whole)
    assert (resumed.best_value, resumed.best_step, resumed.stopped) == (whole.best_value,
                                                                        whole.best_step, whole.stopped)
    for name, tensor in whole_run.model.state_dict().items():
        assert torch.equal(tensor, resumed_run.model.state_dict()[name]), name


def test_the_plateau_stage_is_reached(tmp_path):
    rates = [row["lr"] for row in train(tiny_run(tmp_path)).history]
    assert min(rates) < 0.99 * 0.05 * 0.1  # below the end of the cosine


def test_best_weights_are_the_ones_kept(tmp_path):
    run = tiny_run(tmp_path)
    progress = train(run)
    assert progress.best_value == min(row["val_metric"] for row in progress.history)
    assert run.validate()["val_metric"] == pytest.approx(progress.best_value, rel=1e-6)


def test_early_stopping(tmp_path):
    run = tiny_run(tmp_path, patience=1)
    progress = train(run)
    assert progress.step < 30 and "no improvement in 1 validations" in progress.stopped
    rows = [row["val_metric"] for row in progress.history]
    assert rows[-1] >= min(rows[:-1]) and progress.best_value == min(rows)


def test_gradient_of_shared_parameters_is_divided(tmp_path):
    run = tiny_run(tmp_path)
    seen = {}
    run.clip = lambda norm: seen.setdefault("grads", [p.grad.clone() for p in run.model.parameters()])
    train(dataclasses.replace(run, schedule=Updates(0, 1.0, 1, 0.1, 1, 1)))
    fresh = tiny_run(tmp_path / "fresh")
    share = fresh.data[0]
    fresh.loss(share.parts[0], share.counts)["total"].backward()
    divisors = [2, 1, 1, 1]
    for got, parameter, divisor in zip(seen["grads"], fresh.model.parameters(), divisors):
        assert torch.equal(got * divisor, parameter.grad)


def test_non_finite_loss_names_the_structures(tmp_path):
    with pytest.raises(FloatingPointError, match=r"update 6 is nan.*toy\[6\], toy\[7\]"):
        train(tiny_run(tmp_path, poison_at=6))


def test_a_checkpoint_is_whole_or_an_error(tmp_path):
    path = tmp_path / "c.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, value=1.5)
    assert load_checkpoint(path)["value"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]  # no temporary file is left
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="delete it to start"):
        load_checkpoint(path)


class float16(Processes):
    """As on a GPU: a scaler, which a CPU without it does not keep."""

    def __init__(self):
        super().__init__("cpu", "float16-mixed", True)


@pytest.mark.parametrize("first, then", [(Processes, float16), (float16, Processes)])
def test_another_machine_under_a_checkpoint_is_said_and_costs_nothing(tmp_path, capsys, monkeypatch, first, then):
    with pytest.raises(Killed):
        train(dataclasses.replace(tiny_run(tmp_path, kill_at=13), processes=first()))
    assert "goes on" not in capsys.readouterr().err
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "__version__", "3.0.0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 6)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock was set back
    done = train(dataclasses.replace(tiny_run(tmp_path), processes=then()))
    assert done.step == 30 and len(done.history) == len(train(tiny_run(tmp_path / "whole")).history)
    assert [m["from_update"] for m in done.machines] == [0, 12] and done.machines[1]["threads"] == threads + 6
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "goes on" in line]
    for words in ("training: goes on after update 12 with", f"precision {first().precision} -> {then().precision}",
                  "torch 2.", f"threads {threads} -> {threads + 6}"):
        assert words in line


@pytest.mark.parametrize("room", [300, 6000])
def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path, room):
    """In the log, and in a checkpoint (of which torch says "unexpected pos 64 vs 0")."""
    whole = tiny_run(tmp_path / "whole")
    train(whole)
    with pytest.raises(RuntimeError, match=r"^cannot write \S+/(log.csv|checkpoint.pt): "
                       r"the file becomes larger than is allowed here; make room"):
        with no_file_above(room):
            train(tiny_run(tmp_path / "full"))
    assert not list((tmp_path / "full").glob("*.tmp"))
    resumed = tiny_run(tmp_path / "full")
    train(resumed)
    assert all(torch.equal(t, resumed.model.state_dict()[name]) for name, t in whole.model.state_dict().items())


def test_checkpoint_executes_nothing(tmp_path):
    """A pickle that would run code is refused."""
    class Harmful:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"torch_rng": torch.get_rng_state(), "x": Harmful()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path / "c.pt")


def kill_after(monkeypatch, saves: int) -> None:
    """The process "dies" right after that many checkpoints."""
    original, count = trainer.save_checkpoint, []

    def save(*arguments, **parts):
        original(*arguments, **parts)
        count.append(1)
        if len(count) == saves:
            raise Killed

    monkeypatch.setattr(trainer, "save_checkpoint", save)


def smoke(**changes):
    return load_profile("smoke", device="cpu", **changes)


def test_unfinished_runs_of_other_settings_are_kept(tmp_path, toy, monkeypatch, capsys):
    """Other settings or data by mistake cost no update of the run before: it goes on when they are given again."""
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            finetune_module.finetune(smoke(), "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    finetune_module.finetune(smoke(seed=1), "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    assert "holds unfinished training of other settings, data or versions (checkpoint-" in capsys.readouterr().err
    steps = []
    original = trainer._gradients
    monkeypatch.setattr(trainer, "_gradients",
                        lambda run, progress, share: (steps.append(progress.step), original(run, progress, share))[1])
    finetune_module.finetune(smoke(), "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    assert steps == [2, 3] and not list(tmp_path.rglob("checkpoint*")) and "unfinished" not in capsys.readouterr().err


def test_a_finished_run_is_not_repeated(tmp_path, toy, monkeypatch):
    first = finetune_module.finetune(smoke(), "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", lambda run: pytest.fail("trained again"))
        assert finetune_module.finetune(smoke(), "qm9_mu", "GN-OC-S", tmp_path, progress=False) == first
    changed = finetune_module.finetune(smoke(seed=1), "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    assert changed["fingerprint"] != first["fingerprint"] and changed["value"] != first["value"]
    assert not list(tmp_path.rglob("checkpoint*"))


def test_fingerprints_are_known_without_a_training(tmp_path, toy, monkeypatch):
    """Done has one meaning: the record is there and has this fingerprint, in which the pre-training is."""
    monkeypatch.setattr(trainer, "train", lambda run: pytest.fail("trained"))
    nothing = {arm: finetune_module.fingerprint(smoke(), "qm9_mu", arm, 0, tmp_path) for arm in ("JMP-S", "GN-OC-S")}
    monkeypatch.undo()
    monkeypatch.setattr(joint_sets_module, "load_pretraining_data", toy_pretraining)
    monkeypatch.setattr(finetune_module, "load_task_data", toy_task)
    made = {arm: finetune_module.finetune(smoke(), "qm9_mu", arm, tmp_path, progress=False) for arm in nothing}
    monkeypatch.setattr(trainer, "train", lambda run: pytest.fail("trained"))
    size = records.read_record(records.pretrain_record_path(tmp_path, "small"))
    assert pretrain_module.fingerprint(smoke(), "small") == size["fingerprint"]
    for arm, record in made.items():
        assert finetune_module.fingerprint(smoke(), "qm9_mu", arm, 0, tmp_path) == record["fingerprint"] != nothing[arm]
    lower = {"pretraining.lr": 1.0e-5}  # of the pre-training, so the fine-tuning from it is not done either
    assert finetune_module.fingerprint(smoke(**lower), "qm9_mu", "JMP-S", 0, tmp_path) != made["JMP-S"]["fingerprint"]
    assert finetune_module.fingerprint(smoke(**lower), "qm9_mu", "GN-OC-S", 0,
                                       tmp_path) == made["GN-OC-S"]["fingerprint"]


def test_arms_differ_only_in_their_start(tmp_path, toy):
    scratch = finetune_module.finetune(smoke(), "qm9_u0", "GN-OC-S", tmp_path, progress=False)
    trained = finetune_module.finetune(smoke(), "qm9_u0", "JMP-S", tmp_path, progress=False)
    assert scratch["start"]["scale_factors"] == trained["start"]["scale_factors"]
    assert "pretrained" not in scratch["start"] and "pretrained" in trained["start"]
    assert scratch["parameters"]["settings"] == trained["parameters"]["settings"]
    assert scratch["model"]["n_parameters"] == trained["model"]["n_parameters"]
    assert set(scratch["parameters"]["learning_rate_multipliers"].values()) == {1.0}
    true, predicted = records.load_predictions(tmp_path, trained)
    assert np.abs(true - predicted).mean() == pytest.approx(trained["value"])
    assert trained["unit"] == "meV" and trained["metric"] == "MAE"


def test_unknown_arm():
    with pytest.raises(ValueError, match="unknown arm 'JMP-M'"):
        finetune_module.finetune(smoke(), "qm9_mu", "JMP-M", "nowhere", progress=False)
