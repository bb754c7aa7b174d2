"""What a profile costs on this machine: time, memory and disk of every run, and which setting makes it fit.

    python -m jmp_lib plan --profile paper --data-root DIR

A minute of real steps gives the cost of an update (``jmp_lib.plan_cost``), the data at hand or the published counts
say how many there are (``jmp_lib.plan_sizes``). Times are good to about a factor of three; how soon a run stops by
itself is not known beforehand, so each has a range: stopped when its patience ends after the cosine, to all updates
that its settings allow.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from jmp_lib import plan_cost, plan_sizes, records
from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_json
from jmp_lib.plan_cost import Cost
from jmp_lib.plan_sizes import Workload
from jmp_lib.results.tables import markdown, save_table
from jmp_lib.settings import Profile
from jmp_lib.sweep import Sweep
from jmp_lib.train.batches import KEPT_MB, choose_device
from jmp_lib.train.schedule import in_updates

GB = 1e9
PEAK = 2.0  # largest memory of an update over what its backward pass keeps: padding and passing arrays
HALF = 0.6  # of it that remains with 16-bit numbers
BASE = {"device": 0.6 * GB, "host": 1.5 * GB}  # libraries
WEEK = 7 * 24.0  # hours: the time limit of the official runs
UNCERTAINTY = 3.0  # of times; on the mini profile the plan gives 0.4 to 1.4 of the recorded times


@dataclass(frozen=True)
class Machine:
    """What there is: name of the device, bytes of its memory, of the host's memory and of free disk."""

    device: str
    cuda: bool
    device_bytes: float
    host_bytes: float
    disk_bytes: float


def this_machine(profile: Profile, folder: Path) -> Machine:
    """The machine that this process runs on; on a CPU the device's memory is the host's."""
    device = choose_device(profile.device)
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else host
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return Machine(
        records.device_name(device), device.type == "cuda", float(memory), host, float(shutil.disk_usage(there).free)
    )


