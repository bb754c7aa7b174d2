"""Which learning rate for which arm: a small grid, on the validation parts of a few named tasks.

    python -m tools.study_rates [--profile mini] [--tasks ...] [--arms ...]     # goes on where it was stopped
    python -m tools.study_rates --own                # the example of notebook 14, 100 and 300 updates: own.csv
    python -m tools.ship rates                                                   # to results/shipped/rates

Every arm tries every rate of ``RATES``. Everything else is the profile's. Under ``results/rates`` lie a record for
every cell, all of them in ``rates.csv``, and in ``choice.csv`` for each arm and group of tasks the geometric mean
over tasks of the best validation error relative to the best cell of the task: the least is chosen. A family of
forces is a group (families differ in updates, batches and loss), the properties are one. No test structure is seen
by a network.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import paths, records
from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_atomically
from jmp_lib.model.weights import load_weights
from jmp_lib.own import workflow
from jmp_lib.own.data import split_own
from jmp_lib.pool import run_jobs
from jmp_lib.settings import ARMS, Profile, load_profile
from jmp_lib.train import finetuning
from jmp_lib.train.job import Job

RATES = {"forces": (2.0e-4, 5.0e-4, 1.5e-3, 4.0e-3, 1.0e-2), "property": (2.0e-4, 5.0e-4, 1.5e-3, 4.0e-3)}
TASKS = ("rmd17_uracil", "md22_ac-ala3-nhme", "spice_dipeptides", "qm9_delta_eps", "qm9_u0", "matbench_phonons")
OWN_UPDATES, SEED = (100, 300), 42
COLUMNS = ["task", "arm", "lr", "best_val", "unit", "best_step", "updates", "n_train", "n_val",
           "seed", "pretrained", "commit"]


def cell(profile: Profile, task_id: str, arm: str, lr: float, out_dir: Path) -> dict:
    """The record of one training, made unless it is there; in place of the test part it predicts
    the validation part."""
    out_dir = Path(out_dir).resolve()
    data = finetuning.task_data(profile, task_id)
    start = finetuning.start_of(profile, arm, out_dir)
    weights = load_weights(out_dir / start["pretrained"]["file"]) if "pretrained" in start else None
    what = finetuning.of_task(profile, data, arm, start["scale_factors"], weights)
    what = replace(what, test=what.val, rate=lr)
    parameters = finetuning.finetuning_parameters(profile, data.task, arm)
    parameters["settings"] = {**parameters["settings"], "lr": lr}
    about = {"kind": "rates", "task": task_id, "arm": arm, "unit": data.task.printed_unit}
    path = out_dir / "records" / "rates" / task_id / f"{arm}--{lr:g}.json"
    fingerprint = records.fingerprint({**about, "start": start, "parameters": parameters,
                                       "data": [data.data_sha256, data.split_sha256]})

    def recipe(job: Job):
        done, fields, *_ = finetuning.finetune_data(what, job, about)
        del fields["n_test"]
        return done, {**about, **fields, "parameters": parameters, "start": start}, {}

    return Job(f"{task_id} {arm} {lr:g}", path, out_dir, fingerprint, profile,
               what.settings.precision, False).run(recipe)


def own_cell(profile: str, updates: int, lr: float, arm: str, out_dir: Path) -> dict:
    """The record of one training on the 100 frames of notebook 14. Its test error is in it;
    rates are compared by ``best_val``."""
    data = workflow.read_example("example")
    return workflow.finetune_own(
        load_profile(profile, **{"finetuning.families.rmd17.lr": lr}), data, split_own(data, seed=SEED),
        workflow.own_start(workflow.SHIPPED, data), arm, seed=SEED, out_dir=Path(out_dir) / "own" / f"{updates}-{lr:g}",
        updates=updates, progress=False)


def own_table(out_dir: Path) -> pd.DataFrame:
    """One row per record of ``own_cell``: lowest validation error of the forces, and test errors (eV, eV/Å)."""
    found = [read for path in sorted((Path(out_dir) / "own").glob("*/own/example/*.json"))
             for read in [records.read_record(path)]]
    rows = [{"updates": r["updates"], "arm": r["arm"], "lr": r["lr"], "best_val": r["best_val"],
             "best_step": r["best_step"], **{f"test {name}": error for name, error in r["value"].items()},
             "n_train": r["n_train"], "n_test": r["n_test"], "seed": r["seed"], "commit": r["commit"]} for r in found]
    return pd.DataFrame(rows).sort_values(["updates", "arm", "lr"], ignore_index=True)


def group_of(task_id: str) -> str:
    """The family of a task of forces, else property."""
    task = get_task(task_id)
    return task.family if task.is_force_task else "property"


def table(out_dir: Path) -> pd.DataFrame:
    """One row per record; ``pretrained``: SHA-256 of the weights that it starts from, or nothing."""
    found = [records.read_record(path) for path in sorted((Path(out_dir) / "records" / "rates").glob("*/*.json"))]
    return pd.DataFrame([{**r, "pretrained": r["start"].get("pretrained", {}).get("sha256", "")} for r in found],
                        columns=COLUMNS)


def choice(rows: pd.DataFrame) -> pd.DataFrame:
    """Per arm and group (rmd17, md22, spice, property): geometric mean of the error of each cell
    relative to the task's best.

    Only rows of tasks whose whole grid was run can be compared: ``tasks`` says of how many each mean is.
    """
    rows = rows.assign(group=rows["task"].map(group_of))
    rows["relative"] = np.log(rows["best_val"] / rows.groupby(["task", "arm"])["best_val"].transform("min"))
    found = rows.groupby(["group", "arm", "lr"]).agg(relative=("relative", "mean"), tasks=("relative", "size"))
    return found.assign(relative=np.exp(found["relative"])).reset_index()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.study_rates", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--out", type=Path, default=paths.results_dir() / "rates", help="folder of records and tables")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="the example of notebook 14 instead of tasks")
    given = parser.parse_args(arguments)
    profile = load_profile(given.profile)
    if given.own:
        jobs = [(f"{updates} {arm} {lr:g}", own_cell, (given.profile, updates, lr, arm, given.out))
                for updates in OWN_UPDATES for arm in workflow.ARMS for lr in RATES["forces"]]
        failed = [outcome.error for outcome in run_jobs(jobs, given.workers, "rates") if outcome.error]
        with write_atomically(given.out / "own.csv") as stream:
            own_table(given.out).to_csv(stream, index=False, float_format="%.4g", lineterminator="\n")
        print(own_table(given.out).to_string(index=False), *failed, sep="\n")
        return bool(failed)
    jobs = [(f"{task} {arm} {lr:g}", cell, (profile, task, arm, lr, given.out))
            for task in given.tasks.split(",") for arm in given.arms.split(",")
            for lr in RATES["forces" if get_task(task).is_force_task else "property"]]
    failed = [outcome for outcome in run_jobs(jobs, given.workers, "rates") if outcome.error]
    rows = table(given.out)
    for name, found in (("rates", rows), ("choice", choice(rows))):
        with write_atomically(given.out / f"{name}.csv") as stream:
            found.to_csv(stream, index=False, float_format="%.4g", lineterminator="\n")
    print(choice(rows).to_string(index=False, float_format="%.3f"))
    for outcome in failed:
        print(f"{outcome.label}: {outcome.error}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
