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
import sys
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.overrides import TorchFunctionMode

from jmp_lib import facts
from jmp_lib.data import mini
from jmp_lib.data.tasks import PRETRAINING_SETS, get_task
from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec
from jmp_lib.records import device_name
from jmp_lib.results.tables import save_table
from jmp_lib.settings import Profile
from jmp_lib.sweep import KEYS, Sweep, read
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
        return (LIBRARIES + STATE * self.parameters
                + PEAK * (HALF if half else 1.0) * (self.kept[0] + self.kept[1] * edges))


class PlainWeights(TorchFunctionMode):
    """Weights stay plain random numbers: to make those of a large network orthogonal takes minutes,
    and here time counts."""

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
        seconds, kept = (line(edges, values) for values in zip(*steps))
        found[size, kind] = Cost(seconds, kept, sum(p.numel() for p in model.parameters()))
    return found


def line(edges: list[int], values: tuple[float, float]) -> tuple[float, float]:
    """(base, slope), neither negative, through two measured values."""
    slope = (values[1] - values[0]) / (edges[1] - edges[0])
    return (values[0] - slope * edges[0], slope) if 0 < slope * edges[0] < values[0] else (0.0, values[1] / edges[1])


def one_update(model: FinetuneModel, optimizer: torch.optim.Optimizer, batch,
               device: torch.device) -> tuple[float, float]:
    """(seconds, bytes kept for the backward pass) of an update on one batch."""
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
    optimizer.step()
    finish()
    return time.perf_counter() - began, float(sum(kept.values()))


class Workload(NamedTuple):
    """The data of one kind of run: counts of the parts, mean atoms and main edges of a structure,
    and where they come from."""

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
    said = re.findall(r"mean (\d+(?:\.\d+)?)", str(text)) or re.findall(r"\d+(?:\.\d+)?", str(text))
    return float(np.mean([float(number) for number in said])) if said else None


def finetuning_data(profile: Profile, task_id: str) -> Workload:
    """The data of a fine-tuning, cut to the profile's caps. Folds differ by one structure: the first that is run stands
    for all."""
    task, fold = get_task(task_id), profile.folds_of(task_id)[0]
    settings, graph = profile.finetune_settings(task.family, task_id), profile.graphs[task.family]
    try:
        data = task_data(profile, task_id, fold)
        return Workload(len(data.train), len(data.val), len(data.test), *typical(data.train, graph), "at hand")
    except (FileNotFoundError, ValueError):
        caps, table = ((settings.max_train, settings.max_val, settings.max_test),
                       facts.datasets().dropna(subset=["task"]))
        rows = table.loc[table["task"].isin([task_id, f"{task.family}_*"]), "atoms_per_structure"]
        atoms = published_atoms(rows.iloc[0]) if len(rows) else None
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
        sizes = [typical(mini.load_mini(name), profile.graphs[key],
                         published_atoms(table.loc[key, "atoms_per_structure"]))
                 for key, name in PRETRAINING_SETS.items()]
    else:
        sets = joint_sets(profile)
        counts, sizes = [len(s.train) for s in sets], [typical(s.train, profile.graphs[s.key]) for s in sets]
    draws = expanded_sizes(counts, temperature_ratios(counts, settings.temperature))
    return Workload(sum(draws), 0, 0, *map(float, np.average(sizes, axis=0, weights=draws)),
                    "published counts" if published else "at hand")


