"""Frames of (extended) XYZ files, plain or compressed, one after the other, and lines of any text.

ASE's reader ends at a blank line without a word, takes ``CA`` for calcium and ignores ``lattice=`` and ``PBC=``; this one reads
what has one meaning and refuses the rest by file, frame and line. Units are eV, Å, eV/Å.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell

from jmp_lib.data.collect import number_of
from jmp_lib.data.door import LARGEST
from jmp_lib.data.formats import opened

_PACKED = {b"\xfd7zXZ": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_ARCHIVES = {b"PK\x03\x04": "a zip archive or a table of Excel", b"\x28\xb5\x2f\xfd": "a Zstandard file", b"7z\xbc\xaf": "a 7z archive"}
_LONGEST = 1 << 20  # characters of a line

# What writers of XYZ call the same thing, in lower case
_HEADS = dict.fromkeys(("lattice", "cell", "box", "unit_cell", "lattice_vectors", "cell_vectors", "tv"), "Lattice") | dict.fromkeys(
    ("pbc", "periodic"), "pbc") | {"properties": "Properties"}  # fmt: skip
_COLUMNS = dict.fromkeys(("species", "symbol", "symbols", "element", "elements"), "symbols") | dict.fromkeys(
    ("z", "number", "numbers", "atomic_number", "atomic_numbers"), "numbers") | dict.fromkeys(
    ("pos", "position", "positions"), "positions") | {"charge": "initial_charges"}  # fmt: skip
_KINDS = {"R": float, "I": int, "S": str, "L": dict(zip(("T", "F", "True", "False", "1", "0"), (True, False) * 3)).__getitem__}
_WORD = r"(?:[TFtf]|[Tt]rue|[Ff]alse|TRUE|FALSE|[-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_BARE = re.compile(rf"\b({'|'.join(_HEADS)})\s*=\s*({_WORD}(?:[\s,]+{_WORD})*)(?=\s|$)", re.IGNORECASE)


def read_lines(path: str | Path, *, mend: str) -> Iterator[str]:
    """Lines of a text, plain or compressed as its first bytes say, in UTF-8, UTF-16 or else Latin-1.

    Raises ``FileNotFoundError`` or ``ValueError`` (one sentence), also where the file turns out cut short or altered.
    """
    with opened(path, "a text", mend=mend):
        with open(path, "rb") as stream:
            head = stream.read(6)
        for magic, what in _ARCHIVES.items():
            if head.startswith(magic):
                raise ValueError(f"{path} is {what}: unpack it, or save it as text, first")
        opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), open)
        with opener(path, "rb") as stream:
            encoding = "utf-16" if stream.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with opener(path, "rt", encoding=encoding, errors="surrogateescape") as stream:
            while line := stream.readline(_LONGEST):
                if len(line) == _LONGEST:
                    raise ValueError(f"{path} has a line of more than {_LONGEST:,} characters, so it is something else; {mend}")
                yield line if line.isascii() else _decoded(line)


def _decoded(line: str) -> str:
    raw = line.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_frames(path: str | Path, *, mend: str) -> Iterator[Atoms]:
    """Frames of an (extended) XYZ file, one in memory at a time; blank lines count nowhere, and the usual spellings of lattice,
    pbc, Properties, species and pos are read. Raises ``FileNotFoundError`` or ``ValueError``, one sentence."""
    lines = enumerate(read_lines(path, mend=mend), 1)
    for number, (at, head) in enumerate((at, line.strip()) for at, line in lines if line.strip()):
        where = f"{path}: frame {number}"
        if not (head.isascii() and head.isdigit()):
            before = f" (does frame {number - 1} have more atoms than it says?)" if number else ""
            raise ValueError(f"{where} begins with {head[:40]!r}, not with a number of atoms, in line {at}{before}; {mend}")
        natoms = int(head[:18])
        if not 0 < natoms <= LARGEST["natoms"]:
            raise ValueError(f"{where} says that it has {head[:40]} atoms, in line {at}: 1 to {LARGEST['natoms']:,} are taken; {mend}")
        comment = next(lines, (0, ""))[1]
        rows = list(islice(((at, line.split()) for at, line in lines if not line.isspace()), natoms))
        if len(rows) < natoms:
            raise ValueError(f"{where} ends after {len(rows)} of {natoms} atoms; {mend}")
        try:
            yield _frame_of(comment, rows, where)
        except ValueError as error:
            said = str(error) if str(error).startswith(where) else f"{where} is not extended XYZ ({error})"
            raise ValueError(f"{' '.join(said.split())}; {mend}") from None  # numpy prints long arrays in several lines
        except Exception as error:  # ASE raises many kinds for text that is not its format
            raise ValueError(f"{where} is not extended XYZ ({error}); {mend}") from None


def _frame_of(comment: str, rows: list[tuple[int, list[str]]], where: str) -> Atoms:
    """The Atoms of a comment line and the words of each atom's line, with its number in the file."""
    from ase.constraints import FixAtoms, FixCartesian
    from ase.io.extxyz import set_calc_and_arrays

    info = _comment(comment, where)
    fields = str(info.pop("Properties", "species:S:1:pos:R:3")).split(":")
    columns = list(zip(fields[::3], fields[1::3], map(int, fields[2::3])))
    if len(fields) % 3 or any(kind not in _KINDS or width < 1 for _, kind, width in columns):
        raise ValueError(f"{where} has Properties={':'.join(fields)!r}, which are not NAME:TYPE:COLUMNS, ...")
    needed = sum(width for *_, width in columns)
    for at, words in rows:
        if len(words) < needed or (len(words) > needed and "Properties" in comment):
            raise ValueError(f"{where}, line {at}: {' '.join(words)[:60]!r} has {len(words)} columns where {needed} are needed (is "
                             "the number of atoms right?)")  # fmt: skip
    arrays, first = {}, 0
    for name, kind, width in columns:
        name = _COLUMNS.get(name.lower(), name)
        if name in arrays:
            raise ValueError(f"{where} has two columns {name!r}")
        convert = number_of if name in ("symbols", "numbers") else _KINDS[kind]
        found = []
        for at, words in rows:
            try:
                found.append([convert(word) for word in words[first:first + width]])
            except (ValueError, KeyError) as error:
                said = error if convert is number_of else f"{' '.join(words[first:first + width])!r} is no {name}"
                raise ValueError(f"{where}, line {at}: {said}") from None
        arrays[name] = np.array(found)[:, 0] if width == 1 else np.array(found)
        first += width
    numbers = arrays.pop("symbols", arrays.get("numbers"))
    if numbers is None or "positions" not in arrays or not np.array_equal(numbers, arrays.pop("numbers", numbers)):
        raise ValueError(f"{where}: its Properties must name species (or Z, the same elements) and pos")
    cell, pbc = info.pop("Lattice", None), info.pop("pbc", None)
    atoms = Atoms(numbers, arrays.pop("positions"), cell=cell, pbc=cell is not None if pbc is None else pbc,
                  charges=arrays.pop("initial_charges", None), info=info)  # fmt: skip
    if "move_mask" in arrays:
        moves = arrays.pop("move_mask").astype(bool)
        atoms.set_constraint(FixAtoms(mask=~moves) if moves.ndim == 1 else [FixCartesian(i, ~row) for i, row in enumerate(moves)])
    set_calc_and_arrays(atoms, arrays)
    return atoms


