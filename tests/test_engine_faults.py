"""Losses that are not finite, SIGTERM, damaged checkpoints, logs after a resume; fingerprints; how runs are started."""

import csv
import dataclasses
import os
import signal

import pytest
import torch

from jmp_lib.settings import Engine, load_profile
from jmp_lib.train import pretraining, trainer
from jmp_lib.train.saving import load_checkpoint, save_checkpoint
from jmp_lib.pool import Terminated
from jmp_lib.train.finetuning import finetuning_parameters
from jmp_lib.train.trainer import train
from jmp_lib.train.pretraining import pretraining_parameters
from jmp_lib.train.processes import launched, needed
from test_resume import numbers, tiny_run


def rows_of(folder) -> list[dict]:
    with open(folder / "log.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_numbers_that_are_read_together_are_those_that_are_read_at_once(tmp_path, monkeypatch):
    """As on a GPU: history, logs and resumed runs are the same; an error comes some updates late,
    and its update changed nothing."""
    whole = train(tiny_run(tmp_path / "whole", ema=True))
    monkeypatch.setitem(trainer.READ_EVERY, "cpu", 16)
    ended = dataclasses.replace(tiny_run(tmp_path / "ended", ema=True, poison_at=6), checkpoint_every=99)
    ended.schedule = dataclasses.replace(ended.schedule, validate_every=30)
    before, clip = [], ended.clip
    ended.clip = lambda norm: (before.append([p.detach().clone()
                                              for p in (*ended.model.parameters(), *ended.ema.averages)]), clip(norm))
    with pytest.raises(FloatingPointError, match=r"loss of update 6 is nan.*toy\[6\]"):
        train(ended)
    moved = [[not torch.equal(a, b) for a, b in zip(one, other)] for one, other in zip(before, before[1:])]
    assert [all(m) for m in moved] == [k != 6 for k in range(15)] and not any(moved[6])  # 16 updates, read together
    folder = tmp_path / "late"
    with pytest.raises(Exception):
        train(tiny_run(folder, ema=True, kill_at=15))
    late = train(tiny_run(folder, ema=True))
    assert numbers(late) == numbers(whole)
    for a, b in zip(rows_of(tmp_path / "whole"), rows_of(folder), strict=True):
        assert all(a[k] == b[k] for k in ("update", "epoch", "lr", "loss", "grad_norm"))


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    run = tiny_run(tmp_path)
    usual = run.loss
    run.loss = lambda b, counts: {"total": usual(b, counts)["total"] + (run.model[0].weight * 0).sum().sqrt()}
    with pytest.raises(FloatingPointError, match="gradient norm of update 0 is"):
        train(run)


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    run = tiny_run(tmp_path, patience=5)
    usual, found = run.validate, []

    def validate():
        found.append(usual()["val_metric"] if found else float("nan"))
        return {"val_metric": found[-1]}

    run.validate = validate
    done = train(run)
    assert done.best_value == min(found[1:]) and done.best_step > 2


def test_sigterm_writes_a_checkpoint_and_the_next_start_goes_on(tmp_path, capsys):
    whole_run = tiny_run(tmp_path / "whole")
    whole = train(whole_run)
    run = tiny_run(tmp_path / "ended")
    usual = type(run.data).__getitem__

    class Ending(type(run.data)):
        def __getitem__(self, step):
            if step == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            return usual(self, step)

    run.data = Ending()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended:
        train(run)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM after update 10" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "ended" / "checkpoint.pt")["progress"]["step"] == 10
    resumed = tiny_run(tmp_path / "ended")
    assert numbers(train(resumed)) == numbers(whole)
    for name, tensor in whole_run.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text"])
def test_a_damaged_checkpoint_is_said(tmp_path, damage):
    path = tmp_path / "c.pt"
    save_checkpoint(path, value=torch.arange(1000.0))
    assert load_checkpoint(path)["value"][1] == 1
    content = bytearray(path.read_bytes())
    place = content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes({"cut": content[:-200], "bit": content, "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(ValueError, match="c.pt cannot be read .*; delete it to start"):
        load_checkpoint(path)


def test_a_checkpoint_is_not_called_damaged_where_memory_or_disk_fail(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, value=torch.arange(3.0))
    for error in (MemoryError, PermissionError):
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(torch, "load", lambda *_, error=error, **__: (_ for _ in ()).throw(error()))
            load_checkpoint(path)
    assert load_checkpoint(path)["value"][2] == 2


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_file_of_scale_factors_is_said(tmp_path, content):
    path = tmp_path / "work" / "scale_factors" / "small.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match="small.json cannot be read .*; delete it; they are fitted again"):
        pretraining.scale_factors(load_profile("smoke"), "small", tmp_path, fit=False)


def test_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (steps.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    save_checkpoint(tmp_path / "c.pt")
    assert steps == ["fsync", "replace"]  # the file, then its name


def test_the_log_has_every_update_once(tmp_path):
    train(tiny_run(tmp_path / "whole"))
    for kill in (3, 14, 29):
        with pytest.raises(Exception):
            train(tiny_run(tmp_path / "killed", kill_at=kill))
    file = tmp_path / "killed" / "log.csv"
    file.write_text(file.read_text() + "30,6,0.0")  # the kill came while a row was written
    train(tiny_run(tmp_path / "killed"))
    whole, killed = rows_of(tmp_path / "whole"), rows_of(tmp_path / "killed")
    assert [row["update"] for row in killed] == [str(k) for k in range(1, 31)]
    for a, b in zip(whole, killed):
        assert all(a[k] == b[k] for k in ("update", "epoch", "lr", "loss", "grad_norm"))
        assert float(b["seconds"]) >= float(b["waiting"]) >= 0 and float(b["memory_mb"]) > 0


def test_the_engine_does_not_decide_the_numbers():
    """Fingerprints are made of these parameters."""
    usual = load_profile("smoke")
    other = load_profile("smoke", engine={"devices": 4, "workers_data": 3, "max_edges": 100})
    from jmp_lib.data.tasks import get_task

    assert pretraining_parameters(usual, "small") == pretraining_parameters(other, "small")
    task = get_task("qm9_mu")
    assert finetuning_parameters(usual, task, "JMP-S") == finetuning_parameters(other, task, "JMP-S")
    drawn = load_profile("smoke", **{"pretraining.edge_dropout_draws": "structure"})
    assert pretraining_parameters(usual, "small") != pretraining_parameters(drawn, "small")


@pytest.mark.parametrize("engine, message", [
    ({"devices": 0}, "engine.devices must be greater than or equal to 1"),
    ({"max_edges": 0}, "engine.max_edges must be greater than 0"),
    ({"graphs": "of"}, "'off'"), ({"device": 2}, "'device'.*'devices'"),
    ({"workers_data": -1}, "greater than or equal to 0")])
def test_bad_engine_settings(engine, message):
    with pytest.raises(ValueError, match=message):
        load_profile("smoke", engine=engine)


def test_options_of_the_command_line(tmp_path):
    from jmp_lib.__main__ import parser
    from jmp_lib.__main__ import with_engine as with_options
    from jmp_lib.workbook import Run

    run = Run(load_profile("mini"), tmp_path, {}, None, (), (), ())
    words = ["pretrain", "--devices", "2", "--workers-data", "3", "--max-edges", "100"]
    profile = with_options(run, parser().parse_args(words)).profile
    assert profile.engine == Engine(devices=2, workers_data=3, max_edges=100)
    assert (run.profile.workers, profile.workers) == (2, 1)  # the processes of one training have the cores
    assert with_options(run, parser().parse_args(["finetune"])).profile == run.profile
    with pytest.raises(ValueError, match="engine.devices must be greater than or equal to 1"):
        with_options(run, parser().parse_args(["pretrain", "--devices", "0"]))


def test_who_starts_the_processes(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert launched() is None and not needed(Engine()) and needed(Engine(devices=2))
    with monkeypatch.context() as patch:  # a job of one task, and a batch script, are one process
        patch.setenv("SLURM_NTASKS", "8")
        assert launched() is None
        for name, value in (("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_STEP_NUM_NODES", "2")):
            patch.setenv(name, value)
        assert launched() == (4, 2) and not needed(Engine(devices=4))
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "8"), ("WORLD_SIZE", "16")):
        monkeypatch.setenv(name, value)
    assert launched() == (8, 2) and not needed(Engine(devices=2))
