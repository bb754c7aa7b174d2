"""The 40 fine-tuning tasks and the data of each; the four pre-training sets.

>>> task = get_task("qm9_eps_homo")
>>> task.label, task.label_unit, task.printed_unit, task.print_factor
('eps_HOMO', 'eV', 'meV', 1000.0)
>>> data = load_task_data("qm9_eps_homo")          # of qm9-mini
>>> data.train, data.val, data.test                # StructureSets whose structures have the label
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmp_lib.data import mini, published, splits
from jmp_lib.data.store_view import StoreView
from jmp_lib.data.structures import StructureSet
from jmp_lib.paths import FACTS_DIR
from jmp_lib.strict import nearest
from jmp_lib.units import print_factor

FAMILIES = ("qm9", "rmd17", "md22", "spice", "matbench", "qmof")
# pre-training sets in the order of the pre-training heads -> the mini set of each
PRETRAINING_SETS = {"oc20": "oc20-mini", "oc22": "oc22-mini", "ani1x": "anix-mini", "transition1x": "t1x-mini"}
# share of the structures of a mini pre-training set that is validation, in whole groups
PRETRAINING_VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Task:
    """One of the 40 tasks, as in facts/tasks.csv (settings of the official run script).

    label: key of a structure that holds the target (``forces`` for the 19 force tasks). label_unit: its unit in
    memory; printed_unit: the paper's; printed = print_factor * value. metric: ``MAE`` or ``force MAE`` (mean over
    atoms and components). head: ``scalar``, ``spatial_extent``, ``gradient_forces`` or ``direct_forces``;
    head_packaged: what the packaged configs have instead. reduction: over atoms, ``sum``, ``mean`` or ``max``.
    n_train, n_val, n_test: the official counts (MatBench: of fold 0; all folds in fold_counts); n_total all.
    cutoff Å, max_neighbors: of the official graphs; max_neighbors_by_size: {atoms above which: limit}.
    """

    id: str
    family: str
    target: str
    label: str
    label_unit: str
    printed_unit: str
    metric: str
    head: str
    head_packaged: str
    reduction: str
    n_train: int
    n_val: int
    n_test: int
    n_total: int
    split_rule: str
    fold_counts: tuple[tuple[int, int, int], ...]
    cutoff: float
    max_neighbors: int
    max_neighbors_by_size: dict[int, int]
    periodic: bool

    @property
    def print_factor(self) -> float:
        """Printed value = print_factor * value in label_unit."""
        return print_factor(self.label_unit, self.printed_unit)

    @property
    def is_force_task(self) -> bool:
        """Whether the target is the forces."""
        return self.label == "forces"

    @property
    def direct_forces(self) -> bool:
        """Whether forces come from per-edge vectors and not from an energy gradient."""
        return self.head == "direct_forces"

    @property
    def n_folds(self) -> int:
        """Number of official folds (1 where there are none)."""
        return len(self.fold_counts) or 1

    @property
    def suffix(self) -> str:
        """The id without the family: ``ethanol`` of ``rmd17_ethanol``."""
        return self.id.removeprefix(self.family + "_")

    @property
    def mini_name(self) -> str:
        """Name of the mini set that stands in."""
        return f"{self.family}-mini" if self.family in ("qm9", "qmof") else f"{self.family}-mini-{self.suffix}"

    def official_split(self, n: int | None = None, fold: int = 0) -> splits.Split:
        """The official split of ``n`` structures (None: the published number), by rule on the size alone.

        Raises ``ValueError`` for a fold there is not and when ``n`` is too small for the rule.
        """
        n = self.n_total if n is None else n
        splits.check_fold(self.family, fold)
        rules = {
            "qm9": lambda: splits.qm9(n),
            "rmd17": lambda: splits.rmd17(n, self.n_train, self.n_val),
            "md22": lambda: splits.md22(n, pool=self.n_train + self.n_val),
            "spice": lambda: splits.eighty_ten_ten(n),
            "qmof": lambda: splits.eighty_ten_ten(n),
            "matbench": lambda: splits.matbench(n, fold),
        }
        return rules[self.family]()


@dataclass(frozen=True, eq=False)
class TaskData:
    """Data of one task: three sets whose structures have ``label`` (in the task's label_unit), and what they are.

    name: for tables, says what the labels are (``qm9-mini (GFN2-xTB)``). data_kind: ``generated`` or
    ``published``. data_sha256: contents of the whole set; split_sha256: rows of the three parts after the caps.
    """

    task: Task
    train: StructureSet
    val: StructureSet
    test: StructureSet
    name: str
    description: str
    data_kind: str
    data_sha256: str
    split_sha256: str
    fold: int = 0

    @property
    def label(self) -> str:
        """Key of the target in each structure."""
        return self.task.label


class PretrainingData(NamedTuple):
    """One pre-training set: its name (``oc20``, ...), train and validation structures with energy and forces."""

    name: str
    train: StructureSet | StoreView
    val: StructureSet | StoreView


def _read_tasks() -> dict[str, Task]:
    def task(row: dict[str, str]) -> Task:
        return Task(
            **{key: row[key] for key in ("id", "family", "target", "label", "metric", "split_rule")},
            label_unit=row["unit_in_loader"],
            printed_unit=row["unit_printed"],
            head=row["head_run_script"],
            head_packaged=row["head_packaged"],
            reduction=row["reduction_run_script"],
            **{key: int(row[key]) for key in ("n_train", "n_val", "n_test", "n_total", "max_neighbors")},
            fold_counts=tuple(tuple(map(int, fold.split("/"))) for fold in row["folds"].split(";") if fold),
            cutoff=float(row["cutoff"]),
            max_neighbors_by_size={
                int(k): int(v) for k, v in (s.split(":") for s in row["max_neighbors_by_size"].split(";") if s)
            },
            periodic=row["periodic"] == "true",
        )

    with open(FACTS_DIR / "tasks.csv", newline="", encoding="utf-8") as stream:
        return {row["id"]: task(row) for row in csv.DictReader(stream)}


TASKS: dict[str, Task] = _read_tasks()


def get_task(task_id: str) -> Task:
    """The task with that id; raises ``ValueError`` naming the nearest one for an unknown id."""
    if task_id not in TASKS:
        raise ValueError(f"there is no task {task_id!r}; {nearest(task_id, TASKS)}")
    return TASKS[task_id]


def load_task_data(
    task_id: str,
    data: str = "mini",
    data_root: str | Path | None = None,
    caps: Mapping[str, int | None] | None = None,
    fold: int = 0,
) -> TaskData:
    """Train, validation and test structures of a task.

    data: ``mini`` (ships with the package) or ``published`` (original files under ``data_root``). caps: at most so
    many structures, by part (keys train, val, test; None: all), the first ones of the split's order. fold: of the
    MatBench folds. Raises ``ValueError`` or ``FileNotFoundError``, one sentence, when there is nothing to load.
    """
    task = get_task(task_id)
    caps = _checked_caps(caps, ("train", "val", "test"))
    splits.check_fold(task.family, fold)
    if data == "mini":
        whole = mini.load_mini(task.mini_name)
        split = splits.mini(task.family, len(whole), fold)
        name, kind = mini_data_name(mini.card(task.mini_name)), "generated"
    elif data == "published":
        whole, split = published.load(task, data_root, fold)
        name, kind = f"{whole.name} (published)", "published"
    else:
        raise ValueError(f"data is {data!r}; it can be 'mini' or 'published'")
    if task.label not in whole.labels:
        raise ValueError(
            f"{whole.name} has no label {task.label!r} for {task.id} (it has {', '.join(whole.labels) or 'none'})"
        )
    split = split.capped(**caps)
    train, val, test = (whole.subset(rows) for rows in (split.train, split.val, split.test))
    return TaskData(
        task,
        train,
        val,
        test,
        name=name,
        description=whole.description,
        data_kind=kind,
        data_sha256=whole.sha256,
        split_sha256=split.sha256,
        fold=fold,
    )


def load_pretraining_data(
    data: str = "mini",
    caps: Mapping[str, Mapping[str, int | None]] | None = None,
    data_root: str | Path | None = None,
) -> list[PretrainingData]:
    """The four pre-training sets, in the order of the pre-training heads: oc20, oc22, ani1x, transition1x.

    data: ``mini``, whole groups (a trajectory, a molecule, a reaction) go to validation, a tenth of the structures; or
    ``published``, stores or files under ``data_root`` (None: JMP_DATA, else data/) by :mod:`~.pretraining_files`, which
    stay on disk where they are stores; or ``mini+published``, both together (:mod:`~.pretraining_both`). caps:
    {set: {"train": n, "val": n}}, at most so many structures, drawn from all groups. Raises ``ValueError`` for another
    source, an unknown set or damaged data, ``FileNotFoundError`` (set, folder, command) where nothing is there.
    """
    caps = _checked_caps(caps, tuple(PRETRAINING_SETS))
    limits = {name: _checked_caps(caps[name], ("train", "val")) for name in PRETRAINING_SETS}
    if data == "published":
        from jmp_lib.data import pretraining_files

        for name in PRETRAINING_SETS:  # a missing set is told before the others are read
            pretraining_files.find(name, data_root)
        return [PretrainingData(name, *pretraining_files.load(name, data_root, limits[name])) for name in PRETRAINING_SETS]
    if data not in ("mini", "mini+published"):
        raise ValueError(f"data is {data!r}; pre-training data can be 'mini', 'published' or 'mini+published'")
    found = [PretrainingData(name, *_mini_pretraining(mini_name, limits[name])) for name, mini_name in PRETRAINING_SETS.items()]
    if data == "mini":
        return found
    from jmp_lib.data.pretraining_both import join

    return [PretrainingData(s.name, *join(s.name, (s.train, s.val), data_root, limits[s.name])) for s in found]


def _mini_pretraining(name: str, limit: Mapping[str, int | None]) -> list[StructureSet]:
    """Training and validation part of a mini pre-training set."""
    whole = mini.load_mini(name)
    missing = [key for key in ("energy", "forces") if key not in whole.labels]
    if missing:
        raise ValueError(f"{name} has no {' and no '.join(missing)}, which pre-training needs")
    train, val = splits.by_group(whole.group, PRETRAINING_VAL_FRACTION)
    train, val = keep_elements_in_train(whole, train, val)
    return [whole.subset(train[: limit["train"]]), whole.subset(val[: limit["val"]])]


def keep_elements_in_train(whole: StructureSet, train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves to train the validation groups with an element that no training structure has.

    Reference energies of such an element cannot be fitted, and its embedding would be random.
    """
    known = whole.subset(train).elements
    group = whole.group
    unseen = {group[i] for i in val if not np.isin(whole[int(i)].atomic_numbers, known).all()}
    moved = np.isin(group[val], list(unseen))
    return np.concatenate([train, val[moved]]), val[~moved]


def mini_data_name(card: Mapping) -> str:
    """Name of a mini set with its level of theory, as it stands in records and tables: ``qm9-mini (GFN2-xTB)``."""
    level = re.sub(r"\s*\([^()]*\)", "", card["level_of_theory"])
    return f"{card['name']} ({level})"


def split_sha256(*parts: StructureSet) -> str:
    """Hash of which rows of a set each of ``parts`` holds (ids), the same as of a split of the whole set."""
    return splits.rows_sha256(*(part.ids for part in parts))


def _checked_caps(caps: Mapping | None, known: tuple[str, ...]) -> dict:
    """``caps`` with a value (None: no limit) for every name of ``known``; raises ``ValueError`` for any other name."""
    caps = dict(caps or {})
    for key, value in caps.items():
        if key not in known:
            raise ValueError(f"caps has an unknown key {key!r}; {nearest(key, known)}")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"caps[{key!r}] is {value}; it must be at least 1")
    return {key: caps.get(key) for key in known}
