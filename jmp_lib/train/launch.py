"""Starts the processes of a training that wants several, from a notebook, a script or the command line.

    python -m jmp_lib pretrain --devices 2              (this module starts two processes through torchrun)
    torchrun --nproc-per-node 8 -m jmp_lib pretrain     (torchrun or srun has started them: nothing is started here)

The processes are started as new programs, so a notebook may hold threads or a GPU meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from jmp_lib.pool import Terminated, end_with
from jmp_lib.profile import Engine, Profile, profile_from_dict
from jmp_lib.train.processes import is_first, launched


def needed(engine: Engine) -> bool:
    """Whether a training with ``engine`` has its processes still to be started.

    Raises ``ValueError`` for several nodes: only torchrun or srun reach other machines.
    """
    if launched() is not None:
        return False
    if engine.nodes > 1:
        raise ValueError(f"engine.nodes is {engine.nodes}: start the command on every node, with srun or with torchrun "
                         "--nnodes, for instance: srun python -m jmp_lib pretrain --profile paper")
    return engine.devices > 1


def in_processes(profile: Profile, out_dir: Path, progress: bool, **job) -> None:
    """Run ``pretrain`` (job: size) or ``finetune`` (job: task_id, arm, fold) in ``engine.devices`` processes.

    SIGTERM is passed on, so that a checkpoint is written.  Raises ``RuntimeError`` with the sentence of the process
    that failed, and ``SystemExit`` when the run was ended from outside.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps({"profile": dataclasses.asdict(profile), "out_dir": str(Path(out_dir).resolve()),
                                    "progress": progress, "job": job, "parent": os.getpid()}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                   str(profile.engine.devices), "-m", "jmp_lib.train.launch", str(file)]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(profile.threads)},
                                   stdin=subprocess.DEVNULL)
        code = _wait(process)
        failed = Path(folder) / "error.txt"
        if failed.exists():
            raise RuntimeError(failed.read_text())
        if code in (143, -signal.SIGTERM) or (Path(folder) / "terminated").exists():
            print("the training was ended by SIGTERM; its checkpoint is written, and the same command goes on from "
                  "there", file=sys.stderr, flush=True)
            raise SystemExit(143)
        if code:
            raise RuntimeError(f"a training process was ended from outside (exit code {code}; often: out of memory); "
                               "run again to go on")


def _wait(process: subprocess.Popen) -> int:
    """Exit code of ``process``; SIGTERM and an interrupt reach it, not only this process."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate()) if here else None
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        if here:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def main(file: str) -> int:
    """One of the started processes."""
    import torch.distributed

    values = json.loads(Path(file).read_text())
    profile, job = profile_from_dict(values["profile"]), values["job"]
    end_with(values["parent"])
    try:
        if "task_id" in job:
            from jmp_lib.train.finetune import finetune

            finetune(profile, out_dir=Path(values["out_dir"]), progress=values["progress"], **job)
        else:
            from jmp_lib.train.pretrain import pretrain

            pretrain(profile, out_dir=Path(values["out_dir"]), progress=values["progress"], **job)
    except Terminated:
        Path(file).with_name("terminated").touch()
        return 143
    except (ValueError, FileNotFoundError, RuntimeError, FloatingPointError) as error:
        if is_first() or not Path(file).with_name("error.txt").exists():
            Path(file).with_name("error.txt").write_text(f"{type(error).__name__}: {error}")
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
