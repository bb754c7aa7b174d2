"""The published MatBench v0.1 files, ``matbench_<task>.json.gz``: 8 structure tasks, read as they are.

Layout: gzip JSON with ``index``, ``columns`` (structure column, target column) and ``data`` = [[structure, target],
...], a structure being a pymatgen dictionary. Rows are read one by one, so memory does not grow with the file. ``id``
is the official row number (``mb-<task>-<row + 1>``), so that a file with only some of the rows keeps them apart as the
official folds do. Labels: ``y`` in the unit of the task (facts/tasks.csv), as released; nothing is converted but the
types. Splits: the official fold, of its training part the seed-42 90/10 (:func:`jmp_lib.data.splits.matbench`).

Looked for in ``data_root``, ``data_root/matbench`` and the folder of matminer's loader (``$MATMINER_DATA``, else in the
package), where the ``matbench`` package keeps its downloads: the whole file, then ``_subset``, then
``_analog_structures`` (structures of the same compound from another source beside the official targets; the name of
the set says so).
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, numbers_of, part_name, screened, to_set
from jmp_lib.data.files import check_head
from jmp_lib.data.jsonstream import list_at
from jmp_lib.data.structures import StructureSet
from jmp_lib.facts import downloads
from jmp_lib.facts import task as task_facts

TASKS = ("jdft2d", "phonons", "dielectric", "log_gvrh", "log_kvrh", "perovskites", "mp_gap", "mp_e_form")
# name of the target column -> tasks that have it: the check that a file is the task it is named for
TARGET_COLUMN = {
    "jdft2d": "exfoliation_en",
    "phonons": "last phdos peak",
    "dielectric": "n",
    "log_gvrh": "log10(G_VRH)",
    "log_kvrh": "log10(K_VRH)",
    "perovskites": "e_form",
    "mp_gap": "gap pbe",
    "mp_e_form": "e_form",
}
_ENDINGS = ("", "_subset", "_analog_structures")


def check_task(task: str) -> None:
    """Raise ``ValueError`` unless ``task`` is one of the eight."""
    if task not in TASKS:
        raise ValueError(f"MatBench has no structure task {task!r} here; it has {', '.join(TASKS)}")


def n_total(task: str) -> int:
    """Official number of structures of ``task``."""
    return int(task_facts(f"matbench_{task}")["n_total"])


def mend(task: str, data_root: str | Path = "DATA_ROOT") -> str:
    """Where the file of ``task`` comes from and where to put it."""
    rows = downloads()
    rows = rows[(rows["dataset"] == "MatBench") & (rows["part"] == task)]
    root = Path(data_root)
    folder = root if root.name == "matbench" else root / "matbench"
    return f"get matbench_{task}.json.gz from {rows['url'].iloc[0]} and put it in {folder}"


def find_file(task: str, data_root: str | Path) -> Path:
    """The best file of ``task`` at hand; raises ``FileNotFoundError`` (one sentence with the mend) when none is."""
    check_task(task)
    root = Path(data_root).expanduser()
    folders = [root, root / "matbench", *_matminer_folder()]
    for ending in _ENDINGS:
        for folder in folders:
            if (folder / f"matbench_{task}{ending}.json.gz").is_file():
                return folder / f"matbench_{task}{ending}.json.gz"
    raise FileNotFoundError(f"no MatBench file of {task} in {root}; {mend(task, data_root)}")


def _matminer_folder() -> list[Path]:
    """Where matminer's loader keeps what it fetched: ``$MATMINER_DATA``, else in the package; none without either."""
    if os.environ.get("MATMINER_DATA"):
        return [Path(os.environ["MATMINER_DATA"])]
    package = importlib.util.find_spec("matminer")
    return [Path(package.origin).parent / "datasets"] if package and package.origin else []


def task_of(path: str | Path) -> str:
    """The task a file is named for; raises ``ValueError`` for another name."""
    name = Path(path).name.removesuffix(".gz").removesuffix(".json").removeprefix("matbench_")
    for ending in _ENDINGS[1:]:
        name = name.removesuffix(ending)
    if name not in TASKS:
        raise ValueError(
            f"{path} is not named matbench_<task>.json.gz, so its task must be given, one of {', '.join(TASKS)}"
        )
    return name


