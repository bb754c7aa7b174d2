"""What notebook 01 shows of all sets at once: counts by split, a sample of structures, targets, neighbours.

Each file is read once; from each set at most ``limit`` structures are kept, drawn at random with a fixed seed. Sets in
stores are never read whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from vesin import NeighborList

from jmp_lib import facts
from jmp_lib.data import mini, pretraining_files, published, splits
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import PRETRAINING_SETS, TASKS, Task, load_pretraining_data
from jmp_lib.settings import load_profile

NEIGHBOUR_STRUCTURES = 12  # of each set whose neighbours are counted


@dataclass
class Survey:
    """sets: collection -> sampled structures; counts: a row for each pre-training set and task; targets: task ->
    labels in the printed unit (with ``units``), of train, validation and test together."""

    sets: dict[str, list[dict]] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> pd.DataFrame:
        """Structures of each set and task: official and here, and why there are none."""
        return pd.DataFrame(self.rows)

    @property
    def missing(self) -> dict[str, str]:
        """{set or task: why it cannot run with the data at hand, in words}."""
        return {row["set or task"]: row["why not"] for row in self.rows if row["why not"]}


def survey(data: str = "mini", data_root: str | Path | None = None, limit: int = 400, seed: int = 0) -> Survey:
    """Everything that is there of ``data`` (mini or published, under ``data_root``). Missing sets are rows with a reason."""
    found, rng = Survey(), np.random.default_rng(seed)
    for key in PRETRAINING_SETS:
        _pretraining_set(found, key, data, data_root, limit, rng)
    samples: dict[str, list[list[dict]]] = {}
    opened: tuple = ("", None)
    for task in TASKS.values():
        name = task.mini_name if data == "mini" else "qm9" if task.family == "qm9" else task.id
        try:
            if opened[0] != name:  # the tasks of QM9 share one file
                opened = (name, _open(task, data, data_root))
                samples.setdefault(_collection(task.family, data), []).append(_drawn(opened[1][0], limit, rng))
        except (FileNotFoundError, ValueError) as error:
            opened = (name, error)
        _task(found, task, opened[1])
    for collection, files in samples.items():  # the files of a family in equal parts
        share = -(-limit // len(files))
        found.sets[collection] = [structure for file in files for structure in file[:share]][:limit]
    return found


def _pretraining_set(found: Survey, key: str, data: str, data_root, limit: int, rng) -> None:
    facts_ = facts.datasets().query("stage == 'pre-training'").set_index("pretraining_name").loc[key]
    row = {"set or task": key, "official train / val / test": f"{int(facts_['n_train_paper'])} / - / -",
           "here train / val / test": "", "why not": ""}  # fmt: skip
    try:
        if data == "mini":
            _, train, val = next(s for s in load_pretraining_data("mini") if s.name == key)
        else:
            train, val = pretraining_files.load(key, data_root)
        row["here train / val / test"] = f"{len(train)} / {len(val)} / -"
        found.sets[PRETRAINING_SETS[key] if data == "mini" else key] = _drawn(train, limit, rng)
    except (FileNotFoundError, ValueError) as error:
        row["why not"] = str(error)
    found.rows.append(row)


def _open(task: Task, data: str, data_root) -> tuple[StructureSet, splits.Split]:
    if data == "mini":
        whole = mini.load_mini(task.mini_name)
        return whole, splits.mini(task.family, len(whole))
    return published.load(task, data_root)


def _task(found: Survey, task: Task, opened) -> None:
    row = {"set or task": task.id, "official train / val / test": f"{task.n_train} / {task.n_val} / {task.n_test}",
           "here train / val / test": "", "why not": ""}  # fmt: skip
    found.rows.append(row)
    if isinstance(opened, Exception):
        row["why not"] = str(opened)
        return
    whole, split = opened
    if task.label not in whole.labels:
        row["why not"] = f"{whole.name} has no label {task.label!r} (it has {', '.join(whole.labels) or 'none'})"
        return
    row["here train / val / test"] = " / ".join(map(str, split.counts))
    if not task.is_force_task:
        found.targets[task.id] = task.print_factor * whole.scalars[task.label]
        found.units[task.id] = task.printed_unit


def _collection(family: str, data: str) -> str:
    return f"{family}-mini" if data == "mini" else family


def _drawn(structures, limit: int, rng) -> list[dict]:
    """At most ``limit`` structures, without replacement."""
    rows = rng.choice(len(structures), min(limit, len(structures)), replace=False)
    return [structures[int(row)] for row in rows]


def family_of(collection: str) -> str:
    """The key of the graph settings of a collection: ``anix-mini`` -> ``ani1x``, ``qm9-mini`` -> ``qm9``."""
    return {name: key for key, name in PRETRAINING_SETS.items()}.get(collection, collection.removesuffix("-mini"))


def neighbour_counts(sets: dict[str, list[dict]], structures: int = NEIGHBOUR_STRUCTURES) -> pd.DataFrame:
    """Neighbours of each atom within the official cutoff (periodic images counted), before any limit.

    One row for each collection: cutoff Å, official limit of the main graph, structures and atoms counted, mean, least,
    most, share of atoms beyond the limit in %, and ``counts`` (an array, one number for each atom).
    """
    graphs, rows = load_profile("paper").graphs, []
    for name, sampled in sets.items():
        config, chosen = graphs[family_of(name)], sampled[:: max(1, len(sampled) // structures)][:structures]
        counts = np.concatenate([_neighbours(structure, config.cutoff) for structure in chosen])
        rows.append({"set": name, "cutoff / Å": config.cutoff, "limit": config.max_neighbors, "structures": len(chosen),
                     "atoms": len(counts), "mean": round(float(counts.mean()), 1), "least": int(counts.min()),
                     "most": int(counts.max()), "beyond the limit / %": round(100 * float((counts > config.max_neighbors).mean()), 1),
                     "counts": counts})  # fmt: skip
    return pd.DataFrame(rows)


def _neighbours(structure: dict, cutoff: float) -> np.ndarray:
    periodic = bool(np.any(structure["pbc"]))
    (atoms,) = NeighborList(cutoff=float(cutoff), full_list=True).compute(
        points=np.asarray(structure["pos"], np.float64),
        box=np.asarray(structure["cell"], np.float64) if periodic else np.zeros((3, 3)),
        periodic=np.asarray(structure["pbc"], bool) if periodic else False,
        quantities="i",
    )
    return np.bincount(atoms.astype(np.int64), minlength=len(structure["pos"]))


def words(found: Survey) -> str:
    """How many of the 40 tasks can run with the data at hand, and a sentence for each set or task that cannot."""
    able = [task for task in TASKS if task not in found.missing]
    lines = [f"{len(able)} of the {len(TASKS)} tasks and {len(PRETRAINING_SETS) - sum(k in found.missing for k in PRETRAINING_SETS)} "
             f"of the {len(PRETRAINING_SETS)} pre-training sets can run with the data at hand."]  # fmt: skip
    lines += [f"{name} cannot run: {reason}" for name, reason in found.missing.items()]
    return "\n".join(lines)


def statistics(found: Survey, data: str, data_root: str | Path | None) -> pd.DataFrame:
    """Statistics of the train parts beside the published ones, of the tasks that are there (published data only)."""
    from jmp_lib.data.statistics import compare

    if data == "mini":
        return pd.DataFrame()
    return compare(data_root, [task for task in TASKS if task not in found.missing])
