"""Graphs as OC22 and samples of the other pre-training sets have them: LMDB files, or lists, of pickled PyG graphs.

LMDB keys are "0", "1", ... and "length"; values are pickles, read with :mod:`jmp_lib.data.pickles`. Fields of a
graph: pos (N,3) Å; atomic_numbers (N,) whole or float; cell (1,3,3) Å where periodic; tags, fixed (N,); y energy
eV; force (N,3) eV/Å, true forces; sid, fid (system, frame); natoms. Nothing is converted. Neither LMDB nor pickle has
checksums, so an altered number inside a record passes: the checksum of the published archive is what tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib.data.door import screened
from jmp_lib.data.formats import open_lmdb
from jmp_lib.data.pickles import Refused, load_pickle, loads


def read_graphs(path: str | Path, of: str, periodic: bool, *, mend: str,
                rejected: list | None = None) -> Iterator[dict]:
    """Structures of an LMDB or a pickle file, one record in memory at a time.

    of, periodic: the data set, whose graphs have cells or have none (``ValueError`` for others).
    mend closes each message.
    """
    return screened(_items(Path(path), of, periodic, mend), str(path), rejected)


def _items(file: Path, of: str, periodic: bool, mend: str) -> Iterator:
    for number, fields in enumerate(_pickled(file, mend) if file.suffix == ".pkl" else _lmdb(file, mend)):
        name = f"record {number}"
        if not isinstance(fields, dict | ValueError):
            raise ValueError(f"{file}: {name} is not a graph; {mend}")
        if isinstance(fields, dict) and bool(np.any(fields.get("pbc", fields.get("cell", 0)))) != periodic:
            raise ValueError(f"{file}: {name} has {'no' if periodic else 'a'} cell, so it is not of {of}; {mend}")
        yield name, partial(_structure, fields)


def _pickled(file: Path, mend: str) -> list[dict]:
    graphs = load_pickle(file, mend=mend)
    graphs = [graphs] if isinstance(graphs, dict) else graphs
    if not isinstance(graphs, list):
        raise ValueError(f"{file} is not a list of graphs; {mend}")
    return graphs


def _lmdb(file: Path, mend: str) -> Iterator[dict | ValueError]:
    """Records of one LMDB in the order of their numbers; for one that cannot be read the reason."""
    with open_lmdb(file, mend=mend) as base:
        entries, said = base.entries(), base.values(["length"])
        length = loads(said["length"].tobytes(), where=f"{file}: length", mend=mend) if said else base.numbered()
        if type(length) is not int or not 0 <= length <= entries or base.values([str(length)]):
            raise ValueError(f"it says that it has {str(length)[:20]} records where there are {entries - len(said)}")
        for number in range(length):
            try:
                if not (value := base.values([str(number)])):
                    raise ValueError(f"it is missing (the file says it has {length})")
                yield loads(value[str(number)].tobytes(), where=f"{file}: record {number}", mend=mend)
            except Refused:
                raise
            except ValueError as error:
                yield error


def _structure(fields: dict | ValueError) -> dict:
    """The structure of a graph's fields; sid "<sid>/<fid>" and group "<sid>" where given.

    Only shapes and kinds are checked here; ``ValueError`` when a field is missing or its values are of a wrong kind.
    """
    if isinstance(fields, ValueError):
        raise fields

    def first(*names):
        name = next((name for name in names if name in fields), None)
        if name is None:
            raise ValueError(f"field {names[0]!r} is missing (there are {', '.join(fields) or 'none'})")
        return fields[name]

    def array(name, value, dtype):
        try:
            return np.asarray(value, dtype)
        except (TypeError, ValueError):
            raise ValueError(f"field {name!r} does not hold numbers") from None

    numbers = array("atomic_numbers", first("atomic_numbers", "charges", "z"), np.float64).ravel()
    if not np.array_equal(numbers, np.rint(numbers)):
        raise ValueError(f"unknown element: atomic number {numbers[numbers != np.rint(numbers)][0]}")
    n = len(numbers)
    if "natoms" in fields and not np.array_equal(array("natoms", fields["natoms"], np.float64).ravel(), [n]):
        raise ValueError(f"natoms is {fields['natoms']} where there are {n} atomic numbers")
    cell = array("cell", fields.get("cell", np.zeros((3, 3))), np.float64)
    cell = cell[0] if cell.shape == (1, 3, 3) else cell
    energy = first("y_relaxed") if "y_relaxed" in fields else first("y", "energy")  # as the official loader
    energy = array("energy", energy, np.float64).ravel()
    if cell.shape != (3, 3) or energy.shape != (1,):
        raise ValueError(f"cell has shape {cell.shape} and there are {energy.size} energies")
    structure = {
        "pos": array("pos", first("pos"), np.float32),
        "atomic_numbers": numbers.astype(np.int64),
        "cell": cell,
        "pbc": array("pbc", fields["pbc"], bool).ravel() if "pbc" in fields else np.full(3, cell.any()),
        "tags": array("tags", fields.get("tags", np.full(n, 2)), np.int64),
        "fixed": array("fixed", fields.get("fixed", np.zeros(n)), bool),
        "energy": energy[0],
        "forces": array("force", first("force", "forces"), np.float32),
    }
    if "sid" in fields:
        structure["group"] = str(np.asarray(fields["sid"]).item())  # an int, an array of no dimension, or text
        structure["sid"] = structure["group"] + (f"/{np.asarray(fields['fid']).item()}" if "fid" in fields else "")
    return structure
