"""The published files of the six fine-tuning families: which reader serves a task, and what is missing for it.

>>> for task in TASKS.values():
...     print(task.id, why_not(task, "data") or "can run")
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from jmp_lib.data import matbench, md22, qm9, qmof, rmd17, spice, splits
from jmp_lib.data.structures import StructureSet

if TYPE_CHECKING:
    from jmp_lib.data.tasks import Task

# family -> its module: functions find(task, root), load(task, root, fold), mend(task, root)
MODULES = {"qm9": qm9, "rmd17": rmd17, "md22": md22, "spice": spice, "matbench": matbench, "qmof": qmof}


def load(task: Task, data_root: str | Path | None, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The published structures at hand for ``task``, all in one set, and their split (rows of the set).

    Where only a part of the files is at hand the name of the set says how much. Raises ``ValueError`` or
    ``FileNotFoundError``, one sentence with what to put where, when there is nothing to load.
    """
    if data_root is None:
        raise ValueError(f"data='published' needs data_root; {mend(task)}")
    suffix = "" if task.family in ("qm9", "qmof") else task.suffix  # one set for all targets of QM9
    return _load(task.family, suffix, str(data_root), fold, _state(task, data_root))


@lru_cache(maxsize=2)
def _load(family: str, suffix: str, root: str, fold: int, state: tuple) -> tuple[StructureSet, splits.Split]:
    """What the loader of ``family`` reads; kept while the files stay as they are (reading QM9 takes half a minute)."""
    return MODULES[family].load(SimpleNamespace(family=family, suffix=suffix), root, fold)


def _state(task: Task, root: str | Path) -> tuple:
    """(path, bytes, time of the last change) of the files of ``task``; empty where they are not found (yet)."""
    try:
        found = MODULES[task.family].find(task, root)
    except (FileNotFoundError, ValueError):
        return ()
    return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in found)


def why_not(task: Task, data_root: str | Path, *, fold: int = 0, thorough: bool = False) -> str | None:
    """Why ``task`` cannot run with the published files under ``data_root``, in one sentence, or None when it can.

    The files are only found, unless ``thorough``: then they are read, so that a damaged one, or one with too few
    structures for the split, shows as well.
    """
    try:
        if thorough:
            load(task, data_root, fold)
        else:
            MODULES[task.family].find(task, data_root)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def mend(task: Task, data_root: str | Path = "DATA_ROOT") -> str:
    """Where the files of ``task`` come from and where to put them."""
    return MODULES[task.family].mend(task, data_root)