def memory_of(device: torch.device) -> float:
    """Bytes of memory of a device; of a CPU those of the machine."""
    return float(torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else
                 os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def run_rows(sweep: Sweep, costs: dict, half: bool) -> list[dict]:
    """One row for every pre-training of the sweep (its cost is that of direct forces), then for every fine-tuning:
    counts, updates and hours (low, high), memory and disk. half: 16-bit precision is one."""
    rows, profile, works = [], sweep.profile, {}

    def add(name: tuple, cost: Cost, work: Workload, settings, patience: int | None, predicted: float) -> None:
        """patience: validations until a run stops by itself (None: never). predicted: numbers kept
        of a test structure."""
        updates = in_updates(settings.schedule, -(-work.n_train // settings.batch_size), profile.max_steps)
        low = updates.cosine_until + patience * updates.validate_every if patience is not None else updates.stop_at
        low = min(low, updates.stop_at)
        seconds = cost.update_seconds(work.edges * settings.batch_size)
        evaluated = PREDICTION * cost.update_seconds(work.edges * settings.eval_batch_size) / settings.eval_batch_size
        memory = cost.memory(work.edges * settings.batch_size, half and settings.precision != "float32")
        hours = [(count * seconds + (-(-count // updates.validate_every) * work.n_val + work.n_test) * evaluated) / 3600
                 for count in (low, updates.stop_at)]
        rows.append({**dict(zip(("run", "family", "task", "arm", "fold"), name)),
                     **work._asdict(), "batch": settings.batch_size,
                     "precision": settings.precision, "updates_low": low, "updates_high": updates.stop_at,
                     "seconds_per_update": seconds, "hours_low": hours[0], "hours_high": hours[1],
                     "memory_gb": memory / GB, "disk_gb": (4 * cost.parameters + 16 * predicted * work.n_test) / GB})

    for size in sweep.sizes:
        works["pre-training"] = works.get("pre-training") or pretraining_data(profile)
        add(("pre-training", "pre-training", "", f"JMP-{size[0].upper()}", 0), costs[size, "direct_forces"],
            works["pre-training"], profile.pretraining, None, 0)
    for job in sweep.jobs.values():
        task = get_task(job.task)
        work = works[task.id] = works.get(task.id) or finetuning_data(profile, task.id)
        settings = profile.finetune_settings(task.family, task.id)
        head = (settings.force_head or task.head) if task.is_force_task else "property"
        add(("fine-tuning", task.family, task.id, job.arm, job.fold), costs[size_of(job.arm), head], work, settings,
            settings.early_stopping_patience, 3 * work.atoms if task.is_force_task else 1)
    return rows


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and arm, the largest memory of its runs and the sums of hours and disk; last row: all."""
    grouped = pd.concat([runs, runs.assign(family="all", arm="")]).groupby(["family", "arm"], sort=False)
    return grouped.agg(**{"runs": ("run", "size"), "hours from": ("hours_low", "sum"),
                          "hours to": ("hours_high", "sum"),
                          "memory / GB": ("memory_gb", "max"), "disk / GB": ("disk_gb", "sum")}).reset_index()


def report(sweep: Sweep) -> None:
    """Prints totals and what does not fit; writes ``plan/runs.csv`` and ``plan/totals.csv``."""
    torch.set_num_threads(min(sweep.profile.threads, os.cpu_count() or 1))
    device = choose_device(sweep.profile.device)
    memory = memory_of(device)
    runs = pd.DataFrame(run_rows(sweep, measure_costs(sweep.profile, device), device.type == "cuda"))
    table, folder = totals(runs), sweep.results_dir / "plan"
    save_table(runs, folder / "runs.csv"), save_table(table, folder / "totals.csv")
    print(f"profile {sweep.profile.name} on {device_name(device)}, one run at a time\n\n"
          f"{table.to_string(index=False, float_format='%.4g')}\n\nHours are good to a factor "
          f"of about {UNCERTAINTY:g} either way, memory to a factor of two; 'from' is a run that stops as early as its "
          "settings allow, 'to' one that uses all its updates.")
    if large := (runs["memory_gb"] * GB > memory).sum():
        print(f"{large} runs do not fit into {memory / GB:.1f} GB as they are: set max_edges, "
              "the edges that are computed at once, so that their batches go in parts, with the same gradient")
    print(f"All runs: {folder / 'runs.csv'}")


def main(arguments: list[str] | None = None) -> int:
    """The command: options are those of a sweep."""
    parser = argparse.ArgumentParser(prog="python -m tools.plan", description=__doc__.split("\n")[0])
    for key in KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", help="as of `python -m jmp_lib sweep`")
    try:
        report(read(vars(parser.parse_args(arguments))))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