def _comment(text: str, where: str) -> dict:
    """Keys and values of a comment line; ``Lattice`` (3,3) Å, ``pbc`` and ``Properties`` under these names, however spelled."""
    from ase.io.extxyz import key_val_str_to_dict

    text = _BARE.sub(lambda m: m[0] if text.count('"', 0, m.start()) % 2 else f'{m[1]}="{m[2]}"', text)
    info = key_val_str_to_dict(re.sub(r"\bLattice(?=\s*=)", "lattice", text)) if text.strip() else {}
    if isinstance(info.get("id"), np.floating):  # an id keeps its digits
        info["id"] = re.search(r"(?:^|\s)id\s*=\s*[\"']?([^\s\"']+)", text)[1]
    for key in [key for key in info if key.lower() in _HEADS]:
        value, name = info.pop(key), _HEADS[key.lower()]
        if name == "Lattice":
            values = np.ravel(value)
            if values.dtype.kind not in "if" or values.size not in (3, 6, 9):
                raise ValueError(f'{where}: {key}={value!r} is no lattice; write Lattice="ax ay az bx by bz cx cy cz" in Å')
            value = Cell.new(values if values.size < 9 else values.reshape(3, 3)).array
        elif name == "pbc":
            words = re.findall(r"true|false|[tf01](?![\d.])", " ".join(map(str, np.ravel(value))).lower())
            if len(words) not in (1, 3) or len("".join(words)) != len(re.sub(r"[\s,]", "", "".join(map(str, np.ravel(value))))):
                raise ValueError(f'{where}: {key}={value!r} does not say in which directions it is periodic; write pbc="T T F"')
            value = [word[0] in "t1" for word in words] * (3 // len(words))
        if name in info and not np.array_equal(info[name], value):
            raise ValueError(f"{where} says {name} twice, differently; leave one out")
        info[name] = value
    return info
