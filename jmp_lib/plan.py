"""What a profile costs on this machine: time, memory and disk of every run, and which setting makes it fit.

    python -m jmp_lib plan --profile paper --data-root DIR

A minute of real steps gives the cost of an update (``jmp_lib.plan_cost``). How many there are is told by the data at hand
where they can be read, else by the published counts, with structures of the embedded companion scaled to the published
mean number of atoms where one is known. Times are good to about a factor of three; how soon a run stops by itself is not
known beforehand, so each has a range: stopped when its patience ends after the cosine, to all updates that its settings
allow.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jmp_lib import facts, plan_cost, records
from jmp_lib.data import mini
from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.tasks import PRETRAINING_SETS, get_task, load_task_data
from jmp_lib.files import write_json
from jmp_lib.graphs import GraphConfig
from jmp_lib.plan_cost import Cost, Size, measure
from jmp_lib.results.tables import markdown, save_table
from jmp_lib.settings import Profile
from jmp_lib.sweep import Sweep
from jmp_lib.train.batches import KEPT_MB, choose_device
from jmp_lib.train.sampling import expanded_sizes, temperature_ratios
from jmp_lib.train.schedule import in_updates

SAMPLES = 3  # structures of a set whose graphs are built
GB = 1e9
PEAK = 2.0  # largest memory of an update over what its backward pass keeps: padding and passing arrays
HALF = 0.6  # of it that remains with 16-bit numbers
BASE = {"device": 0.6 * GB, "host": 1.5 * GB}  # libraries
WEEK = 7 * 24.0  # hours: the time limit of the official runs
UNCERTAINTY = 3.0  # of times; on the mini profile the plan gives 0.4 to 1.4 of the recorded times


@dataclass(frozen=True)
class Workload:
    """The data of one kind of run: counts of the parts, mean size of a structure, and where both come from."""

    n_train: int
    n_val: int
    n_test: int
    size: Size
    counts_from: str
    sizes_from: str


def typical(structures, graph: GraphConfig, atoms: float | None = None) -> Size:
    """Mean size of a few structures spread over a set, scaled to a mean of ``atoms`` where given."""
    chosen = np.unique(np.linspace(0, len(structures) - 1, SAMPLES).astype(int))
    mean = Size.mean([measure(structures[int(row)], graph) for row in chosen])
    return mean if atoms is None else mean.times(atoms / mean.atoms)


def published_atoms(text) -> float | None:
    """Mean atoms of ``datasets.csv``: "mean 73" and "2 to 63; mean 15" say it, "26 to 60" gives the middle."""
    if not isinstance(text, str):
        return None
    said = re.search(r"mean (\d+(?:\.\d+)?)", text)
    numbers = [float(said[1])] if said else [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    return sum(numbers) / len(numbers) if numbers else None


def finetuning_data(profile: Profile, task_id: str, fold: int) -> Workload:
    """The data of a fine-tuning, cut to the profile's caps."""
    task = get_task(task_id)
    settings, graph = profile.finetune_settings(task.family, task_id), profile.graphs[task.family]
    # folds differ by one structure and reading takes long: the first one that the profile runs stands for all
    counts, size = at_hand(profile.data, profile.data_root, task_id, profile.folds_of(task_id)[0], graph)
    origin = ("data at hand", "data at hand")
    if size is None:
        counts, atoms = facts.fold_counts(task_id)[fold], _task_atoms(task_id)
        size = _companion_size(task.mini_name, graph, atoms)
        origin = "published counts", "embedded companion" + (", scaled to the published mean of atoms" if atoms else "")
    caps = (settings.max_train, settings.max_val, settings.max_test)
    return Workload(*(n if cap is None else min(n, cap) for n, cap in zip(counts, caps)), size, *origin)


@cache
def at_hand(data: str, data_root: str | None, task_id: str, fold: int, graph: GraphConfig):
    """((n_train, n_val, n_test), size) of the data that can be read, or (None, None)."""
    try:
        loaded = load_task_data(task_id, data, data_root, fold=fold)
    except (FileNotFoundError, ValueError):
        return None, None
    return tuple(len(part) for part in (loaded.train, loaded.val, loaded.test)), typical(loaded.train, graph)


@cache
def _companion_size(name: str, graph: GraphConfig, atoms: float | None) -> Size:
    return typical(mini.load_mini(name), graph, atoms)


@cache
def _task_atoms(task_id: str) -> float | None:
    table = facts.datasets().dropna(subset=["task"])
    rows = table[[task_id == name or name.endswith("*") and task_id.startswith(name[:-1]) for name in table["task"]]]
    return published_atoms(rows["atoms_per_structure"].iloc[0]) if len(rows) else None


