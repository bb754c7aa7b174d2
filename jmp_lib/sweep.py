"""The sweep of a profile: every pre-training and fine-tuning as one job of Snakemake (``Snakefile``).

    snakemake -n --config profile=paper                     # what would run
    snakemake --cores 2 --config profile=mini               # all of it, here
    python -m jmp_lib sweep --profile mini --cores 2        # the same; also after a kill

Snakemake orders the jobs and starts them, here or on a cluster.  Each job is the ordinary command line and ends with
its record, so the notebooks find finished runs and only collect them.  ``sweep`` adds what a killed sweep needs: a
lock that goes with it; it repeats unfinished jobs (which go on from their checkpoints) and runs again what
other settings made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from jmp_lib import paths, workbook
from jmp_lib.files import locked
from jmp_lib.parameters import check_keys, choose, convert
from jmp_lib.records import finetune_record_path, finished_record, pretrain_record_path
from jmp_lib.settings import Profile
from jmp_lib.train import finetuning, pretraining
from jmp_lib.train.finetuning import size_of

# options of all commands of a sweep
SHARED = ("profile", "data", "data_root", "results_dir", "seed", "max_steps", "max_eval")
KEYS = (*SHARED, "tasks", "arms")  # of ``--config``


Job = namedtuple("Job", ("task", "arm", "fold"))  # one fine-tuning; fold 0 where there are none


@dataclass(frozen=True)
class Sweep:
    """What a sweep holds: its profile, where its results lie, its jobs by their records, and the tasks without data."""

    profile: Profile
    results_dir: Path
    config: dict
    jobs: dict[str, Job]
    left_out: dict[str, str]  # task -> why, in one sentence

    @property
    def sizes(self) -> tuple[str, ...]:
        """Sizes whose pre-training the sweep needs."""
        wanted = dict.fromkeys(size_of(job.arm) for job in self.jobs.values() if job.arm.startswith("JMP"))
        return tuple(size for size in wanted if size not in self.profile.pretrained)

    @property
    def options(self) -> str:
        """The options that all commands of the sweep share."""
        return " ".join(f"--{key.replace('_', '-')} '{self.config[key]}'" for key in SHARED
                        if self.config.get(key) is not None)

    @property
    def words(self) -> str:
        """What the sweep is, for its start."""
        first = f"sweep of profile {self.profile.name}: {len(self.jobs)} fine-tunings, results in {self.results_dir}"
        return "\n".join([first, *(f"left out: {task}: {reason}" for task, reason in self.left_out.items())])

    def needs(self, record: str) -> list[str]:
        """What a fine-tuning waits for: JMP arms for the pre-training, GN-OC arms for the scale factors only, and none
        of them where the profile names given weights (``pretrained``), which bring their factors."""
        arm = self.jobs[record].arm
        if size_of(arm) in self.profile.pretrained:
            return []
        pretraining = pretrain_record_path(self.results_dir, size_of(arm))
        return [str(pretraining if arm.startswith("JMP")
                    else self.results_dir / "work/scale_factors" / pretraining.name)]


def read(config: dict) -> Sweep:
    """The sweep that ``--config`` describes.  Raises ``ValueError`` for an unknown key, task, arm or setting.

    Published tasks whose files are not under ``data_root`` are left out; without a ``data_root`` nothing is (for a list
    of all jobs).  tasks, arms: names with commas.
    """
    check_keys(config, KEYS, "--config")
    config = {"profile": "mini", **{k: v for k, v in config.items() if v not in (None, "")}}
    values = {key: convert(key, value) for key, value in config.items()}
    profile = workbook.resolved_profile(values)
    tasks, arms = workbook.choose_tasks(values, profile, None), choose(values.get("arms"), list(profile.arms), "arm")
    left_out = workbook.missing(tasks, profile)
    results_dir = workbook.results_folder(config.get("results_dir"), profile)
    jobs = {str(finetune_record_path(results_dir, *job)): job for task in tasks if task not in left_out
            for job in (Job(task, arm, fold) for arm in arms for fold in profile.folds_of(task))}
    if not jobs:
        raise ValueError("; ".join(left_out.values()))
    config |= {"data_root": profile.data_root} if profile.data_root else {}  # absolute: jobs have another folder
    return Sweep(profile, results_dir, config | {"results_dir": str(results_dir)}, jobs, left_out)


def outdated(sweep: Sweep) -> list[str]:
    """Records that are there but not done: made with other settings (of the pre-training too) or data than the
    sweep's, or without their files. The question is the one that the runs themselves ask
    (``records.finished_record``)."""
    profile, folder = sweep.profile, sweep.results_dir
    wanted = {str(pretrain_record_path(folder, size)): partial(pretraining.fingerprint, profile, size)
              for size in sweep.sizes}
    wanted |= {path: partial(finetuning.fingerprint, profile, *job, folder) for path, job in sweep.jobs.items()}
    found = []
    for path in filter(os.path.isfile, wanted):
        with suppress(FileNotFoundError):  # data that are gone: the record stays, it could not be made again
            if not finished_record(Path(path), folder, wanted[path]()):
                found.append(path)
    return found


def main(config: dict, cores: int, extra: list[str]) -> int:
    """Runs the sweep under Snakemake (with the options ``extra``) from wherever it stands, then, unless tasks or arms
    are chosen, its variants one by one; returns the last exit code. RuntimeError when another one of the same results
    runs."""
    root = paths.checkout_dir()
    if root is None or not (root / "Snakefile").is_file():
        raise FileNotFoundError("no Snakefile here: `sweep` needs a checkout of the repository")
    sweep = read(config)
    folder = sweep.results_dir / "work" / "sweep"
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"{key}={value}" for key, value in sweep.config.items()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder),
               # Snakemake's own lock outlives a kill, ours does not
               "--config", *settings, "--cores", str(cores), "--nolock"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    with locked(folder / "lock", f"a sweep of {sweep.results_dir} is running already; wait for it or stop it"):
        # the tables always: what is new is else judged by the clock
        again = ["--forcerun", str(sweep.results_dir / "tables" / "all_tasks.csv"), *outdated(sweep)]
        # jobs do not share a GPU
        shared = ["--resources", f"gpu={count}"] if (count := torch.cuda.device_count()) else []
        code = subprocess.run([*command, "--rerun-incomplete", "--keep-going", *shared, *again, *extra],
                              env=environment, check=False).returncode
    whole = not any(config.get(key) for key in ("tasks", "arms")) and not sweep.profile.variant
    for variant in sweep.profile.variants if code == 0 and whole else ():
        code = code or main({**config, "profile": f"{config.get('profile', 'mini')}:{variant}"}, cores, extra)
    return code
