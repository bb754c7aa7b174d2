"""The 40 fine-tuning tasks, their families, and the data of each.

>>> task = get_task("qm9_eps_homo")
>>> task.label, task.label_unit, task.printed_unit, task.print_factor
('eps_HOMO', 'eV', 'meV', 1000.0)
>>> data = load_task_data("qm9_eps_homo")          # of qm9-mini
>>> data.train, data.val, data.test                # StructureSets whose structures have the label

Adding a family touches four places: a file that reads its data, a row of FAMILIES (or :func:`register` from outside),
rows of tasks (facts/tasks.csv, or :func:`add_tasks`), and a notebook. Its file has three functions; name is a task's
id without the family, or "" where all tasks are targets of one set. ``find(name, root)`` gives the paths of the files
at hand, ``load(name, root, fold)`` all structures and their split (rows of train, validation and test),
``mend(name, root)`` where the files come from and where to put them. A file is imported when it is first asked for
something. A prepared set under ``root/stores`` (:func:`prepare_task`) is taken in place of the original files.
"""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_lib.data import splits
from jmp_lib.parameters import nearest
from jmp_lib.paths import FACTS_DIR, data_place
from jmp_lib.units import print_factor

if TYPE_CHECKING:
    from jmp_lib.data.structures import StructureSet

# pre-training sets in the order of the pre-training heads -> the mini set of each
PRETRAINING_SETS = {"oc20": "oc20-mini", "oc22": "oc22-mini", "ani1x": "anix-mini", "transition1x": "t1x-mini"}


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    module: dotted name of the file that reads its data; subset: what its notebook calls its tasks (targets, molecules,
    tasks); notebook: name of its notebook; mini_split: split of (structures, fold) of its mini sets; folds: number of
    folds; one_set: whether all its tasks are targets of one set; domain: of its structures, for colours; trajectory:
    whether its test parts are frames of one; graph: settings of its graphs (fields of
    :class:`jmp_lib.graphs.GraphConfig`) where a profile has none of it.
    """

    name: str
    title: str
    module: str
    subset: str
    notebook: str
    mini_split: Callable[[int, int], splits.Split]
    folds: int = 1
    one_set: bool = False
    domain: str = "molecules"
    trajectory: bool = False
    graph: dict | None = None

    @property
    def reader(self):
        """Its module, imported now."""
        return importlib.import_module(self.module)

    def check_fold(self, fold: int) -> None:
        """Raise ``ValueError`` unless it has fold ``fold``."""
        if fold and fold not in range(self.folds):
            what = f"its folds are 0 to {self.folds - 1}" if self.folds > 1 else "only MatBench tasks have folds"
            raise ValueError(f"fold {fold} asked of a {self.name} task: {what}")


def _by_parts(train: float, val: float) -> Callable[[int, int], splits.Split]:
    return lambda n, fold: splits.consecutive(n, int(train * n), int(val * n))


# what the official rule becomes at the size of a mini set (counts at the shipped size)
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # 800 molecules: 600 train, 100 validation, 100 test
        Family("qm9", "QM9", "jmp_lib.data.qm9", "targets", "04_qm9", _by_parts(0.75, 0.125), one_set=True),
        # 400 frames: 200, 50, 150
        Family("rmd17", "rMD17", "jmp_lib.data.rmd17", "molecules", "05_rmd17", _by_parts(0.5, 0.125), trajectory=True),
        # 80 frames: 40, 16, 24
        Family("md22", "MD22", "jmp_lib.data.md22", "molecules", "06_md22",
               _by_parts(0.5, 0.2), domain="large molecules", trajectory=True),
        # 300 conformers: 240, 30, 30
        Family("spice", "SPICE", "jmp_lib.data.spice", "tasks", "07_spice", lambda n, fold: splits.eighty_ten_ten(n),
               domain="large molecules"),
        # 300 crystals: 192, 48, 60 (test parts by the official fold rule)
        Family("matbench", "MatBench", "jmp_lib.data.matbench", "tasks", "08_matbench",
               lambda n, fold: splits.matbench(n, fold, 0.8), folds=5, domain="bulk crystals"),
        # 200 frameworks: 140, 40, 20
        Family("qmof", "QMOF", "jmp_lib.data.qmof", "tasks", "09_qmof",
               _by_parts(0.7, 0.2), one_set=True, domain="MOFs"),
    )
}


def register(family: Family) -> None:
    """Add a family from outside; raises ``ValueError`` when there is one of that name."""
    if family.name in FAMILIES:
        raise ValueError(f"there is a family {family.name!r} already; choose another name")
    FAMILIES[family.name] = family


def get_family(name: str) -> Family:
    """The family of that name; ``ValueError`` naming the nearest for an unknown one."""
    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r} (known: {', '.join(FAMILIES)}); {nearest(name, FAMILIES)}")
    return FAMILIES[name]


@dataclass(frozen=True)
class Task:
    """One of the 40 tasks, as in facts/tasks.csv (settings of the official run script).

    label: key of a structure that holds the target (``forces`` for the 19 force tasks). label_unit: its unit in
    memory; printed_unit: the paper's; printed = print_factor * value. metric: ``MAE`` or ``force MAE`` (mean over
    atoms and components). head: ``scalar``, ``spatial_extent``, ``gradient_forces`` or ``direct_forces``. reduction:
    over atoms, ``sum``, ``mean`` or ``max``.
    n_train, n_val, n_test: the official counts (MatBench: of fold 0; all folds in fold_counts); n_total all.
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

    @property
    def print_factor(self) -> float:
        """Printed value = print_factor * value in label_unit."""
        return print_factor(self.label_unit, self.printed_unit)

    @property
    def is_force_task(self) -> bool:
        """Whether the target is the forces."""
        return self.label == "forces"

    @property
    def n_folds(self) -> int:
        """Number of official folds (1 where there are none)."""
        return len(self.fold_counts) or 1

    @property
    def suffix(self) -> str:
        """The id without the family: ``ethanol`` of ``rmd17_ethanol``."""
        return self.id.removeprefix(self.family + "_")

    @property
    def set_name(self) -> str:
        """What its data hang on: the suffix, or "" where all tasks of the family are targets of one set."""
        return "" if FAMILIES[self.family].one_set else self.suffix

    @property
    def mini_name(self) -> str:
        """Name of the mini set that stands in."""
        return f"{self.family}-mini-{self.set_name}".removesuffix("-")


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
            **{key: int(row[key]) for key in ("n_train", "n_val", "n_test", "n_total")},
            fold_counts=tuple(tuple(map(int, fold.split("/"))) for fold in row["folds"].split(";") if fold),
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
        get_family(task.family)
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
    family = get_family(task.family)
    caps = checked_caps(caps, ("train", "val", "test"))
    family.check_fold(fold)
    if data == "mini":
        from jmp_lib.data import mini

        whole = mini.load_mini(task.mini_name)
        split = family.mini_split(len(whole), fold)
        level = re.sub(r"\s*\([^()]*\)", "", mini.card(task.mini_name)["level_of_theory"])
        name, kind = f"{task.mini_name} ({level})", "generated"
    elif data == "published":
        whole, split = load_published(task, data_root, fold)
        name, kind = f"{whole.name} (published)", "published"
    else:
        raise ValueError(f"data is {data!r}; it can be 'mini' or 'published'")
    if task.label not in whole.labels:
        raise ValueError(f"{whole.name} has no label {task.label!r} for {task.id} (it has "
                         f"{', '.join(whole.labels) or 'none'})")
    split = split.capped(**caps)
    train, val, test = (whole.subset(rows) for rows in (split.train, split.val, split.test))
    return TaskData(task, train, val, test, name=name, description=whole.description, data_kind=kind,
                    data_sha256=whole.sha256, split_sha256=split.sha256, fold=fold)  # fmt: skip