def pretraining_data(profile: Profile) -> Workload:
    """The joint pre-training: draws of one epoch, and the mean size of a drawn structure.

    Whole published sets are not read for it: their printed counts serve. What is generated, or put together with the
    published samples at hand, is read.
    """
    settings = profile.pretraining
    caps = {key: {"train": s.max_train, "val": s.max_val} for key, s in settings.datasets.items()}
    if settings.data == "published":
        table = facts.datasets().dropna(subset=["pretraining_name"]).set_index("pretraining_name")
        counts = [min(int(table.loc[key, "n_train_paper"]), caps[key]["train"] or 10**12) for key in PRETRAINING_SETS]
        sizes = [_companion_size(companion, profile.graphs[key], published_atoms(table.loc[key, "atoms_per_structure"]))
                 for key, companion in PRETRAINING_SETS.items()]
        origin = "published counts", "embedded companions"
    else:
        loaded = load_pretraining_data(settings.data, caps, profile.data_root, lambda train: lambda numbers: 0.0)  # sizes alone
        counts = [len(one.train) for one in loaded]
        sizes = [typical(one.train, profile.graphs[one.name]) for one in loaded]
        origin = "data at hand", "data at hand"
    draws = expanded_sizes(counts, temperature_ratios(counts, settings.temperature))
    return Workload(sum(draws), 0, 0, Size.mean(sizes, draws), *origin)


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
    memory = float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else host
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return Machine(records.device_name(device), device.type == "cuda", memory, host, float(shutil.disk_usage(there).free))


