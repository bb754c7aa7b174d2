"""What the readers of the published sets share: finding a file, opening npz, HDF5, LMDB and JSON safely,
checking shapes.

The file of a fine-tuning family is as :mod:`jmp_lib.data.tasks` says; that of a pre-training set has
``read(path, rejected)``, which gives the structures of one file, one at a time. What is wrong is one sentence with
the file and the mend: ``FileNotFoundError`` where nothing is there, ``ValueError`` for a file that is damaged or
something else, or for a structure that cannot be used (with a list ``rejected`` the reason goes into the list).
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jmp_lib.data.apart import Asked, reads
from jmp_lib.data.structures import StructureSet, to_set
from jmp_lib.files import reading
from jmp_lib.paths import data_dirs


def known(words: str, name: str, names: Iterable[str]) -> str:
    """``name``, or ``ValueError`` ("rMD17 has no molecule 'water'; it has ...") where it is none of ``names``."""
    if name not in names:
        raise ValueError(f"{words} {name!r}; it has {', '.join(names)}")
    return name


def folder_of(name: str, root: str | Path) -> Path:
    """Where the files of set ``name`` are to be put."""
    root = Path(str(root).partition(os.pathsep)[0])
    return root if root.name == name else root / name


def folders_of(name: str, root: str | Path, subfolders: Iterable[str] = ("",)) -> list[Path]:
    """Where the files of set ``name`` are looked for: in every folder of ``root``, its ``name`` and ``name_...``, and
    in their ``subfolders``."""
    bases = (base for folder in data_dirs(root)
             for base in (folder, folder / name,
                          *(path for path in sorted(folder.glob(f"{name}_*")) if path.is_dir())))  # fmt: skip
    return [base / sub for base in bases for sub in subfolders]


def matching(pattern: str, folders: Iterable[Path]) -> list[Path]:
    """The files of ``pattern`` in ``folders``, sorted by their places below them; what several folders have is taken
    once, and ``ValueError`` where it differs."""
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in folder.glob(pattern):
            first = found.setdefault(path.relative_to(folder), path)
            if first != path and path.is_file() and not filecmp.cmp(first, path):
                raise ValueError(f"{path.name} lies in {first.parent} and in {path.parent} with different contents; "
                                 "remove one of them, or name one folder as the data root")  # fmt: skip
    return [found[place] for place in sorted(found)]


def first_file(patterns: Iterable[str], folders: list[Path], missing: str) -> Path:
    """The first file of the first pattern that is in a folder; else ``FileNotFoundError(missing)``."""
    for path in (path for pattern in patterns for path in matching(pattern, folders)):
        return path
    raise FileNotFoundError(missing)


def whole_set(name: str, structures: Iterable[dict], total: int, description: str, path: Path) -> StructureSet:
    """The set of ``structures``; its name says how many of ``total`` are there. ``{n}`` in ``description``:
    their number."""
    with reading(path, "get it anew"):
        found = list(structures)
    name = name if len(found) == total else f"{name}, {len(found)} of {total}"
    return to_set(name, found, description.format(n=len(found)), where=str(path))


def check_head(path: str | Path, what: str, magic: bytes = b"", *, mend: str) -> Path:
    """The path of a file that begins as ``what`` (an npz archive, ...) does, with the bytes ``magic``.
    mend closes each message.

    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` when it is empty, a web page,
    a git-lfs pointer or another.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not {what}; {mend}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {mend}")
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise ValueError(f"{path} is empty; {mend}")
    if head.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page (html), not {what}: the download was answered by a page; {mend}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a git-lfs pointer, not the file itself; {mend}")
    if not head.startswith(magic):
        raise ValueError(f"{path} is not {what}; {mend}")
    return path


@contextmanager
def opened(path: str | Path, what: str, magic: bytes = b"", *, mend: str) -> Iterator[Path]:
    """:func:`check_head`, and :func:`jmp_lib.files.reading` around what is done with the file."""
    with reading(path, mend):
        yield check_head(path, what, magic, mend=mend)


def check_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], **sizes: int) -> None:
    """Raise ``ValueError`` unless each array has its shape, numbers and names; a name is one size everywhere.

    >>> check_shapes({"R": np.zeros((7, 3, 3)), "z": np.ones(3)}, {"R": ("frames", "atoms", 3), "z": ("atoms",)})
    """
    for key, shape in shapes.items():
        found = arrays[key].shape
        if len(found) == len(shape):
            sizes = {name: n for name, n in zip(shape, found, strict=True) if isinstance(name, str)} | sizes
        needed = tuple(sizes.get(name, name) for name in shape)
        if found != needed:
            raise ValueError(f"array {key!r} has shape {found} where ({', '.join(map(str, needed))}) is needed")


def read_npz(path: str | Path, shapes: Mapping[str, tuple | None], *, counts: str | None = None,
             mend: str) -> dict[str, np.ndarray]:
    """Arrays of an npz archive, those of pickled objects left out: nothing in it is executed.

    shapes: the arrays that must be there, with shapes for :func:`check_shapes` or None. counts: the array whose sum is
    the size ``atoms``.
    """
    with opened(path, "an npz archive", b"PK", mend=mend), np.load(path, allow_pickle=False) as archive:
        missing = [key for key in shapes if key not in archive.files]
        if missing:
            found = ", ".join(archive.files) or "nothing"
            raise ValueError(f"{path} has no array {', '.join(map(repr, missing))} (it has {found}); {mend}")
        arrays = {}
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                if key in shapes:
                    raise ValueError(f"{path} holds pickled Python objects, which are never loaded; {mend}") from None
        if strange := [key for key in shapes if arrays[key].dtype.kind not in "iufbU"]:
            raise ValueError(f"array {strange[0]!r} holds {arrays[strange[0]].dtype}, not numbers")
        if counts and not (arrays[counts].dtype.kind in "iu" and (arrays[counts] >= 0).all()):
            raise ValueError(f"array {counts!r} holds something else than numbers of atoms")
        sizes = {"atoms": int(arrays[counts].sum(dtype=np.int64))} if counts else {}
        check_shapes(arrays, {key: shape for key, shape in shapes.items() if shape is not None}, **sizes)
        return arrays


def slices(counts: np.ndarray) -> Iterator[slice]:
    """Where the atoms of each structure lie in flat arrays; counts (S,): atoms of each."""
    ends = np.cumsum(counts, dtype=np.int64)
    return map(slice, ends - counts, ends)


@contextmanager
def open_h5(path: str | Path, *, mend: str) -> Iterator[Asked]:
    """An HDF5 file to be asked for names and arrays, in a process of its own; whatever goes wrong
    with it is one sentence."""
    with opened(path, "an HDF5 file", b"\x89HDF", mend=mend), reads("h5", path) as file:
        yield file


def frames_of(file: Asked, group: str, keys: Iterable[str]) -> Iterator[tuple]:
    """(atomic numbers, row of array ``keys[0]``, ...) for each frame of a group of an HDF5 file; ``ValueError`` where
    numbers of frames differ."""
    *arrays, numbers = file.arrays(group, (*keys, "atomic_numbers")).values()
    if numbers.dtype.kind not in "iu" or not numbers.shape:
        raise ValueError(f"group {group}: 'atomic_numbers' does not hold whole numbers")
    if len({array.shape[:1] for array in arrays}) > 1 or not arrays[0].shape:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in zip(keys, arrays, strict=True))
        raise ValueError(f"group {group}: the numbers of frames differ ({shapes})")
    return ((numbers, *row) for row in zip(*arrays, strict=True))


@contextmanager
def open_lmdb(path: str | Path, *, mend: str) -> Iterator[Asked]:
    """An LMDB to be asked for values, likewise."""
    with opened(path, "an LMDB", mend=mend), reads("lmdb", path) as file:
        yield file


def json_items(stream, prefix: str) -> Iterator:
    """The items at ``prefix`` of a JSON text, one at a time: ``item`` of a list, ``data.item`` of the list ``data``."""
    import ijson

    try:
        yield from ijson.items(stream, prefix, use_float=True)
    except ijson.JSONError as error:
        raise ValueError(f"{Path(stream.name).name} is cut short or not JSON: {error}") from None
