"""What a profile costs on this machine: hours, memory and disk of every run.

    python -m tools.plan --profile paper --data published --data-root DIR

Real updates of both networks with every kind of head, on a small and a larger molecule, give seconds and memory of an
update as a line in the edges of its batch. Settings and data tell how many updates there are (data that cannot be read:
the published counts, with structures of the embedded companion scaled to the published mean number of atoms). Each run
has a range: stopped when its patience ends after the cosine, to all updates that its settings allow.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.overrides import TorchFunctionMode

from jmp_lib import facts, records
from jmp_lib.data import mini
from jmp_lib.data.tasks import PRETRAINING_SETS, get_task
from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec
from jmp_lib.results.tables import save_table
from jmp_lib.settings import Profile
from jmp_lib.sweep import KEYS, OPTIONS, Sweep, read
from jmp_lib.train.finetuning import size_of, task_data
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.processes import choose_device
from jmp_lib.train.sampling import expanded_sizes, temperature_ratios
from jmp_lib.train.schedule import in_updates

HEADS = {  # the most expensive one first
    "gradient_forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")],
    "direct_forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")],
    "property": [HeadSpec("y", "scalar", "sum")],
}
# embedded structures that are measured, and how many of them in a batch: few and many edges
PROBES = (("rmd17_ethanol", 4), ("md22_ac-ala3-nhme", 1))
SAMPLES = 3  # structures of a set whose edges are counted
GB = 1e9
PEAK = 2.0  # largest memory of an update over what its backward pass keeps: padding and passing arrays
HALF = 0.6  # of it that remains with 16-bit numbers
LIBRARIES = 0.6 * GB
STATE = 20  # bytes of each parameter: weight, gradient, two moments of AdamW, average; float32
PREDICTION = 0.5  # seconds of a prediction over those of an update; gradient forces differentiate in both
UNCERTAINTY = 3.0  # of times; of 160 runs of mini the plan gave 0.5 to 6.2 of the recorded times, nine of ten below 2.6


class Cost(NamedTuple):
    """Of one network with one kind of head: base and slope per main edge of a batch."""

    seconds: tuple[float, float]  # of an update
    kept: tuple[float, float]  # bytes that wait for the backward pass
    parameters: int

    def update_seconds(self, edges: float) -> float:
        """Seconds of one update on a batch of so many edges."""
        return self.seconds[0] + self.seconds[1] * edges

    def memory(self, edges: float, half: bool) -> float:
        """Bytes of the network, its optimiser, and one update on a batch of so many edges."""
        return LIBRARIES + STATE * self.parameters + PEAK * (HALF if half else 1.0) * (self.kept[0] + self.kept[1] * edges)


class PlainWeights(TorchFunctionMode):
    """Weights stay plain random numbers: to make those of a large network orthogonal takes minutes, and here time counts."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return (args[0], args[0]) if function is torch.linalg.qr else function(*args, **(kwargs or {}))


def measure_costs(profile: Profile, device: torch.device) -> dict[tuple[str, str], Cost]:
    """(size of network, kind of head) -> Cost, from an update on each of ``PROBES`` after one to warm up."""
    probes, found = [], {}
    for task, count in ((get_task(name), count) for name, count in PROBES):
        structure, graph = mini.load_mini(task.mini_name)[0], profile.graphs[task.family]
        probes.append(collate([{**structure, "graphs": build_graphs(structure, graph)}] * count).to(device))
    edges = [batch["main_edge_index"].shape[1] for batch in probes]
    for size, (kind, heads) in itertools.product(profile.models, HEADS.items()):
        with PlainWeights():
            model = FinetuneModel(profile.models[size], heads).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
        _, *steps = [one_update(model, optimizer, batch, device) for batch in (probes[0], *probes)]
        (base, slope), kept = (line(edges, values) for values in list(zip(*steps))[:2])
        fixed = min(step[2] for step in steps)  # of the optimiser, whatever the batch
        found[size, kind] = Cost((base + fixed, slope), kept, sum(p.numel() for p in model.parameters()))
    return found


def line(edges: list[int], values: tuple[float, float]) -> tuple[float, float]:
    """(base, slope), neither negative, through two measured values."""
    slope = (values[1] - values[0]) / (edges[1] - edges[0])
    return (values[0] - slope * edges[0], slope) if 0 < slope * edges[0] < values[0] else (0.0, values[1] / edges[1])


def one_update(model: FinetuneModel, optimizer: torch.optim.Optimizer, batch, device: torch.device) -> tuple[float, float, float]:
    """(seconds of forward and backward, bytes kept for the backward pass, seconds of AdamW) on one batch."""
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    finish()
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(batch)
        loss = out["forces" if "forces" in out else "y"].square().mean()
    loss.backward()
    finish()
    passed = time.perf_counter()
    optimizer.step()
    finish()
    return passed - began, float(sum(kept.values())), time.perf_counter() - passed


