"""The actions ``list``, ``download`` and ``prepare`` of ``python -m jmp_lib data``, and the functions behind them (for
notebooks). Light to import: libraries wait until an action is run."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_lib import paths
from jmp_lib.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from jmp_lib.data.catalog import Entry
    from jmp_lib.data.structures import StructureSet


def add_actions(actions) -> None:
    """Add list, download and prepare to the parser of ``data``."""

    def add(function, name, words, named=True):
        action = actions.add_parser(name, help=words, description=words)
        action.add_argument("--data-root", help=f"folder of the published files, or several joined by {os.pathsep!r} "
                            "(default: JMP_DATA, else data/)")
        action.set_defaults(function=function)
        if named:
            action.add_argument("name", help="name of the data set, as in the list")

    add(_list, "list", "the mini data that ship with the package, and the published data sets", named=False)
    add(_download, "download", "fetch, check and unpack the files of a data set")
    add(_prepare, "prepare", "make the store of a data set of its original files")


def _list(args) -> int:
    from jmp_lib.data.mini import card, list_mini

    for about in map(card, list_mini()):
        print(f"{about['name']:34s} {about['counts']['structures']:>6} structures  {about['level_of_theory']}"
              f"  (stands for {about['stands_for']})")  # fmt: skip
    print(f"\nPublished data sets (data root {paths.data_root(args.data_root)}):")
    for row in table(args.data_root).itertuples():
        print(f"{row.name:28s} {row.what}\n{'':28s} {row.size}; licence: {row.licence}; "
              f"{row.citation}; present: {row.present}")
    return 0


def _download(args) -> int:
    for path in download(args.name, args.data_root):
        print(path)
    return 0


def _prepare(args) -> int:
    for store in prepare(args.name, args.data_root):
        size = sum(file.stat().st_size for file in store.path.iterdir())
        print(f"{store.path}: {len(store)} structures, {size / 1e6:.1f} MB, sha256 {store.sha256}")
        for reason, count in store.about["rejected"].items():
            print(f"left out {count}: {reason}")
    return 0


def table(data_root: str | Path | None = None) -> pd.DataFrame:
    """One row for each published data set: what it is, size, licence, citation, and what of it is there."""
    import pandas as pd

    from jmp_lib.data.catalog import entries
    from jmp_lib.data.store import is_store
    from jmp_lib.data.tasks import store_path

    root, rows = paths.data_root(data_root), []
    for one in entries().values():
        stores = [store_path(task, root) for task in _tasks_of(one)] or [one.store(root)]
        there = {"files": len(one.find(root)), "stores": sum(map(is_store, stores))}
        present = ", ".join(f"{count} {words[:-1] if count == 1 else words}" for words, count in there.items() if count)
        rows.append({"name": one.name, "what": one.what, "size": one.size, "licence": one.licence,
                     "citation": one.citation, "present": present or "no"})  # fmt: skip
    return pd.DataFrame(rows)


def _tasks_of(one: Entry) -> list:
    """A task for each set of a fine-tuning family that a data set of the catalogue holds;
    none for pre-training sets."""
    from jmp_lib.data.tasks import FAMILIES, TASKS, store_path

    if one.reader not in FAMILIES:
        return []
    sets = {store_path(task, "").name.replace("_", "-"): task for task in TASKS.values() if task.family == one.reader}
    return [sets[name]] if (name := one.name.replace("_", "-")) in sets else list(sets.values())


def download(name: str, data_root: str | Path | None = None, *, progress: bool = True) -> list[Path]:
    """Fetch, check and unpack the files of data set ``name``; returns what its reader takes. Done steps are skipped.

    Raises as :func:`jmp_lib.data.catalog.fetch` and :func:`~jmp_lib.data.catalog.extract`.
    """
    from jmp_lib.data.catalog import entry, fetch, is_archive

    one, root = entry(name), paths.data_root(data_root)
    folder = paths.data_dir(root) / one.folder
    for file in one.files:
        path = fetch(folder / file, one.sources(file), progress=progress)
        if is_archive(path):
            _unpack(path, one, folder)
    found = one.find(root)
    if not found:
        raise ValueError(f"{name}: the archive was unpacked, but {folder} has no {' or '.join(one.originals)}")
    return found


def _unpack(archive: Path, one: Entry, folder: Path) -> None:
    """Unpack once: a mark beside the archive says that it was done, and of which file."""
    from jmp_lib.data.catalog import extract

    mark = archive.with_name(archive.name + ".unpacked")
    about = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
    if mark.is_file() and mark.read_text() == about:
        return
    for path in extract(archive, folder):
        if path.name in one.unpack:
            extract(path, path.parent)
    with write_atomically(mark) as stream:
        stream.write(about)


def prepare(name: str, data_root: str | Path | None = None, *, progress: bool = True) -> list[StructureSet]:
    """The prepared sets of data set ``name``: one of a pre-training set, one for each set of a fine-tuning family.

    They are made of the original files under the data root. What the reader of a pre-training set or the checks leave
    out is counted in ``rejected``. Raises ``FileNotFoundError`` when no original file is there, else as the readers
    and :func:`jmp_lib.data.store.write_store`.
    """
    from tqdm import tqdm

    from jmp_lib.data.catalog import entry
    from jmp_lib.data.pretraining import read_part
    from jmp_lib.data.store import Part, write_store
    from jmp_lib.data.tasks import prepare_task, why_not

    one, root = entry(name), paths.data_root(data_root)
    card = {"dataset": one.dataset, "what": one.what, "licence": one.licence,
            "citation": one.citation, "reader": one.reader, "options": one.options,
            "units": "eV, Å, eV/Å; targets in the loader's unit of facts/tasks.csv"}  # fmt: skip
    with tqdm(desc=name, unit=" structures", disable=not progress) as bar:
        if tasks := _tasks_of(one):
            reasons = {task.id: why_not(task, root) for task in tasks}
            able = [task for task in tasks if reasons[task.id] is None]
            if not able:
                raise FileNotFoundError(f"{reasons[tasks[0].id]}; or run `python -m jmp_lib data download {name}`")
            return [prepare_task(task, root, card, bar.update) for task in able]
        if not (files := one.find(root)):
            raise FileNotFoundError(f"no file of {name} in {paths.data_dir(root) / one.folder} (looked for "
                                    f"{' or '.join(one.originals)}); run `python -m jmp_lib data download {name}`")
        rejected = []
        parts = [Part(file.name, partial(read_part, file, dataset=one.reader, rejected=rejected, **one.options),
                      f"{file.stat().st_size} {file.stat().st_mtime_ns} {one.options}", rejected)
                 for file in files]  # fmt: skip
        return [write_store(one.store(root), parts, name=one.name, description=one.what,
                            card={**card, "files": [file.name for file in files]}, progress=bar.update)]
