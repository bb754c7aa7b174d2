"""Which learning rate for which kind of arm: a small grid, on the validation parts of a few named tasks.

    python -m tools.study_rates --profile mini --out results/rates [--tasks ...] [--arms ...]    # goes on where it was stopped

Arms from scratch try every rate of ``RATES``; pre-trained arms every one with every multiplier of ``BODY`` for the rate of
embedding and blocks against heads. Everything else is the profile's. A record for every cell under ``records/rates``, all of
them in ``rates.csv``, and the choice: for each kind of arm and of label the least geometric mean over tasks of the best
validation error, relative to the best cell of the task. No test structure is loaded into a network.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import records
from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_atomically
from jmp_lib.pool import run_jobs
from jmp_lib.settings import Profile, load_profile
from jmp_lib.train import finetuning
from jmp_lib.train.job import Job
from jmp_lib.train.schedule import layerwise_groups
from jmp_lib.train.weights import load_weights

RATES = (5.0e-4, 1.5e-3, 4.0e-3)
BODY = (1.0, 0.3)
TASKS = ("rmd17_ethanol", "rmd17_uracil", "md22_ac-ala3-nhme", "spice_dipeptides", "qm9_delta_eps", "qm9_u0", "matbench_mp_e_form",
         "matbench_phonons")
COLUMNS = ["task", "arm", "lr", "body", "best_val", "unit", "best_step", "updates", "n_val", "seconds"]


def cell(profile: Profile, task_id: str, arm: str, lr: float, body: float, out_dir: Path) -> dict:
    """The record of one training, made unless it is there; in place of the test part it predicts the validation part."""
    out_dir = Path(out_dir).resolve()
    data, pretrained = finetuning.task_data(profile, task_id), arm.startswith("JMP")
    start = finetuning.start_of(profile, arm, out_dir)
    weights = load_weights(out_dir / start["pretrained"]["file"]) if pretrained else None
    what = finetuning.of_task(profile, data, arm, start["scale_factors"], weights)
    blocks = (body,) * what.backbone.num_blocks
    what = replace(what, test=what.val, groups=layerwise_groups(body, blocks) if pretrained else what.groups,
                   settings=what.settings.model_copy(update={"lr": type(what.settings.lr)(scratch=lr, pretrained=lr)}))
    parameters = {**finetuning.finetuning_parameters(profile, data.task, arm), "settings": what.settings.of_arm(pretrained),
                  "learning_rate_multipliers": {group.name: group.multiplier for group in what.groups}}
    about = {"kind": "rates", "task": task_id, "arm": arm, "unit": data.task.printed_unit, "body": body}
    path = out_dir / "records" / "rates" / task_id / f"{arm}--{lr:g}--{body:g}.json"
    fingerprint = records.fingerprint({**about, "start": start, "parameters": parameters, "data": [data.data_sha256, data.split_sha256]})

    def recipe(job: Job):
        done, fields, *_ = finetuning.finetune_data(what, job, about)
        return done, {**about, **fields, "parameters": parameters, "start": start}, {}

    return Job(f"{task_id} {arm} {lr:g} {body:g}", path, out_dir, fingerprint, profile, what.settings.precision, False).run(recipe)


def table(out_dir: Path) -> pd.DataFrame:
    """One row per record."""
    found = [records.read_record(path) for path in sorted((out_dir / "records" / "rates").glob("*/*.json"))]
    return pd.DataFrame([{**r, "seconds": r["train_time_s"]} for r in found])[COLUMNS]


def choice(rows: pd.DataFrame) -> pd.DataFrame:
    """Per kind of arm and of label (forces, property): geometric mean of the error of each cell relative to the task's best."""
    rows = rows.assign(kind=np.where(rows["arm"].str.startswith("JMP"), "pretrained", "scratch"),
                       label=["forces" if get_task(task).is_force_task else "property" for task in rows["task"]])
    rows["relative"] = np.log(rows["best_val"] / rows.groupby(["task", "arm"])["best_val"].transform("min"))
    found = rows.groupby(["label", "kind", "lr", "body"]).agg(relative=("relative", "mean"), tasks=("relative", "size"))
    return found.assign(relative=np.exp(found["relative"])).reset_index()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.study_rates", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--out", type=Path, required=True, help="folder of records and rates.csv")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--arms", default="GN-OC-S,JMP-S")
    parser.add_argument("--pretrained", help="folder of a pre-training to start from, of the size of the arms")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    arms = given.arms.split(",")
    start = {finetuning.size_of(arm): given.pretrained for arm in arms} if given.pretrained else {}
    profile = load_profile(given.profile, **({"pretrained": start} if start else {}))
    jobs = [(f"{task} {arm} {lr:g} {body:g}", cell, (profile, task, arm, lr, body, given.out))
            for task in given.tasks.split(",") for arm in arms for lr in RATES
            for body in (BODY if arm.startswith("JMP") else (1.0,))]
    failed = [outcome for outcome in run_jobs(jobs, given.workers, "rates") if outcome.error]
    rows = table(given.out.resolve())
    with write_atomically(given.out / "rates.csv") as stream:
        rows.to_csv(stream, index=False, float_format="%.6g")
    print(choice(rows).to_string(index=False, float_format="%.3f"))
    for outcome in failed:
        print(f"{outcome.label}: {outcome.error}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
