"""What the data at hand are, as notebook 01 shows it: counts by split, a sample of structures, targets, neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import facts
from jmp_lib.data import mini, pretraining
from jmp_lib.data.structures import Structure, StructureSet
from jmp_lib.data.tasks import PRETRAINING_SETS, TASKS, Task, get_family, load_published
from jmp_lib.graphs.neighbors import find_neighbors

NEIGHBOUR_STRUCTURES = 12  # of each set whose neighbours are counted


@dataclass
class Survey:
    """sets: collection -> sampled structures; rows: one for each pre-training set and task; targets: task -> labels
    in the printed unit (with ``units``), of train, validation and test together."""

    sets: dict[str, list[Structure]] = field(default_factory=dict)
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
    """Everything that is there of ``data`` (mini or published, under ``data_root``). Missing sets
    are rows with a reason.

    At most ``limit`` structures of each set are kept, drawn at random. Prepared sets are never read whole.
    """
    found, rng, is_mini = Survey(), np.random.default_rng(seed), data == "mini"
    official = facts.datasets().query("stage == 'pre-training'").set_index("pretraining_name")["n_train_paper"]
    mini_sets = {s.name: s[1:] for s in pretraining.load_pretraining_data("mini")} if is_mini else {}
    mini_set = lru_cache(maxsize=1)(mini.load_mini)  # the tasks of QM9 share one
    samples: dict[str, dict[str, list[Structure]]] = {}  # of each file of a family

    def drawn(structures: StructureSet) -> list[Structure]:
        rows = rng.choice(len(structures), min(limit, len(structures)), replace=False)
        return [structures[int(row)] for row in rows]

    def pretraining_set(key: str) -> tuple:
        train, val = mini_sets[key] if is_mini else pretraining.load(key, data_root)
        found.sets[PRETRAINING_SETS[key] if is_mini else key] = drawn(train)
        return len(train), len(val), "-"

    def fine_tuning_task(task: Task) -> tuple:
        if is_mini:
            whole = mini_set(task.mini_name)
            split = get_family(task.family).mini_split(len(whole), 0)
        else:
            whole, split = load_published(task, data_root)
        of_family = samples.setdefault(f"{task.family}-mini" if is_mini else task.family, {})
        if task.mini_name not in of_family:
            of_family[task.mini_name] = drawn(whole)
        if task.label not in whole.labels:
            raise ValueError(f"{whole.name} has no label {task.label!r} (it has {', '.join(whole.labels) or 'none'})")
        if not task.is_force_task:
            found.targets[task.id] = task.print_factor * whole.scalars[task.label]
            found.units[task.id] = task.printed_unit
        return split.counts

    everything = [(key, (int(official[key]), "-", "-"), partial(pretraining_set, key)) for key in PRETRAINING_SETS]
    everything += [(task.id, (task.n_train, task.n_val, task.n_test), partial(fine_tuning_task, task))
                   for task in TASKS.values()]
    for name, counts, read in everything:
        row = {"set or task": name, "official train / val / test": " / ".join(map(str, counts)),
               "here train / val / test": "", "why not": ""}
        try:
            row["here train / val / test"] = " / ".join(map(str, read()))
        except (FileNotFoundError, ValueError) as error:
            row["why not"] = str(error)
        found.rows.append(row)
    for collection, files in samples.items():  # the files of a family in equal parts
        share = -(-limit // len(files))
        found.sets[collection] = [structure for file in files.values() for structure in file[:share]][:limit]
    return found


def family_of(collection: str) -> str:
    """The key of the graph settings of a collection: ``anix-mini`` -> ``ani1x``, ``qm9-mini`` -> ``qm9``."""
    return {name: key for key, name in PRETRAINING_SETS.items()}.get(collection, collection.removesuffix("-mini"))


def neighbour_counts(sets: dict[str, list], graphs: Mapping, structures: int = NEIGHBOUR_STRUCTURES) -> pd.DataFrame:
    """Neighbours of each atom within the cutoff of its graph settings (periodic images counted), before any limit.

    graphs: settings by family (``load_profile("paper").graphs`` are the official ones). One row for each collection:
    cutoff Å, official limit of the main graph, structures and atoms counted, mean, least,
    most, share of atoms beyond the limit in %, and ``counts`` (an array, one number for each atom).
    """
    rows = []
    for name, sampled in sets.items():
        config, chosen = graphs[family_of(name)], sampled[:: max(1, len(sampled) // structures)][:structures]
        counts = np.concatenate([_neighbours(structure, config.cutoff) for structure in chosen])
        rows.append({"set": name, "cutoff / Å": config.cutoff, "limit": config.max_neighbors, "structures": len(chosen),
                     "atoms": len(counts), "mean": round(float(counts.mean()), 1), "least": int(counts.min()),
                     "most": int(counts.max()),
                     "beyond the limit / %": round(100 * float((counts > config.max_neighbors).mean()), 1),
                     "counts": counts})  # fmt: skip
    return pd.DataFrame(rows)


def _neighbours(structure: dict, cutoff: float) -> np.ndarray:
    pos, cell, pbc = (np.asarray(structure[key]) for key in ("pos", "cell", "pbc"))
    (_, targets), *_ = find_neighbors(pos, cell, pbc, cutoff, periodic=True)
    return np.bincount(targets, minlength=len(pos))


def words(found: Survey) -> str:
    """How many of the 40 tasks can run with the data at hand, and a sentence for each set or task that cannot."""
    able = [task for task in TASKS if task not in found.missing]
    lines = [f"{len(able)} of the {len(TASKS)} tasks and "
             f"{len(PRETRAINING_SETS) - sum(k in found.missing for k in PRETRAINING_SETS)} "
             f"of the {len(PRETRAINING_SETS)} pre-training sets can run with the data at hand."]  # fmt: skip
    lines += [f"{name} cannot run: {reason}" for name, reason in found.missing.items()]
    return "\n".join(lines)
