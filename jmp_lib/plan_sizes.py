"""How large the data of every run are: counts, and edges and quadruplets of a typical structure under its graph.

Counts and structures come from the data at hand where they can be read, else the counts are the published ones and the
structures those of the embedded companion, scaled to the published mean number of atoms where one is known.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np

from jmp_lib import facts
from jmp_lib.data import mini
from jmp_lib.data.tasks import PRETRAINING_SETS, get_task, load_task_data
from jmp_lib.graphs import GraphConfig, build_graphs
from jmp_lib.settings import Profile
from jmp_lib.train.sampling import expanded_sizes, temperature_ratios

SAMPLES = 3  # structures whose graphs are built


@dataclass(frozen=True)
class Size:
    """Mean of one structure: atoms, main edges, quadruplets, and bytes of its graphs in memory."""

    atoms: float
    edges: float
    quadruplets: float
    graph_bytes: float

    def times(self, factor: float) -> Size:
        """The size of ``factor`` such structures."""
        return Size(*(factor * value for value in asdict(self).values()))


@dataclass(frozen=True)
class Workload:
    """The data of one kind of run: counts of the parts, mean size of a structure, and where both come from."""

    n_train: int
    n_val: int
    n_test: int
    size: Size
    counts_from: str
    sizes_from: str


def measure(structure: dict, graph: GraphConfig) -> Size:
    """Size of one structure under the limits of ``graph``."""
    arrays = build_graphs(structure, graph)
    natoms = len(structure["pos"])
    main, qint = arrays["main_edge_index"], arrays["qint_edge_index"]
    degree = np.bincount(main[1], minlength=natoms).astype(float)
    quadruplets = float((degree[qint[0]] * degree[qint[1]]).sum())
    return Size(natoms, main.shape[1], quadruplets, sum(a.nbytes for a in arrays.values() if isinstance(a, np.ndarray)))


def typical(structures, graph: GraphConfig, atoms: float | None = None) -> Size:
    """Mean size of a few structures spread over a set, scaled to a mean of ``atoms`` where given."""
    chosen = np.unique(np.linspace(0, len(structures) - 1, SAMPLES).astype(int))
    found = [measure(structures[int(row)], graph) for row in chosen]
    mean = Size(*(float(np.mean([asdict(s)[name] for s in found])) for name in asdict(found[0])))
    return mean if atoms is None else mean.times(atoms / mean.atoms)


def published_atoms(text) -> float | None:
    """Mean atoms of ``datasets.csv``: "mean 73" and "2 to 63; mean 15" say it, "26 to 60" gives the middle."""
    if not isinstance(text, str):
        return None
    said = re.search(r"mean (\d+(?:\.\d+)?)", text)
    numbers = [float(said[1])] if said else [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    return sum(numbers) / len(numbers) if numbers else None


def finetuning(profile: Profile, task_id: str, fold: int = 0) -> Workload:
    """The data of a fine-tuning, cut to the profile's caps."""
    task = get_task(task_id)
    settings = profile.finetune_settings(task.family, task_id)
    caps = {"train": settings.max_train, "val": settings.max_val, "test": settings.max_test}
    graph = profile.graphs[task.family]
    found = at_hand(profile.data, profile.data_root, task_id, 0)  # folds differ by one structure; reading takes long
    if found is not None:
        counts, _ = found
        return Workload(
            *_capped(counts, caps),
            _size_at_hand(profile.data, profile.data_root, task_id, graph),
            "data at hand",
            "data at hand",
        )
    atoms = _task_atoms(task_id)
    size = _companion_size(task.mini_name, graph, atoms)
    return Workload(
        *_capped(facts.fold_counts(task_id)[fold], caps),
        size,
        "published counts",
        "embedded companion" + (", scaled to the published mean of atoms" if atoms else ""),
    )


def _capped(counts, caps: dict) -> tuple[int, ...]:
    return tuple(n if caps[part] is None else min(n, caps[part]) for n, part in zip(counts, ("train", "val", "test")))


@cache
def at_hand(data: str, data_root: str | None, task_id: str, fold: int):
    """((n_train, n_val, n_test), some structures) of the data that can be read, or None."""
    if data == "published" and not data_root:
        return None
    try:
        loaded = load_task_data(task_id, data, data_root, fold=fold)
    except (FileNotFoundError, ValueError):
        return None
    step = max(1, len(loaded.train) // SAMPLES)
    return (
        tuple(len(part) for part in (loaded.train, loaded.val, loaded.test)),
        [loaded.train[row] for row in range(0, len(loaded.train), step)][:SAMPLES],
    )


@cache
def _size_at_hand(data: str, data_root: str | None, task_id: str, graph: GraphConfig) -> Size:
    return typical(at_hand(data, data_root, task_id, 0)[1], graph)


@cache
def _companion_size(name: str, graph: GraphConfig, atoms: float | None) -> Size:
    return typical(mini.load_mini(name), graph, atoms)


@cache
def _task_atoms(task_id: str) -> float | None:
    table = facts.datasets().dropna(subset=["task"])
    rows = table[
        [task_id == name or task_id.startswith(name.removesuffix("*")) and name.endswith("*") for name in table["task"]]
    ]
    return published_atoms(rows["atoms_per_structure"].iloc[0]) if len(rows) else None


def pretraining(profile: Profile) -> Workload:
    """The joint pre-training: draws of one epoch, and the mean size of a drawn structure."""
    settings = profile.pretraining
    table = facts.datasets().dropna(subset=["pretraining_name"]).set_index("pretraining_name")
    counts, sizes = [], []
    for key, companion in PRETRAINING_SETS.items():
        published = settings.data == "published"
        caps = settings.datasets[key]
        counts.append(
            min(
                int(table.loc[key, "n_train_paper"]) if published else len(mini.load_mini(companion)),
                caps.max_train or 10**12,
            )
        )
        atoms = published_atoms(table.loc[key, "atoms_per_structure"]) if published else None
        sizes.append(_companion_size(companion, profile.graphs[key], atoms))
    draws = expanded_sizes(counts, temperature_ratios(counts, settings.temperature))
    mean = Size(*(sum(d * asdict(s)[name] for d, s in zip(draws, sizes)) / sum(draws) for name in asdict(sizes[0])))
    where = "published counts" if settings.data == "published" else "data at hand"
    return Workload(sum(draws), 0, 0, mean, where, "embedded companions")
