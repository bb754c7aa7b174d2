"""Extended XYZ as text, one frame at a time: a count line, a line of key=value, one line for each atom.

Plain, ``.xz`` and ``.gz`` files; only one frame is in memory. ASE reads the same files, but walks through a
compressed one twice to find its frames.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers as NUMBER_OF_SYMBOL
from ase.io.extxyz import key_val_str_to_dict

from jmp_lib.data.files import check_head

_TYPES = {"R": np.float64, "I": np.int64, "L": bool, "S": str}
_FORMS = {".xz": (lzma.open, "an xz file", b"\xfd7zXZ"), ".gz": (gzip.open, "a gzip file", b"\x1f\x8b")}
_TRUE, _FALSE = ("T", "True", "true", "1"), ("F", "False", "false", "0")


@dataclass(frozen=True)
class Frame:
    """One frame: info (the key=value line), atomic_numbers (N,) int64, columns by name ((N,) or (N,k)), raw units."""

    info: dict
    atomic_numbers: np.ndarray
    columns: dict[str, np.ndarray]


def open_text(path: str | Path, *, mend: str):
    """A text stream of a plain or compressed file. ``FileNotFoundError``/``ValueError`` when missing, empty or html."""
    opener, what, magic = _FORMS.get(Path(path).suffix, (open, "a text file", b""))
    return opener(check_head(path, what, magic, mend=mend), "rt", encoding="utf-8")


def read_lines(path: str | Path, *, mend: str) -> Iterator[str]:
    """Lines without their ends; ``ValueError`` (one sentence) where the file turns out cut short or altered."""
    with open_text(path, mend=mend) as stream:
        try:
            for line in stream:
                yield line.rstrip("\n")
        except (lzma.LZMAError, zlib.error, EOFError, OSError, UnicodeDecodeError):
            raise ValueError(f"{path} is damaged (cut short or altered); {mend}") from None


def read_xyz(path: str | Path, *, mend: str) -> Iterator[Frame]:
    """Frames of an extended XYZ file; ``ValueError`` (file, frame, what is wrong) for one that cannot be parsed."""
    lines = read_lines(path, mend=mend)
    for number, head in enumerate(line for line in lines if line.strip()):
        where = f"{path}: frame {number}"
        if not head.strip().isdigit():
            raise ValueError(f"{where} begins with {head.strip()[:40]!r}, not with a number of atoms; {mend}")
        comment = next(lines, None)
        rows = [line.split() for _, line in zip(range(int(head)), lines)]
        if comment is None or len(rows) < int(head):
            raise ValueError(f"{where} ends after {len(rows)} of {int(head)} atoms: the file is cut short; {mend}")
        try:
            info = key_val_str_to_dict(comment)
            yield _frame(info, rows)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{where} is not extended XYZ ({error}); {mend}") from None


def _frame(info: dict, rows: list[list[str]]) -> Frame:
    """The columns that ``Properties`` of the key=value line names (species and pos when it names none)."""
    words = info.pop("Properties", "species:S:1:pos:R:3").split(":")
    columns, start = {}, 0
    width = sum(int(word) for word in words[2::3])
    short = [row for row in rows if len(row) != width]
    if short:
        raise ValueError(f"an atom has {len(short[0])} columns where there should be {width}")
    for name, kind, count in zip(words[::3], words[1::3], map(int, words[2::3]), strict=True):
        cells = [row[start : start + count] for row in rows]
        start += count
        if kind == "L":
            cells = [[_truth(cell) for cell in row] for row in cells]
        column = np.array(cells, dtype=_TYPES[kind]).reshape(len(rows), count)
        columns[name] = column[:, 0] if count == 1 else column
    if "species" in columns:
        numbers = np.array([NUMBER_OF_SYMBOL[symbol] for symbol in columns.pop("species")], dtype=np.int64)
    else:
        numbers = columns.pop("Z")
    return Frame(info, numbers, columns)


def _truth(word: str) -> bool:
    """A logical cell of an XYZ file."""
    if word not in _TRUE + _FALSE:
        raise ValueError(f"{word!r} is neither T nor F")
    return word in _TRUE