def checked_caps(caps: Mapping | None, known: tuple[str, ...]) -> dict:
    """``caps`` with a value (None: no limit) for every name of ``known``; raises ``ValueError`` for any other name."""
    caps = dict(caps or {})
    for key, value in caps.items():
        if key not in known:
            raise ValueError(f"caps has an unknown key {key!r}; {nearest(key, known)}")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"caps[{key!r}] is {value}; it must be at least 1")
    return {key: caps.get(key) for key in known}


# --- published files -----------------------------------------------------------------------------------------


def load_published(task: Task, data_root: str | Path | None, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The published structures at hand for ``task``, all in one set, and their split (rows of the set).

    Where only a part of the files is at hand the name of the set says how much. Raises ``ValueError`` or
    ``FileNotFoundError``, one sentence with what to put where, when there is nothing to load.
    """
    if data_root is None:
        raise ValueError(f"data='published' needs data_root; {FAMILIES[task.family].reader.mend(task.set_name)}")
    return _load(task.family, task.set_name, str(data_root), fold, _state(task, data_root), store_path(task, data_root))


@lru_cache(maxsize=2)
def _load(family: str, name: str, root: str, fold: int, state: str, path: Path) -> tuple[StructureSet, splits.Split]:
    """The prepared set, or what the family's file reads; kept while the files stay as they are."""
    if path.is_dir():
        from jmp_lib.data.store import extra, open_store

        found = open_store(path)
        parts = [extra(found, f"split {fold} {part}") for part in ("train", "val", "test")]
        if state in ("", found.about["card"].get("files")) and all(rows is not None for rows in parts):
            return found, splits.Split(*parts)
    return FAMILIES[family].reader.load(name, root, fold)


def _state(task: Task, root: str | Path) -> str:
    """Names, bytes and times of the last change of the files of ``task``; empty where they are not found (yet)."""
    try:
        found = FAMILIES[task.family].reader.find(task.set_name, root)
    except (FileNotFoundError, ValueError):
        return ""
    return "; ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in found)


def why_not(task: Task, data_root: str | Path, *, fold: int = 0, thorough: bool = False) -> str | None:
    """Why ``task`` cannot run with the published files under ``data_root``, in one sentence, or None when it can.

    The files are only found, unless ``thorough``: then they are read, so that a damaged one, or one with too few
    structures for the split, shows as well.
    """
    try:
        if thorough:
            load_published(task, data_root, fold)
        elif not store_path(task, data_root).is_dir():
            FAMILIES[task.family].reader.find(task.set_name, data_root)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def store_path(task: Task, data_root: str | Path) -> Path:
    """Where the prepared set of ``task`` lies: ``stores/qm9``, ``stores/rmd17-ethanol``, ..."""
    return data_place(data_root, "stores", f"{task.family}-{task.set_name}".removesuffix("-"))


def prepare_task(task: Task, data_root: str | Path, card: dict,
                 progress: Callable[[int], None] = lambda n: None) -> StructureSet:
    """Read the files of ``task`` once and keep set and splits as a prepared set, which every process maps from then on.

    Raises as :func:`load_published` and :func:`jmp_lib.data.store.write_store`.
    """
    from jmp_lib.data.store import Part, write_store

    family, state, rows = FAMILIES[task.family], _state(task, data_root), {}
    for fold in range(family.folds):
        whole, split = family.reader.load(task.set_name, data_root, fold)
        rows |= {f"split {fold} {part}": getattr(split, part) for part in ("train", "val", "test")}
    return write_store(store_path(task, data_root), [Part(whole.name, partial(iter, whole), state or whole.sha256)],
                       name=whole.name, description=whole.description, card={**card, "files": state},
                       extras=rows, progress=progress)
