"""The families of fine-tuning tasks: the one list of them. Adding a family touches four places: a file that reads its
data, a row here (or :func:`register` from outside), rows of tasks (facts/tasks.csv, or
:func:`jmp_lib.data.tasks.add_tasks`), and a notebook.

>>> for task in TASKS.values():
...     print(task.id, why_not(task, "data") or "can run")

A family's file has three functions; name is a task's id without the family, or "" where all tasks are targets of one set.
``find(name, root)`` gives the paths of the files at hand, ``load(name, root, fold)`` all structures and their split (rows of
train, validation and test), ``mend(name, root)`` where the files come from and where to put them. A file is imported when it
is first asked for something. A prepared set under ``root/stores`` (:func:`prepare`) is taken in place of the original files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_lib.data import splits
from jmp_lib.paths import data_place
from jmp_lib.strict import nearest

if TYPE_CHECKING:
    from jmp_lib.data.structures import StructureSet


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    module: dotted name of the file that reads its data; subset: what its notebook calls its tasks (targets, molecules,
    tasks); notebook: name of its notebook; mini_split: split of (structures, fold) of its mini sets; folds: number of
    folds; one_set: whether all its tasks are targets of one set; graph: settings of its graphs (fields of
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
        Family("rmd17", "rMD17", "jmp_lib.data.rmd17", "molecules", "05_rmd17", _by_parts(0.5, 0.125)),
        # 80 frames: 40, 16, 24
        Family("md22", "MD22", "jmp_lib.data.md22", "molecules", "06_md22", _by_parts(0.5, 0.2)),
        # 300 conformers: 240, 30, 30
        Family("spice", "SPICE", "jmp_lib.data.spice", "tasks", "07_spice", lambda n, fold: splits.eighty_ten_ten(n)),
        # 300 crystals: 192, 48, 60 (test parts by the official fold rule)
        Family("matbench", "MatBench", "jmp_lib.data.matbench", "tasks", "08_matbench", lambda n, fold: splits.matbench(n, fold, 0.8),
               folds=5),
        # 200 frameworks: 140, 40, 20
        Family("qmof", "QMOF", "jmp_lib.data.qmof", "tasks", "09_qmof", _by_parts(0.7, 0.2), one_set=True),
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


# --- published files -----------------------------------------------------------------------------------------


def load(task, data_root: str | Path | None, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The published structures at hand for ``task``, all in one set, and their split (rows of the set).

    Where only a part of the files is at hand the name of the set says how much. Raises ``ValueError`` or
    ``FileNotFoundError``, one sentence with what to put where, when there is nothing to load.
    """
    if data_root is None:
        raise ValueError(f"data='published' needs data_root; {FAMILIES[task.family].reader.mend(_set_name(task))}")
    return _load(task.family, _set_name(task), str(data_root), fold, _state(task, data_root), store_path(task, data_root))


def _set_name(task) -> str:
    """The part of a task's id that its data hang on."""
    return "" if FAMILIES[task.family].one_set else task.suffix


@lru_cache(maxsize=2)
def _load(family: str, name: str, root: str, fold: int, state: str, path: Path) -> tuple[StructureSet, splits.Split]:
    """The prepared set, or what the family's file reads; kept while the files stay as they are."""
    if path.is_dir():
        from jmp_lib.data.store import extra, open_store

        found = open_store(path)
        parts = [extra(found, f"split {fold} {part}") for part in ("train", "val", "test")]
        if state in ("", found.card.get("files")) and all(rows is not None for rows in parts):
            return found, splits.Split(*parts)
    return FAMILIES[family].reader.load(name, root, fold)


def _state(task, root: str | Path) -> str:
    """Names, bytes and times of the last change of the files of ``task``; empty where they are not found (yet)."""
    try:
        found = FAMILIES[task.family].reader.find(_set_name(task), root)
    except (FileNotFoundError, ValueError):
        return ""
    return "; ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in found)


def why_not(task, data_root: str | Path, *, fold: int = 0, thorough: bool = False) -> str | None:
    """Why ``task`` cannot run with the published files under ``data_root``, in one sentence, or None when it can.

    The files are only found, unless ``thorough``: then they are read, so that a damaged one, or one with too few
    structures for the split, shows as well.
    """
    try:
        if thorough:
            load(task, data_root, fold)
        elif not store_path(task, data_root).is_dir():
            FAMILIES[task.family].reader.find(_set_name(task), data_root)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def store_path(task, data_root: str | Path) -> Path:
    """Where the prepared set of ``task`` lies: ``stores/qm9``, ``stores/rmd17-ethanol``, ..."""
    name = _set_name(task)
    return data_place(data_root, "stores", f"{task.family}-{name}" if name else task.family)


def prepare(task, data_root: str | Path, card: dict, progress: Callable[[int], None] = lambda n: None) -> StructureSet:
    """Read the files of ``task`` once and keep set and splits as a prepared set, which every process maps from then on.

    Raises as :func:`load` and :func:`jmp_lib.data.store.write_store`.
    """
    from jmp_lib.data.store import set_part, write_store

    family, state, rows = FAMILIES[task.family], _state(task, data_root), {}
    for fold in range(family.folds):
        whole, split = family.reader.load(_set_name(task), data_root, fold)
        rows |= {f"split {fold} {part}": getattr(split, part) for part in ("train", "val", "test")}
    return write_store(store_path(task, data_root), [set_part(whole, state)], name=whole.name,
                       description=whole.description, card={**card, "files": state}, extras=rows, progress=progress)
