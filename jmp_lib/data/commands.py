"""What ``python -m jmp_lib data list | download | prepare`` does, as functions (for notebooks)."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from jmp_lib.data.catalog import Entry, entries, entry
from jmp_lib.data.download import fetch
from jmp_lib.data.extract import extract, is_archive
from jmp_lib.data.store import MANIFEST, Store
from jmp_lib.data.store_parts import LeftOut, Part
from jmp_lib.data.store_writer import file_part, write_store
from jmp_lib.paths import data_dir

FORMULAS = 100  # of ANI-1x in one part


def table(data_root: str | Path | None = None) -> pd.DataFrame:
    """One row for each published data set: what it is, size, licence, citation, and what of it is there."""
    root = data_dir(data_root)
    rows = []
    for one in entries().values():
        originals, store = one.find(root), one.store(root)
        present = [f"{len(originals)} file{'s' * (len(originals) != 1)}"] if originals else []
        if (store / MANIFEST).is_file():
            try:
                present.append(f"store of {len(Store(store))} structures")
            except ValueError:
                present.append("a store that is damaged or of another version")
        rows.append({"name": one.name, "what": one.what, "size": one.size, "licence": one.licence,
                     "citation": one.citation, "present": ", ".join(present) or "no"})  # fmt: skip
    return pd.DataFrame(rows)


def download(name: str, data_root: str | Path | None = None, *, progress: bool = True) -> list[Path]:
    """Fetch, check and unpack the files of data set ``name``; returns what its reader takes. Done steps are skipped.

    SPICE's upstream file is cut to the part that is needed; the large file stays and may be removed. Raises as
    :func:`jmp_lib.data.download.fetch` and :func:`jmp_lib.data.extract.extract`.
    """
    one, root = entry(name), data_dir(data_root)
    folder = root / one.folder
    for alternatives in one.files:
        path = _first_that_works(one, alternatives, folder, progress)
        if is_archive(path):
            _unpack(path, one, root)
    if one.cut_to:
        from jmp_lib.data.spice import cut

        target = folder / f"{one.cut_to}.h5"
        if not target.is_file():
            cut(folder / one.files[0][0], one.cut_to, target)
    found = one.find(root)
    if not found:
        raise ValueError(f"{name}: the archive was unpacked, but {folder} has no {' or '.join(one.originals)}")
    return found


def prepare(
    name: str,
    data_root: str | Path | None = None,
    *,
    sources: list[str | Path] | None = None,
    processes: int = 1,
    skip_bad: bool = True,
    progress: bool = True,
    **options,
) -> Store:
    """The store of data set ``name``, made of its original files (``sources``, else those under the data root).

    What the reader or the checks leave out is counted in ``Store.rejected``; skip_bad=False makes it an error. options
    go to the reader. Raises ``FileNotFoundError`` when no original file is there, else as its reader and
    :func:`jmp_lib.data.store_writer.write_store`.
    """
    from tqdm import tqdm

    one, root = entry(name), data_dir(data_root)
    files = [Path(source) for source in sources] if sources else one.find(root)
    if not files:
        raise FileNotFoundError(
            f"no file of {name} in {root / one.folder} (looked for {' or '.join(one.originals)}); "
            f"run `python -m jmp_lib data download {name}` or name the files with --source"
        )
    options = dict(one.options) | options
    parts = [part for file in files for part in _parts(one, file, options, skip_bad)]
    card = {
        "dataset": one.dataset, "what": one.what, "licence": one.licence, "citation": one.citation,
        "files": [file.name for file in files], "reader": one.reader, "options": options,
        "units": "eV, Å, eV/Å; targets in the loader's unit of facts/tasks.csv",
    }  # fmt: skip
    with tqdm(desc=name, unit=" structures", disable=not progress) as bar:
        return write_store(
            one.store(root), parts, name=one.name, description=one.what, card=card, processes=processes,
            skip_bad=skip_bad, progress=bar.update,
        )  # fmt: skip


def _first_that_works(one: Entry, alternatives: tuple[str, ...], folder: Path, progress: bool) -> Path:
    failures = []
    for file in alternatives:
        try:
            return fetch(folder / file, one.sources(file), progress=progress)
        except RuntimeError as error:
            failures.append(str(error))
    raise RuntimeError("; ".join(failures))


def _unpack(archive: Path, one: Entry, root: Path) -> None:
    """Unpack once: a mark beside the archive says that it was done, and of which file."""
    mark = archive.with_name(archive.name + ".unpacked")
    about = _version(archive)
    if mark.is_file() and mark.read_text() == about:
        return
    for path in extract(archive, root if archive.name in one.unpack_at_root else root / one.folder):
        if path.name in one.unpack:
            extract(path, root if path.name in one.unpack_at_root else path.parent)
    temporary = mark.with_name(mark.name + ".tmp")
    temporary.write_text(about)
    os.replace(temporary, mark)


def _parts(one: Entry, file: Path, options: dict, skip_bad: bool) -> list[Part]:
    """One part for each file; the single large file of ANI-1x by blocks of formulas, so that processes can share it."""
    fixed = {"dataset": one.reader, "skip_bad": skip_bad, **options}
    if one.reader != "ani1x" or file.suffix not in (".h5", ".hdf5") or "formulas" in options or not file.is_file():
        return [file_part(read_part, file, **fixed)]
    from jmp_lib.data.ani1x import formula_sizes

    formulas = list(formula_sizes(file))
    blocks = [formulas[start : start + FORMULAS] for start in range(0, len(formulas), FORMULAS)]
    return [
        replace(file_part(read_part, file, formulas=frozenset(block), **fixed),
                name=f"{file.name}, formulas {block[0]} to {block[-1]}", version=_version(file))
        for block in blocks
    ]  # fmt: skip


def _version(file: Path) -> str:
    return f"{file.stat().st_size} {file.stat().st_mtime_ns}"


def read_part(path: Path, *, dataset: str, skip_bad: bool, **options) -> Iterator[dict | LeftOut]:
    """Structures of one file through the reader of ``dataset``, with a :class:`LeftOut` for each it leaves out."""
    module = importlib.import_module(f"jmp_lib.data.{dataset}")
    known = inspect.signature(module.read).parameters
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"the reader of {dataset} has no option {unknown[0]!r}; it has {', '.join(list(known)[1:])}")
    rejected: list = []
    noted = {"rejected": rejected} if skip_bad and "rejected" in known else {}
    for structure in module.read(path, **options, **noted):
        yield from map(_left_out, rejected)
        rejected.clear()
        yield structure
    yield from map(_left_out, rejected)


def _left_out(item: str) -> LeftOut:
    """The reason without the place (file and frame) before it, so that equal reasons are counted together."""
    return LeftOut(str(item).rpartition(": ")[2])
