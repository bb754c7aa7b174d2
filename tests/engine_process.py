"""Trains on the made-up sets; a program, so that torchrun can start several processes and a kill is a real one.

    torchrun --standalone --nproc-per-node 2 tests/engine_process.py OUT [KEY=VALUE ...]
    python tests/engine_process.py OUT [KEY=VALUE ...] --kills STAGE:PLACE[:WORKERS],...

Pre-trains the smoke profile and fine-tunes rmd17_ethanol with gradient forces.  --kills: every entry is one attempt
in a process of its own, which ends itself with SIGKILL at that place; at last an attempt that nothing disturbs.
STAGE: pretrain, finetune.  WORKERS: processes that prepare data in this attempt.
"""

import os
import signal
import sys
from pathlib import Path

import torch
import yaml

from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning, joint_sets, pretraining, trainer
from toy_sets import toy_pretraining, toy_task


def use_toy_sets() -> None:
    """The toy sets stand in for the data of pre-training and fine-tuning, where the modules look them up."""
    joint_sets.load_pretraining_data = toy_pretraining
    finetuning.load_task_data = toy_task


def keep_gradients(out: Path) -> None:
    """The summed gradient of the first update of training n goes to OUT/gradients.<n>.<rank>.pt."""
    original, seen = trainer._gradient_norm, []

    def norm(run):
        if not seen or seen[-1] is not run:
            seen.append(run)
            gradients = {n: None if p.grad is None else p.grad.clone() for n, p in run.model.named_parameters()}
            torch.save(gradients, out / f"gradients.{len(seen)}.{os.environ.get('RANK', 0)}.pt")
        return original(run)

    trainer._gradient_norm = norm


def kill_at(place: str) -> None:
    """SIGKILL to this process at ``place``: checkpoint (half of it written), validation (the second one),
    weights or record (written, not yet in place)."""
    end = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    replace, save, validate, count = os.replace, torch.save, trainer._validate, []

    def replaced(source, target):
        target = Path(target)
        if place == "record" and "records" in target.parts or place == "weights" and target.suffix == ".safetensors":
            end()
        replace(source, target)

    def saved(value, stream):
        save(value, stream)
        if place == "checkpoint":
            stream.truncate(stream.tell() // 2)
            end()

    def validated(*arguments):
        validate(*arguments)
        count.append(1)
        if place == "validation" and len(count) == 2:
            end()

    os.replace, torch.save, trainer._validate = replaced, saved, validated


def work(out: Path, changes: dict, stage: str = "", place: str = "", workers: str = "0") -> None:
    changes = {"finetuning.families.rmd17.batch_size": 3, **changes}  # of 10 structures, so the last batch has one
    profile = load_profile("smoke", device="cpu", **{"engine.workers_data": int(workers), **changes})
    if stage == "pretrain":
        kill_at(place)
    pretraining.pretrain(profile, "small", out, progress=False)
    if stage == "finetune":
        kill_at(place)
    finetuning.finetune(profile, "rmd17_ethanol", "JMP-S", out, progress=False)


def main(arguments: list[str]) -> None:
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    changes = {k: yaml.safe_load(v) for k, v in (a.split("=", 1) for a in arguments[1:] if "=" in a)}
    use_toy_sets()
    if "--kills" in arguments:
        for entry in arguments[arguments.index("--kills") + 1].split(","):
            child = os.fork()  # the parent has trained nothing, so it has no threads that a fork would lose
            if child == 0:
                work(out, changes, *entry.split(":"))
                os._exit(0)
            if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                sys.exit(f"the attempt {entry} was not killed")
    else:
        keep_gradients(out)
    work(out, changes)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":  # processes that prepare data import this file again
    main(sys.argv[1:])