def read(path: str | Path, task: str | None = None, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of one file, in its order, with label ``y`` (unit of the task), ``id`` and ``sid`` (official id).

    task: read off the file's name when None. rejected: gets the reason for each structure that cannot be
    used, which is then left out. Raises ``FileNotFoundError`` or ``ValueError``, one sentence with the mend.
    """
    task = task_of(path) if task is None else task
    check_task(task)
    advice = mend(task, Path(path).parent)
    check_head(path, "a gzip file", b"\x1f\x8b", mend=advice)

    def items() -> Iterator:
        n_rows = 0
        with gzip.open(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8") as stream:
            head, rows = list_at(stream, "data")
            columns, index = head.get("columns"), head.get("index")
            if not columns or not isinstance(index, list):
                raise ValueError("it does not have the fields index and columns before data")
            column = _target_column(columns, task)
            at = columns.index("structure")
            for n_rows, row in enumerate(rows, start=1):
                if n_rows > len(index):
                    raise ValueError(f"it has more rows than the {len(index)} of its index")
                number = _row_number(index[n_rows - 1])
                yield f"row {number}", _maker(row[at], row[column], number, task)
            rows.rest()  # to the end: a gzip file's checksum comes last
        if n_rows != len(index):
            raise ValueError(f"it has {n_rows} rows where its index has {len(index)}")

    yield from screened(_said_in_one_sentence(items(), path, advice), str(path), rejected)


def load_matbench(task: str, data_root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The structures at hand of ``task`` and their part of official fold 0..4 (rows of the set).

    With the whole file the split is the official one; with a part of it each structure stays in the part (train,
    validation, test) of the official split that it belongs to. Raises as :func:`find_file` and :func:`read`, and
    ``ValueError`` when a part stays empty.
    """
    path = find_file(task, data_root)
    total = n_total(task)
    about = path.stat()
    data = _load(path, task, about.st_mtime_ns, about.st_size)
    if data.ids.max() >= total:
        raise ValueError(f"{path}: row {data.ids.max()} is beyond the {total} of {task}; {mend(task, data_root)}")
    return data, official_part(data.ids, total, fold, str(path))


@lru_cache(maxsize=1)  # five folds read the same file
def _load(path: Path, task: str, modified: int, size: int) -> StructureSet:
    name, total = f"MatBench {task}" + (" with analog structures" if "_analog" in path.name else ""), n_total(task)
    data = to_set(name, read(path, task), where=str(path))
    description = f"published MatBench v0.1 {task}, {len(data)} of {total} structures, from {path.name}"
    return data.renamed(part_name(name, len(data), total), description)


def official_part(ids: np.ndarray, total: int, fold: int, where: str = "") -> splits.Split:
    """Rows of a set whose structures have the official row numbers ``ids``, in the official split's order."""
    row_of = np.full(total, -1)
    row_of[ids] = np.arange(len(ids))
    official = splits.matbench(total, fold)
    parts = [row_of[rows] for rows in (official.train, official.val, official.test)]
    parts = [rows[rows >= 0] for rows in parts]
    if not all(len(rows) for rows in parts):
        raise ValueError(
            f"{where}: its {len(ids)} of {total} structures leave a part of official fold {fold} empty (train, "
            f"validation, test: {', '.join(str(len(rows)) for rows in parts)}); get the whole file or take another fold"
        )
    return splits.Split(*parts)


def read_package(task: str) -> Iterator[dict]:
    """The same structures as :func:`read`, through the ``matbench`` package, which fetches what matminer lacks.

    Raises ``ValueError`` as :func:`read`; without a network, what matminer's loader raises.
    """
    from matbench.task import MatbenchTask

    check_task(task)
    loaded = MatbenchTask(f"matbench_{task}", autoload=False)
    loaded.load()
    yield from read_frame(loaded.df, task)


def read_frame(frame, task: str, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of a table as the ``matbench`` package or matminer's loader gives it (pymatgen structures, target)."""
    column = frame.columns[_target_column(list(frame.columns), task)]
    items = (
        (f"row {label}", _maker(structure.as_dict(), target, _row_number(label), task))
        for label, structure, target in zip(frame.index, frame["structure"], frame[column], strict=True)
    )
    yield from screened(items, f"table of {task}", rejected)


def package_folds(task: str) -> list[tuple[list[str], list[str]]]:
    """Ids (train and validation, test) of the five folds as the ``matbench`` package has them."""
    from matbench.metadata import mbv01_validation

    folds = mbv01_validation["splits"][f"matbench_{task}"]
    return [(list(folds[f"fold_{k}"]["train"]), list(folds[f"fold_{k}"]["test"])) for k in range(splits.MATBENCH_FOLDS)]


def official_id(task: str, row: int) -> str:
    """Official id of a row: ``mb-phonons-0001`` of row 0."""
    return f"mb-{task.replace('_', '-')}-{row + 1:0{len(str(n_total(task)))}d}"


def _maker(entry: dict, target, number: int, task: str):
    def make() -> dict:
        symbols = []
        for site in entry["sites"]:
            if len(site["species"]) != 1 or abs(site["species"][0].get("occu", 1) - 1) > 1e-3:
                raise ValueError("a site is shared by several elements or partly empty")
            symbols.append(re.sub(r"[\d+\-.]+$", "", site["species"][0]["element"]))
        cell = np.array(entry["lattice"]["matrix"], dtype=np.float64)
        have_xyz = all("xyz" in site for site in entry["sites"])
        places = np.array([site["xyz" if have_xyz else "abc"] for site in entry["sites"]], dtype=np.float64)
        pos = places if have_xyz else places @ cell
        if target is None:
            raise ValueError("y is missing")
        return make_structure(pos, numbers_of(symbols), number, cell=cell, sid=official_id(task, number), y=target)

    return make


def _target_column(columns: list[str], task: str) -> int:
    if "structure" not in columns or TARGET_COLUMN[task] not in columns:
        raise ValueError(f"it has the columns {', '.join(columns)} where {task} has structure, {TARGET_COLUMN[task]}")
    return columns.index(TARGET_COLUMN[task])


def _row_number(label) -> int:
    """Official row, from 0, of an index entry: the number itself, or ``mb-phonons-0001`` less one."""
    return int(label.rsplit("-", 1)[1]) - 1 if isinstance(label, str) and label.startswith("mb-") else int(label)


def _said_in_one_sentence(items: Iterable, path: str | Path, advice: str) -> Iterator:
    try:
        yield from items
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError):
        raise ValueError(f"{path} is damaged (cut short or altered); {advice}") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not a MatBench file that can be read: {error}; {advice}") from None

