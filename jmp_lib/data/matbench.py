"""The published MatBench v0.1 files, ``matbench_<task>.json.gz``: 8 structure tasks, read as they are.

Layout: gzip JSON with ``index``, ``columns`` (structure column, target column) and ``data`` = [[structure, target],
...], a structure being a pymatgen dictionary. Rows are read one by one, so memory does not grow with the file. ``id``
is the official row number (``mb-<task>-<row + 1>``), so that a file with only some of the rows keeps them apart as the
official folds do. Labels: ``y`` in the unit of the task (facts/tasks.csv), as released; nothing is converted but the
types. Splits: the official fold, of its training part the seed-42 90/10 (:func:`jmp_lib.data.splits.matbench`).

Looked for in ``data_root``, its ``matbench`` and ``matbench_...``: the whole file, then those of FORMS, which are
parts with official rows and targets; name and description of the set say what they are.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from jmp_lib.data import splits
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, numbers_of_sites, screened
from jmp_lib.data.formats import first_file, folder_of, folders_of, json_items, known, opened, whole_set
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS

# task -> name of the target column: the check that a file is the task it is named for
TARGET_COLUMN = {"jdft2d": "exfoliation_en", "phonons": "last phdos peak", "dielectric": "n",
                 "log_gvrh": "log10(G_VRH)", "log_kvrh": "log10(K_VRH)", "perovskites": "e_form", "mp_gap": "gap pbe",
                 "mp_e_form": "e_form"}  # fmt: skip
# ending of a file's name -> (what the name of the set says, what its description says), best first
FORMS = {
    "": ("", ""),
    "_mp_structures": (" with structures of the same Materials Project entries",
                       "each structure is of the same Materials Project "
                       "entry as its official row, not taken from the released file; not a random sample of the rows"),
    "_subset": ("", "not a random sample of the rows"),
    "_analog_structures": (" with analog structures", "each structure is of the same compound as its official row, "
                           "from another source; not a random sample of the rows"),
}  # fmt: skip


def mend(name: str, root: str | Path = "DATA_ROOT") -> str:
    """Where the file of a task comes from and where to put it."""
    url = source_url("MatBench", part=name)
    return f"get matbench_{name}.json.gz from {url} and put it in {folder_of('matbench', root)}"


def find(name: str, root: str | Path) -> list[Path]:
    """The best file of a task at hand."""
    known("MatBench has no structure task", name, TARGET_COLUMN)
    files = [f"matbench_{name}{ending}.json.gz" for ending in FORMS]
    missing = f"no MatBench file of {name} in {root}; {mend(name, root)}"
    return [first_file(files, folders_of("matbench", root), missing)]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The structures at hand of a task and their part of official fold 0..4 (rows of the set).

    With a part of the file each structure stays in the part (train, validation, test) of the official split that it
    belongs to. Raises ``ValueError`` when one stays empty.
    """
    (path,), total = find(name, root), n_total(name)
    data = _whole(path, name, path.stat().st_mtime_ns)
    if data.ids.max() >= total:
        raise ValueError(f"{path}: row {data.ids.max()} is beyond the {total} of {name}; {mend(name, root)}")
    row_of = np.full(total, -1)
    row_of[data.ids] = np.arange(len(data))
    official = splits.matbench(total, fold)
    parts = [row_of[rows][row_of[rows] >= 0] for rows in (official.train, official.val, official.test)]
    if not all(len(rows) for rows in parts):
        counts = ", ".join(str(len(rows)) for rows in parts)
        raise ValueError(f"{path}: its {len(data)} of {total} structures leave a part of official fold {fold} empty "
                         f"(train, validation, test: {counts}); get the whole file or take another fold")  # fmt: skip
    return data, splits.Split(*parts)


@lru_cache(maxsize=1)  # five folds read the same file
def _whole(path: Path, name: str, modified: int) -> StructureSet:
    form = next(ending for ending in reversed(FORMS) if path.name.endswith(f"{ending}.json.gz"))
    (title, note), total = FORMS[form], n_total(name)
    description = (f"published MatBench v0.1 {name}, {{n}} of {total} structures, from {path.name}"
                   + f": {note}" * bool(note))
    return whole_set(f"MatBench {name}{title}", read(path, name), total, description, path)


def read(path: Path, name: str) -> Iterator[dict]:
    """Structures of one file, in its order, with label ``y`` (unit of the task), ``id`` and ``sid`` (official id)."""
    return screened(_rows(path, name), str(path))


def n_total(name: str) -> int:
    """Official number of structures of task ``name`` (without the family)."""
    return TASKS[f"matbench_{name}"].n_total


def official_id(name: str, row: int) -> str:
    """Official id of a row: ``mb-phonons-0001`` of row 0."""
    return f"mb-{name.replace('_', '-')}-{row + 1:0{len(str(n_total(name)))}d}"


def _rows(path: Path, name: str) -> Iterator:
    with opened(path, "a gzip file", b"\x1f\x8b", mend=mend(name, path.parent)):
        head = {}
        for key in ("columns", "index"):
            with gzip.open(path) as stream:
                head[key] = next(json_items(stream, key), None)
            if not isinstance(head[key], list):
                raise ValueError(f"it has no list {key!r}")
        wanted, index, row = ("structure", TARGET_COLUMN[name]), head["index"], -1
        if not set(wanted) <= set(head["columns"]):
            raise ValueError(f"it has the columns {', '.join(head['columns'])} where {name} has {', '.join(wanted)}")
        structure, target = map(head["columns"].index, wanted)
        with gzip.open(path) as stream:  # read to the end: a gzip file's checksum comes last
            for row, values in enumerate(json_items(stream, "data.item")):
                if row >= len(index):
                    raise ValueError(f"it has more rows than the {len(index)} of its index")
                number = _number(index[row])
                yield f"row {number}", partial(_crystal, values[structure], values[target], number, name)
        if row + 1 != len(index):
            raise ValueError(f"it has {row + 1} rows where its index has {len(index)}")


def _number(label) -> int:
    """Official row, from 0, of an index entry: the number itself, or ``mb-phonons-0001`` less one."""
    return int(label.rsplit("-", 1)[1]) - 1 if isinstance(label, str) and label.startswith("mb-") else int(label)


def _crystal(entry: dict, target, number: int, name: str) -> dict:
    numbers = numbers_of_sites(entry["sites"])
    cell = np.array(entry["lattice"]["matrix"], dtype=np.float64)
    have_xyz = all("xyz" in site for site in entry["sites"])
    places = np.array([site["xyz" if have_xyz else "abc"] for site in entry["sites"]], dtype=np.float64)
    if target is None:
        raise ValueError("y is missing")
    pos = places if have_xyz else places @ cell
    return make_structure(pos, numbers, id=number, cell=cell, sid=official_id(name, number), y=target)
