"""Several processes, real kills: the same numbers as one process that nothing disturbs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jmp_lib.files import file_sha256
from jmp_lib.records import read_record
from jmp_lib.settings import load_profile
from jmp_lib.train.batches import balanced
from jmp_lib.train.pretraining import pretrain
from jmp_lib.train.processes import in_processes

PROGRAM = Path(__file__).with_name("engine_process.py")
WEIGHTS = ("work/pretrain/small/model.safetensors", "work/finetune/rmd17_ethanol/JMP-S/model.safetensors")
RECORDS = ("records/pretrain/small.json", "records/finetune/rmd17_ethanol/JMP-S.json")


def run(out: Path, *arguments: str, processes: int = 1) -> Path:
    """The program, with torchrun for more than one process."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = [str(PROGRAM.parent), str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([*start, str(PROGRAM), str(out), *arguments], capture_output=True, text=True, timeout=300,
                          env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes; the last fine-tuning batch of an epoch (10 structures in batches of 3) leaves one without work."""
    return run(tmp_path_factory.mktemp("pair"), processes=2)


def furthest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def test_two_processes_have_the_gradients_of_one(alone, pair):
    for training in (1, 2):  # pre-training with four sets, fine-tuning with gradient forces
        one, *two = (torch.load(folder / f"gradients.{training}.{rank}.pt", weights_only=True)
                     for folder, rank in ((alone, 0), (pair, 0), (pair, 1)))
        assert {k for k, g in one.items() if g is None} == {k for k, g in two[0].items() if g is None}
        assert all(g is None or torch.equal(g, two[1][k]) for k, g in two[0].items())
        one, two = ({k: g for k, g in found.items() if g is not None} for found in (one, two[0]))
        assert furthest(one, two) < 1e-6 * max(1.0, *(float(g.abs().max()) for g in one.values()))
        assert max(float(g.abs().max()) for g in one.values()) > 0.01


def test_two_processes_have_the_weights_of_one(alone, pair):
    for file in WEIGHTS:
        assert furthest(load_file(alone / file), load_file(pair / file)) < 1e-6
    for file in RECORDS:
        one, two = read_record(alone / file), read_record(pair / file)
        assert (one["processes"], two["processes"]) == (1, 2)
        assert one["parameters"] == two["parameters"] and one["updates"] == two["updates"]
        for a, b in zip(one["history"], two["history"]):
            assert a.keys() == b.keys()
            assert all(b[k] == pytest.approx(a[k], rel=1e-5) for k in a if not k.endswith("seconds"))


def test_killed_at_every_moment_the_run_ends_with_the_same_bits(alone, tmp_path):
    """While checkpoints, weights and records are written, in a validation; also with processes
    that prepare data."""
    kills = ("pretrain:checkpoint", "pretrain:validation", "pretrain:weights", "pretrain:record",
             "finetune:validation", "finetune:checkpoint:1", "finetune:record")
    killed = run(tmp_path / "killed", "--kills", ",".join(kills))
    for file in (*WEIGHTS, "work/finetune/rmd17_ethanol/JMP-S/predictions.npz"):
        assert file_sha256(killed / file) == file_sha256(alone / file), file
    for file in RECORDS:
        one, two = read_record(alone / file), read_record(killed / file)
        assert [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in one["history"]] == \
            [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in two["history"]]
    left = [p.name for p in (killed / "work").rglob("*") if p.suffix == ".tmp" or "checkpoint" in p.name]
    assert left == []
    for log in killed.rglob("log.csv"):
        rows = log.read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == [str(k + 1) for k in range(len(rows) - 1)] and len(rows) > 4


def test_shares_are_balanced_and_whole():
    sizes = [70, 9, 21, 21, 4, 70, 12, 9]
    shares = balanced(sizes, 3)
    assert sorted(place for share in shares for place in share) == list(range(8))
    loads = [sum(sizes[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= 4 and all(share == sorted(share) for share in shares)
    assert balanced(sizes, 1) == [list(range(8))]
    assert balanced([5], 2) == [[0], []]


def where(folder: str, most: int) -> None:
    """Says who it is; a process of rank ``most`` or more fails."""
    from jmp_lib.train.processes import Processes

    processes = Processes("cpu")
    Path(folder, f"{processes.rank}-of-{processes.size}").touch()
    if processes.rank >= most:
        raise ValueError("the data are damaged: get them again")
    if most < processes.size:
        time.sleep(300)  # as one that waits for the others


def test_processes_are_started_here(tmp_path, monkeypatch):
    """``--devices 2`` needs no torchrun: a function goes to two new programs, and an error comes
    back as its sentence."""
    monkeypatch.setenv("PYTHONPATH", str(PROGRAM.parent))
    in_processes(2, where, str(tmp_path), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0-of-2", "1-of-2"]
    with pytest.raises(RuntimeError, match="ValueError: the data are damaged: get them again"):
        in_processes(2, where, str(tmp_path), 1)  # the other one is ended


def test_sigterm_reaches_processes_that_were_started_here(tmp_path):
    """The command line with ``--devices 2``: code 143, the checkpoint of the last update, which one process takes up,
    and its numbers in the end. (New processes import torch, which takes most of the time: as few as can be.)"""
    longer = tmp_path / "longer.yaml"
    text = (PROGRAM.parents[1] / "jmp_lib" / "profiles" / "smoke.yaml").read_text()
    for name in ("cosine_until", "stop_at"):
        text = text.replace(f"{name}: 6 updates", f"{name}: 20 updates", 1)
    longer.write_text(text)
    command = [sys.executable, "-m", "jmp_lib", "pretrain", "--profile", str(longer),
               "--sizes", "small", "--devices", "2"]
    log = tmp_path / "work" / "pretrain" / "small" / "log.csv"
    training = subprocess.Popen([*command, "--results-dir", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    pretrain(load_profile(str(longer)), "small", tmp_path / "whole", progress=False)  # meanwhile
    end = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 1):
        assert time.monotonic() < end and training.poll() is None
        time.sleep(0.02)
    training.send_signal(signal.SIGTERM)
    said = training.communicate(timeout=120)[1]
    assert training.returncode == 143 and "SIGTERM after update" in said and "goes on from there" in said, said
    assert list(log.parent.glob("checkpoint-*.pt"))
    pretrain(load_profile(str(longer)), "small", tmp_path, progress=False)
    assert furthest(load_file(tmp_path / WEIGHTS[0]), load_file(tmp_path / "whole" / WEIGHTS[0])) < 1e-6
    one, two = read_record(tmp_path / RECORDS[0])["machines"]
    assert one["from_update"] == 0 < two["from_update"] < 20 and (one["processes"], two["processes"]) == (2, 1)