def run_row(
    name: dict,
    cost: Cost,
    work: Workload,
    settings,
    updates,
    updates_low: int,
    machine: Machine,
    ema: bool,
    predicted: float,
) -> dict:
    """One run: counts, hours (low, high), memory of device and host, disk (kept, while it runs), what does not fit.

    name: the columns that say which run. predicted: numbers stored per test structure.
    """
    batch = work.size.times(settings.batch_size)
    per_structure = (
        cost.update_seconds(work.size.times(settings.eval_batch_size)) * cost.evaluation / settings.eval_batch_size
    )
    half = HALF if machine.cuda and settings.precision != "float32" else 1.0
    per_batch = PEAK * half * cost.activation_bytes(batch)
    fixed = cost.state_bytes(ema) + BASE["device"]
    graphs = sum(min(work.size.graph_bytes * count, KEPT_MB * 1e6) for count in (work.n_train, work.n_val, work.n_test))
    host = BASE["host"] + graphs + (0 if machine.cuda else fixed + per_batch)

    def hours(count: int) -> float:
        validations = -(-count // updates.validate_every)
        return (count * cost.update_seconds(batch) + (validations * work.n_val + work.n_test) * per_structure) / 3600

    row = {
        **name,
        "n_train": work.n_train,
        "n_val": work.n_val,
        "n_test": work.n_test,
        "counts": work.counts_from,
        "sizes": work.sizes_from,
        "atoms": work.size.atoms,
        "edges": work.size.edges,
        "batch": settings.batch_size,
        "precision": settings.precision,
        "updates_low": updates_low,
        "updates_high": updates.stop_at,
        "seconds_per_update": cost.update_seconds(batch),
        "hours_low": hours(updates_low),
        "hours_high": hours(updates.stop_at),
        "device_gb": (fixed + per_batch) / GB,
        "host_gb": host / GB,
        "disk_gb": (4 * cost.parameters + 16 * predicted * work.n_test) / GB,
        "disk_while_running_gb": cost.parameters * (16 + 4 * ema) / GB,
    }
    return row | {"does_not_fit": "; ".join(advice(row, work, fixed, per_batch, machine))}


def advice(row: dict, work: Workload, fixed: float, per_batch: float, machine: Machine) -> list[str]:
    """What does not fit, and the setting that makes it fit."""
    words, edges = [], row["edges"] * row["batch"]
    if row["device_gb"] * GB > machine.device_bytes:
        room = machine.device_bytes - fixed
        max_edges = int(room / per_batch * edges) if room > 0 else 0
        if max_edges >= row["edges"]:
            words.append(f"device memory: set max_edges: {max_edges} (micro-batches with the same gradient)")
        else:
            words.append(
                "device memory, even for one structure: bfloat16-mixed precision, fewer max_neighbors of the graph, "
                "or a device with more memory"
            )
    if row["host_gb"] * GB > machine.host_bytes and (machine.cuda or not words):
        words.append("host memory: smaller parts of a batch (max_edges), or fewer runs at once (cores of the sweep)")
    if row["hours_low"] > WEEK:
        words.append(
            f"more than a week: a machine {math.ceil(row['hours_low'] / WEEK)} times as fast, or several devices"
        )
    return words


def finetuning_rows(sweep: Sweep, costs: dict, machine: Machine) -> list[dict]:
    """One row for every fine-tuning of the sweep."""
    rows = []
    for job in sweep.jobs:
        task, profile = get_task(job.task), sweep.profile
        settings = profile.finetune_settings(task.family, task.id)
        work = plan_sizes.finetuning(profile, task.id, job.fold)
        updates = in_updates(settings.schedule, -(-work.n_train // settings.batch_size), profile.max_steps)
        low = min(updates.stop_at, updates.cosine_until + settings.early_stopping_patience * updates.validate_every)
        head = (settings.force_head or task.head) if task.is_force_task else "property"
        rows.append(
            run_row(
                {"run": "fine-tuning", "family": task.family, "task": task.id, "arm": job.arm, "fold": job.fold},
                costs[job.size, head],
                work,
                settings,
                updates,
                low,
                machine,
                settings.ema_decay is not None,
                3 * work.size.atoms if task.is_force_task else 1,
            )
        )
    return rows


def pretraining_rows(sweep: Sweep, costs: dict, machine: Machine) -> list[dict]:
    """One row for every pre-training of the sweep; its cost is that of direct forces."""
    settings, rows = sweep.profile.pretraining, []
    for size in sweep.sizes:
        if size in sweep.profile.pretrained:
            continue
        work = plan_sizes.pretraining(sweep.profile)
        updates = in_updates(settings.schedule, -(-work.n_train // settings.batch_size), sweep.profile.max_steps)
        rows.append(
            run_row(
                {
                    "run": "pre-training",
                    "family": "pre-training",
                    "task": "",
                    "arm": f"JMP-{size[0].upper()}",
                    "fold": 0,
                },
                costs[size, "direct_forces"],
                work,
                settings,
                updates,
                updates.stop_at,
                machine,
                True,
                0,
            )
        )
    return rows


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and arm, the largest memory of its runs and the sums of hours and disk; last row: all."""
    parts = [(*key, part) for key, part in runs.groupby(["family", "arm"], sort=False)] + [("all", "", runs)]
    return pd.DataFrame(
        [
            {
                "family": family,
                "arm": arm,
                "runs": len(part),
                "hours from": part["hours_low"].sum(),
                "hours to": part["hours_high"].sum(),
                "device / GB": part["device_gb"].max(),
                "host / GB": part["host_gb"].max(),
                "disk / GB": part["disk_gb"].sum(),
                "do not fit": int((part["does_not_fit"] != "").sum()),
            }
            for family, arm, part in parts
        ]
    )


def estimate(sweep: Sweep, seconds: float = 60.0) -> tuple[pd.DataFrame, dict]:
    """(one row per run, what was measured and assumed)."""
    device = choose_device(sweep.profile.device)
    torch.set_num_threads(min(sweep.profile.threads, os.cpu_count() or 1))
    machine = this_machine(sweep.profile, sweep.results_dir)
    costs = plan_cost.measure_costs(sweep.profile, device, seconds)
    runs = pd.DataFrame(pretraining_rows(sweep, costs, machine) + finetuning_rows(sweep, costs, machine))
    need = runs["disk_gb"].sum() + runs["disk_while_running_gb"].max() * sweep.profile.workers
    return runs, {
        "profile": sweep.profile.name,
        "machine": vars(machine),
        "threads": torch.get_num_threads(),
        "uncertainty_factor_of_time": UNCERTAINTY,
        "peak_over_kept_memory": PEAK,
        "half_precision_memory": HALF,
        "costs": plan_cost.as_plain(costs),
        "disk_needed_gb": need,
        "disk_fits": bool(need * GB < machine.disk_bytes),
        "left_out": sweep.left_out,
    }


def main(sweep: Sweep, seconds: float = 60.0) -> int:
    """Prints totals and what does not fit; writes ``plan/runs.csv``, ``plan/totals.csv`` and ``plan/plan.json``."""
    runs, about = estimate(sweep, seconds)
    table, folder = totals(runs), sweep.results_dir / "plan"
    save_table(runs, folder / "runs.csv"), save_table(table, folder / "totals.csv")
    write_json(folder / "plan.json", about | {"runs": runs.to_dict("records")})
    print(f"profile {about['profile']} on {about['machine']['device']}, one run at a time\n\n{markdown(table)}\n")
    print(
        f"Hours are good to a factor of about {UNCERTAINTY:g} either way, memory to a factor of two; 'from' is a run "
        "that stops as early as its settings allow, 'to' one that uses all its updates."
    )
    for (family, arm), part in runs[runs["does_not_fit"] != ""].groupby(["family", "arm"], sort=False):
        worst = part.loc[part["device_gb"].idxmax()]
        of = len(runs[(runs["family"] == family) & (runs["arm"] == arm)])
        print(
            f"Does not fit: {family} {arm}, {len(part)} of {of} runs; {worst['task'] or 'it'}: {worst['does_not_fit']}"
        )
    if not about["disk_fits"]:
        print(
            f"Disk: {about['disk_needed_gb']:.1f} GB are needed beside the data, "
            f"{about['machine']['disk_bytes'] / GB:.1f} GB are free: "
            "choose another --results-dir, or fewer tasks or folds"
        )
    print(f"All runs: {folder / 'runs.csv'}")
    return 0