def run_row(name: dict, cost: Cost, work: Workload, settings, max_steps: int | None, patience: int | None, machine: Machine,
            ema: bool, predicted: float) -> dict:
    """One run: counts, hours (low, high), memory of device and host, disk (kept, while it runs), what does not fit.

    name: the columns that say which run. patience: validations until it stops by itself (None: never). predicted: numbers
    stored per test structure.
    """
    updates = in_updates(settings.schedule, -(-work.n_train // settings.batch_size), max_steps)
    low = updates.stop_at if patience is None else min(updates.stop_at, updates.cosine_until + patience * updates.validate_every)
    batch, evaluated = (work.size.times(count) for count in (settings.batch_size, settings.eval_batch_size))
    per_structure = cost.update_seconds(evaluated) * cost.evaluation / settings.eval_batch_size
    half = HALF if machine.cuda and settings.precision != "float32" else 1.0
    per_batch = PEAK * half * cost.activation_bytes(batch)
    fixed = cost.state_bytes(ema) + BASE["device"]
    graphs = sum(min(work.size.graph_bytes * count, KEPT_MB * 1e6) for count in (work.n_train, work.n_val, work.n_test))
    host = BASE["host"] + graphs + (0 if machine.cuda else fixed + per_batch)

    def hours(count: int) -> float:
        validations = -(-count // updates.validate_every)
        return (count * cost.update_seconds(batch) + (validations * work.n_val + work.n_test) * per_structure) / 3600

    row = {**name, "n_train": work.n_train, "n_val": work.n_val, "n_test": work.n_test, "counts": work.counts_from,
           "sizes": work.sizes_from, "atoms": work.size.atoms, "edges": work.size.edges, "batch": settings.batch_size,
           "precision": settings.precision, "updates_low": low, "updates_high": updates.stop_at,
           "seconds_per_update": cost.update_seconds(batch), "hours_low": hours(low), "hours_high": hours(updates.stop_at),
           "device_gb": (fixed + per_batch) / GB, "host_gb": host / GB,
           "disk_gb": (4 * cost.parameters + 16 * predicted * work.n_test) / GB,
           "disk_while_running_gb": cost.parameters * (16 + 4 * ema) / GB}
    return row | {"does_not_fit": "; ".join(advice(row, fixed, per_batch, machine))}


def advice(row: dict, fixed: float, per_batch: float, machine: Machine) -> list[str]:
    """What does not fit, and the setting that makes it fit."""
    words = []
    if row["device_gb"] * GB > machine.device_bytes:
        room = machine.device_bytes - fixed
        max_edges = int(room / per_batch * row["edges"] * row["batch"]) if room > 0 else 0
        words.append(f"device memory: set max_edges: {max_edges} (micro-batches with the same gradient)"
                     if max_edges >= row["edges"] else
                     "device memory, even for one structure: bfloat16-mixed precision, fewer max_neighbors of the graph, "
                     "or a device with more memory")
    if row["host_gb"] * GB > machine.host_bytes and (machine.cuda or not words):
        words.append("host memory: smaller parts of a batch (max_edges), or fewer runs at once (cores of the sweep)")
    if row["hours_low"] > WEEK:
        words.append(f"more than a week: a machine {math.ceil(row['hours_low'] / WEEK)} times as fast, or several devices")
    return words


def finetuning_rows(sweep: Sweep, costs: dict, machine: Machine) -> list[dict]:
    """One row for every fine-tuning of the sweep."""
    rows, profile = [], sweep.profile
    for job in sweep.jobs:
        task = get_task(job.task)
        settings, work = profile.finetune_settings(task.family, task.id), finetuning_data(profile, task.id, job.fold)
        head = (settings.force_head or task.head) if task.is_force_task else "property"
        name = {"run": "fine-tuning", "family": task.family, "task": task.id, "arm": job.arm, "fold": job.fold}
        rows.append(run_row(name, costs[job.size, head], work, settings, profile.max_steps, settings.early_stopping_patience,
                            machine, settings.ema_decay is not None, 3 * work.size.atoms if task.is_force_task else 1))
    return rows


def pretraining_rows(sweep: Sweep, costs: dict, machine: Machine) -> list[dict]:
    """One row for every pre-training of the sweep; its cost is that of direct forces."""
    sizes = [size for size in sweep.sizes if size not in sweep.profile.pretrained]
    work = pretraining_data(sweep.profile) if sizes else None
    return [run_row({"run": "pre-training", "family": "pre-training", "task": "", "arm": f"JMP-{size[0].upper()}", "fold": 0},
                    costs[size, "direct_forces"], work, sweep.profile.pretraining, sweep.profile.max_steps, None, machine,
                    True, 0) for size in sizes]


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and arm, the largest memory of its runs and the sums of hours and disk; last row: all."""
    parts = [(*key, part) for key, part in runs.groupby(["family", "arm"], sort=False)] + [("all", "", runs)]
    return pd.DataFrame([{
        "family": family, "arm": arm, "runs": len(part), "hours from": part["hours_low"].sum(),
        "hours to": part["hours_high"].sum(), "device / GB": part["device_gb"].max(), "host / GB": part["host_gb"].max(),
        "disk / GB": part["disk_gb"].sum(), "do not fit": int((part["does_not_fit"] != "").sum()),
    } for family, arm, part in parts])


def estimate(sweep: Sweep, seconds: float = 60.0) -> tuple[pd.DataFrame, dict]:
    """(one row per run, what was measured and assumed)."""
    device = choose_device(sweep.profile.device)
    torch.set_num_threads(min(sweep.profile.threads, os.cpu_count() or 1))
    machine = this_machine(sweep.profile, sweep.results_dir)
    costs = plan_cost.measure_costs(sweep.profile, device, seconds)
    runs = pd.DataFrame(pretraining_rows(sweep, costs, machine) + finetuning_rows(sweep, costs, machine))
    need = runs["disk_gb"].sum() + runs["disk_while_running_gb"].max() * sweep.profile.workers
    return runs, {
        "profile": sweep.profile.name, "machine": vars(machine), "threads": torch.get_num_threads(),
        "uncertainty_factor_of_time": UNCERTAINTY, "peak_over_kept_memory": PEAK, "half_precision_memory": HALF,
        "costs": {" ".join(key): asdict(cost) for key, cost in costs.items()}, "disk_needed_gb": need,
        "disk_fits": bool(need * GB < machine.disk_bytes), "left_out": sweep.left_out}


def main(sweep: Sweep, seconds: float = 60.0) -> int:
    """Prints totals and what does not fit; writes ``plan/runs.csv``, ``plan/totals.csv`` and ``plan/plan.json``."""
    runs, about = estimate(sweep, seconds)
    table, folder = totals(runs), sweep.results_dir / "plan"
    save_table(runs, folder / "runs.csv"), save_table(table, folder / "totals.csv")
    write_json(folder / "plan.json", about | {"runs": runs.to_dict("records")})
    print(f"profile {about['profile']} on {about['machine']['device']}, one run at a time\n\n{markdown(table)}\n")
    print(f"Hours are good to a factor of about {UNCERTAINTY:g} either way, memory to a factor of two; 'from' is a run "
          "that stops as early as its settings allow, 'to' one that uses all its updates.")
    for (family, arm), part in runs[runs["does_not_fit"] != ""].groupby(["family", "arm"], sort=False):
        worst = part.loc[part["device_gb"].idxmax()]
        of = len(runs[(runs["family"] == family) & (runs["arm"] == arm)])
        print(f"Does not fit: {family} {arm}, {len(part)} of {of} runs; {worst['task'] or 'it'}: {worst['does_not_fit']}")
    if not about["disk_fits"]:
        print(f"Disk: {about['disk_needed_gb']:.1f} GB are needed beside the data, {about['machine']['disk_bytes'] / GB:.1f} GB "
              "are free: choose another --results-dir, or fewer tasks or folds")
    print(f"All runs: {folder / 'runs.csv'}")
    return 0