class Workload(NamedTuple):
    """The data of one kind of run: counts of the parts, mean atoms and main edges of a structure, and where they come from."""

    n_train: int
    n_val: int
    n_test: int
    atoms: float
    edges: float
    data: str


def typical(structures, graph: GraphConfig, atoms: float | None = None) -> tuple[float, float]:
    """Mean (atoms, edges) of a few structures spread over a set, scaled to a mean of ``atoms`` where given."""
    chosen = [structures[int(row)] for row in np.unique(np.linspace(0, len(structures) - 1, SAMPLES).astype(int))]
    own = float(np.mean([len(one["pos"]) for one in chosen]))
    edges = float(np.mean([build_graphs(one, graph)["main_edge_index"].shape[1] for one in chosen]))
    return atoms or own, edges * (atoms or own) / own


def published_atoms(text) -> float | None:
    """Mean atoms of ``datasets.csv``: "mean 73" and "2 to 63; mean 15" say it, "26 to 60" gives the middle."""
    if not isinstance(text, str):
        return None
    said = re.search(r"mean (\d+(?:\.\d+)?)", text)
    numbers = [float(said[1])] if said else [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    return sum(numbers) / len(numbers) if numbers else None


def finetuning_data(profile: Profile, task_id: str) -> Workload:
    """The data of a fine-tuning, cut to the profile's caps. Folds differ by one structure: the first that is run stands
    for all."""
    task, fold = get_task(task_id), profile.folds_of(task_id)[0]
    settings, graph = profile.finetune_settings(task.family, task_id), profile.graphs[task.family]
    try:
        data = task_data(profile, task_id, fold)
        return Workload(len(data.train), len(data.val), len(data.test), *typical(data.train, graph), "at hand")
    except (FileNotFoundError, ValueError):
        caps, table = (settings.max_train, settings.max_val, settings.max_test), facts.datasets().dropna(subset=["task"])
        rows = table[[task_id == name or name.endswith("*") and task_id.startswith(name[:-1]) for name in table["task"]]]
        atoms = published_atoms(rows["atoms_per_structure"].iloc[0]) if len(rows) else None
        return Workload(*(min(n, cap or n) for n, cap in zip((task.n_train, task.n_val, task.n_test), caps)),
                        *typical(mini.load_mini(task.mini_name), graph, atoms), "published counts")


def pretraining_data(profile: Profile) -> Workload:
    """The joint pre-training: draws of one epoch, and the mean size of a drawn structure.

    Whole published sets are not read for it: their printed counts serve. What is generated, or put together with the
    published samples at hand, is read.
    """
    settings, published = profile.pretraining, profile.pretraining.data == "published"
    if published:
        table = facts.datasets().dropna(subset=["pretraining_name"]).set_index("pretraining_name")
        counts = [min(int(table.loc[key, "n_train_paper"]), settings.datasets[key].max_train or 10**12)
                  for key in PRETRAINING_SETS]
        sizes = [typical(mini.load_mini(name), profile.graphs[key], published_atoms(table.loc[key, "atoms_per_structure"]))
                 for key, name in PRETRAINING_SETS.items()]
    else:
        sets = joint_sets(profile)
        counts, sizes = [len(s.train) for s in sets], [typical(s.train, profile.graphs[s.key]) for s in sets]
    draws = expanded_sizes(counts, temperature_ratios(counts, settings.temperature))
    return Workload(sum(draws), 0, 0, *map(float, np.average(sizes, axis=0, weights=draws)),
                    "published counts" if published else "at hand")


@dataclass(frozen=True)
class Machine:
    """What there is: name of the device, bytes of its memory (on a CPU the host's) and of free disk."""

    device: str
    cuda: bool
    memory: float
    disk: float


def this_machine(sweep: Sweep) -> Machine:
    """The machine that this process runs on."""
    device = choose_device(sweep.profile.device)
    there = next(p for p in (sweep.results_dir, *sweep.results_dir.parents) if p.exists())
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else \
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(records.device_name(device), device.type == "cuda", float(memory), float(shutil.disk_usage(there).free))


def run_row(name: dict, cost: Cost, work: Workload, settings, max_steps: int | None, patience: int | None, machine: Machine,
            predicted: float) -> dict:
    """One run: counts, updates and hours (low, high), memory, disk, and whether it fits.

    name: the columns that say which run. patience: validations until it stops by itself (None: never). predicted: numbers
    stored per test structure.
    """
    updates = in_updates(settings.schedule, -(-work.n_train // settings.batch_size), max_steps)
    low = updates.stop_at if patience is None else min(updates.stop_at, updates.cosine_until + patience * updates.validate_every)
    seconds = cost.update_seconds(work.edges * settings.batch_size)
    evaluated = PREDICTION * cost.update_seconds(work.edges * settings.eval_batch_size) / settings.eval_batch_size
    memory = cost.memory(work.edges * settings.batch_size, machine.cuda and settings.precision != "float32")

    def hours(count: int) -> float:
        return (count * seconds + (-(-count // updates.validate_every) * work.n_val + work.n_test) * evaluated) / 3600

    return {**name, **work._asdict(), "batch": settings.batch_size, "precision": settings.precision, "updates_low": low,
            "updates_high": updates.stop_at, "seconds_per_update": seconds, "hours_low": hours(low),
            "hours_high": hours(updates.stop_at), "memory_gb": memory / GB,
            "disk_gb": (4 * cost.parameters + 16 * predicted * work.n_test) / GB, "fits": memory < machine.memory}


def run_rows(sweep: Sweep, costs: dict, machine: Machine) -> list[dict]:
    """One row for every pre-training of the sweep (its cost is that of direct forces), then for every fine-tuning."""
    rows, profile, works = [], sweep.profile, {}
    work = pretraining_data(profile) if sweep.sizes else None
    for size in sweep.sizes:
        name = {"run": "pre-training", "family": "pre-training", "task": "", "arm": f"JMP-{size[0].upper()}", "fold": 0}
        rows.append(run_row(name, costs[size, "direct_forces"], work, profile.pretraining, profile.max_steps, None, machine, 0))
    for job in sweep.jobs.values():
        task = get_task(job.task)
        if task.id not in works:
            works[task.id] = finetuning_data(profile, task.id)
        settings, work = profile.finetune_settings(task.family, task.id), works[task.id]
        head = (settings.force_head or task.head) if task.is_force_task else "property"
        name = {"run": "fine-tuning", "family": task.family, "task": task.id, "arm": job.arm, "fold": job.fold}
        rows.append(run_row(name, costs[size_of(job.arm), head], work, settings, profile.max_steps,
                            settings.early_stopping_patience, machine, 3 * work.atoms if task.is_force_task else 1))
    return rows


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and arm, the largest memory of its runs and the sums of hours and disk; last row: all."""
    grouped = pd.concat([runs, runs.assign(family="all", arm="")]).groupby(["family", "arm"], sort=False)
    return grouped.agg(**{"runs": ("run", "size"), "hours from": ("hours_low", "sum"), "hours to": ("hours_high", "sum"),
                          "memory / GB": ("memory_gb", "max"), "disk / GB": ("disk_gb", "sum"),
                          "do not fit": ("fits", lambda fits: int((~fits).sum()))}).reset_index()


def report(sweep: Sweep) -> None:
    """Prints totals and what does not fit; writes ``plan/runs.csv`` and ``plan/totals.csv``."""
    torch.set_num_threads(min(sweep.profile.threads, os.cpu_count() or 1))
    machine = this_machine(sweep)
    costs = measure_costs(sweep.profile, choose_device(sweep.profile.device))
    runs = pd.DataFrame(run_rows(sweep, costs, machine))
    table, folder = totals(runs), sweep.results_dir / "plan"
    save_table(runs, folder / "runs.csv"), save_table(table, folder / "totals.csv")
    print(f"profile {sweep.profile.name} on {machine.device}, one run at a time\n\n"
          f"{table.to_string(index=False, float_format='%.4g')}\n\nHours are good to a factor "
          f"of about {UNCERTAINTY:g} either way, memory to a factor of two; 'from' is a run that stops as early as its "
          "settings allow, 'to' one that uses all its updates.")
    if not runs["fits"].all():
        print(f"{(~runs['fits']).sum()} runs do not fit into {machine.memory / GB:.1f} GB as they are: set max_edges, the edges "
              "that are computed at once, so that their batches go in parts, with the same gradient")
    if (need := runs["disk_gb"].sum()) * GB > machine.disk:
        print(f"Disk: {need:.1f} GB are needed beside the data, {machine.disk / GB:.1f} GB are free: choose another "
              "--results-dir, or fewer tasks or folds")
    print(f"All runs: {folder / 'runs.csv'}")


def main(arguments: list[str] | None = None) -> int:
    """The command: options are those of a sweep."""
    parser = argparse.ArgumentParser(prog="python -m tools.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key in KEYS:
        parser.add_argument(OPTIONS.get(key, f"--{key}"), help="as of `python -m jmp_lib sweep`")
    try:
        report(read(vars(parser.parse_args(arguments))))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
