"""The 40 fine-tuning tasks and the data of each.

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
from typing import TYPE_CHECKING

from jmp_lib.data import families
from jmp_lib.data.families import FAMILIES
from jmp_lib.paths import FACTS_DIR
from jmp_lib.strict import nearest
from jmp_lib.units import print_factor

if TYPE_CHECKING:
    from jmp_lib.data.structures import StructureSet

# pre-training sets in the order of the pre-training heads -> the mini set of each
PRETRAINING_SETS = {"oc20": "oc20-mini", "oc22": "oc22-mini", "ani1x": "anix-mini", "transition1x": "t1x-mini"}


@dataclass(frozen=True)
class Task:
    """One of the 40 tasks, as in facts/tasks.csv (settings of the official run script).

    label: key of a structure that holds the target (``forces`` for the 19 force tasks). label_unit: its unit in
    memory; printed_unit: the paper's; printed = print_factor * value. metric: ``MAE`` or ``force MAE`` (mean over
    atoms and components). head: ``scalar``, ``spatial_extent``, ``gradient_forces`` or ``direct_forces``. reduction: over
    atoms, ``sum``, ``mean`` or ``max``.
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
    reduction: str
    n_train: int
    n_val: int
    n_test: int
    n_total: int
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
        return f"{self.family}-mini" if FAMILIES[self.family].one_set else f"{self.family}-mini-{self.suffix}"


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


def _read_tasks(path: Path) -> dict[str, Task]:
    def task(row: dict[str, str]) -> Task:
        return Task(
            **{key: row[key] for key in ("id", "family", "target", "label", "metric")},
            label_unit=row["unit_in_loader"],
            printed_unit=row["unit_printed"],
            head=row["head_run_script"],
            reduction=row["reduction_run_script"],
            **{key: int(row[key]) for key in ("n_train", "n_val", "n_test", "n_total", "max_neighbors")},
            fold_counts=tuple(tuple(map(int, fold.split("/"))) for fold in row["folds"].split(";") if fold),
            cutoff=float(row["cutoff"]),
            max_neighbors_by_size={int(k): int(v) for k, v in (s.split(":") for s in row["max_neighbors_by_size"].split(";") if s)},
            periodic=row["periodic"] == "true",
        )

    with open(path, newline="", encoding="utf-8") as stream:
        return {row["id"]: task(row) for row in csv.DictReader(stream)}


TASKS: dict[str, Task] = _read_tasks(FACTS_DIR / "tasks.csv")


def add_tasks(path: str | Path) -> None:
    """Add the tasks of a family that was registered from outside; path: a table with the columns of facts/tasks.csv.

    Raises ``ValueError`` for a task of an unknown family or with an id that is taken.
    """
    from jmp_lib import facts

    found = _read_tasks(Path(path))
    for task in found.values():
        families.get_family(task.family)
        if task.id in TASKS:
            raise ValueError(f"{path}: there is a task {task.id!r} already; choose another id")
    facts.add_tasks(path)
    TASKS.update(found)


def get_task(task_id: str) -> Task:
    """The task with that id; raises ``ValueError`` naming the nearest one for an unknown id."""
    if task_id not in TASKS:
        raise ValueError(f"there is no task {task_id!r}; {nearest(task_id, TASKS)}")
    return TASKS[task_id]


def load_task_data(task_id: str, data: str = "mini", data_root: str | Path | None = None,
                   caps: Mapping[str, int | None] | None = None, fold: int = 0) -> TaskData:
    """Train, validation and test structures of a task.

    data: ``mini`` (ships with the package) or ``published`` (original files under ``data_root``). caps: at most so
    many structures, by part (keys train, val, test; None: all), the first ones of the split's order. fold: of the
    MatBench folds. Raises ``ValueError`` or ``FileNotFoundError``, one sentence, when there is nothing to load.
    """
    task = get_task(task_id)
    family = families.get_family(task.family)
    caps = checked_caps(caps, ("train", "val", "test"))
    family.check_fold(fold)
    if data == "mini":
        from jmp_lib.data import mini

        whole = mini.load_mini(task.mini_name)
        split = family.mini_split(len(whole), fold)
        level = re.sub(r"\s*\([^()]*\)", "", mini.card(task.mini_name)["level_of_theory"])
        name, kind = f"{task.mini_name} ({level})", "generated"
    elif data == "published":
        whole, split = families.load(task, data_root, fold)
        name, kind = f"{whole.name} (published)", "published"
    else:
        raise ValueError(f"data is {data!r}; it can be 'mini' or 'published'")
    if task.label not in whole.labels:
        raise ValueError(
            f"{whole.name} has no label {task.label!r} for {task.id} (it has {', '.join(whole.labels) or 'none'})"
        )
    split = split.capped(**caps)
    train, val, test = (whole.subset(rows) for rows in (split.train, split.val, split.test))
    return TaskData(task, train, val, test, name=name, description=whole.description, data_kind=kind, data_sha256=whole.sha256,
                    split_sha256=split.sha256, fold=fold)  # fmt: skip


def checked_caps(caps: Mapping | None, known: tuple[str, ...]) -> dict:
    """``caps`` with a value (None: no limit) for every name of ``known``; raises ``ValueError`` for any other name."""
    caps = dict(caps or {})
    for key, value in caps.items():
        if key not in known:
            raise ValueError(f"caps has an unknown key {key!r}; {nearest(key, known)}")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"caps[{key!r}] is {value}; it must be at least 1")
    return {key: caps.get(key) for key in known}
