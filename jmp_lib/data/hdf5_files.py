"""Reading HDF5 files in pieces, and saying in one sentence what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from jmp_lib.data.files import check_head

_ROWS = 512  # frames of a group read at a time


@contextmanager
def open_h5(path: str | Path, *, mend: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading; ``FileNotFoundError`` or ``ValueError`` (missing, html, cut short, another format)."""
    check_head(path, "an HDF5 file", b"\x89HDF", mend=mend)
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{path} is damaged (cut short or altered); {mend}") from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError):
            raise ValueError(f"{path} is damaged (cut short or altered); {mend}") from None


def dataset(group, key: str, where: str, mend: str) -> h5py.Dataset:
    """Data set ``key`` of a group; ``ValueError`` where the group lacks it (a file of another kind)."""
    try:
        found = group[key] if isinstance(group, h5py.Group) else None
    except KeyError:
        found = None
    if not isinstance(found, h5py.Dataset):
        names = ", ".join(list(group)[:8]) if isinstance(group, h5py.Group) else "no group"
        raise ValueError(f"{where} has no {key!r} (it has {names}), so this is another kind of file; {mend}")
    return found


def whole(data: h5py.Dataset, where: str, mend: str) -> np.ndarray:
    """All of a small data set; ``ValueError`` where it is no whole numbers or its bytes cannot be read."""
    try:
        values = data[()]
    except (OSError, RuntimeError):
        raise ValueError(f"{where} is damaged (cut short or altered); {mend}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
        raise ValueError(f"{where}: {data.name.rsplit('/')[-1]!r} does not hold whole numbers; {mend}")
    return values


def read_rows(arrays: list[h5py.Dataset], where: str, mend: str) -> Iterator[tuple[int, tuple]]:
    """(row, (row of each array)) of data sets with one length; ``ValueError`` when lengths differ or bytes are bad."""
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        names = ", ".join(f"{array.name.rsplit('/')[-1]} {n}" for array, n in zip(arrays, lengths, strict=True))
        raise ValueError(f"{where}: the numbers of frames differ ({names}); {mend}")
    for start in range(0, lengths[0], _ROWS):
        try:
            blocks = [array[start : start + _ROWS] for array in arrays]
        except (OSError, RuntimeError):
            raise ValueError(f"{where} is damaged (cut short or altered); {mend}") from None
        for offset in range(len(blocks[0])):
            yield start + offset, tuple(block[offset] for block in blocks)
