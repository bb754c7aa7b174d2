"""Graphs as OC20, OC22 and the pre-training sets of JMP publish them: LMDB files or lists of pickled PyG graphs.

LMDB keys are "0", "1", ... and "length"; values are pickles, read with :mod:`jmp_lib.data.unpickle`. Fields of a
graph: pos (N,3) Å; atomic_numbers (N,) whole or float; cell (1,3,3) Å where periodic; tags, fixed (N,); y energy
eV; force (N,3) eV/Å, true forces; sid, fid (system, frame); natoms. Neither LMDB nor pickle has checksums, so an
altered number inside a record passes: the checksum of the published archive is what tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np

from jmp_lib.data.check_structure import keep, refuse
from jmp_lib.data.files import check_head
from jmp_lib.data.unpickle import Refused, load_pickle, loads


def record_files(path: str | Path) -> list[Path]:
    """The files of graphs at ``path``: itself, or the ``*.lmdb`` (else ``*.pkl``) of a folder, sorted by name."""
    path = Path(path)
    if not path.is_dir() or (path / "data.mdb").is_file():
        return [path]
    return sorted(path.glob("*.lmdb")) or sorted(path.glob("*.pkl"))


def read_records(path: str | Path, *, mend: str, rejected: list | None = None) -> Iterator[tuple[str, dict]]:
    """(where, fields) of every graph of an LMDB, a pickle file, or a folder of them, one record in memory at a time.

    mend closes each message. A record that cannot be read goes into ``rejected``, or raises ``ValueError``
    without one; so does, always, a file that is damaged as a whole. ``FileNotFoundError`` when nothing is there.
    """
    files = record_files(path)
    if not files:
        raise FileNotFoundError(f"{path} has no .lmdb file; {mend}")
    for file in files:
        if file.suffix == ".pkl":
            graphs = load_pickle(file, mend=mend)
            graphs = [graphs] if isinstance(graphs, dict) else graphs
            if not isinstance(graphs, list) or not all(isinstance(graph, dict) for graph in graphs):
                raise ValueError(f"{file} is not a list of graphs; {mend}")
            yield from ((f"{file}: record {row}", graph) for row, graph in enumerate(graphs))
        else:
            yield from _read_lmdb(file, mend, rejected)


def structure_of(fields: dict, row: int, energy: str | None = None) -> dict:
    """A structure (keys of :mod:`jmp_lib.keys`; sid "<sid>/<fid>" and group "<sid>" where given) of a graph's fields.

    energy: the field that holds it (None: ``y``, else ``energy``). Only shapes and kinds are checked here; raises
    ``ValueError`` with the reason alone when a field is missing or its values are of a wrong kind.
    """

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
    energy = array("energy", first(energy) if energy else first("y", "energy"), np.float64).ravel()
    if cell.shape != (3, 3) or energy.shape != (1,):
        raise ValueError(f"cell has shape {cell.shape} and there are {energy.size} energies")
    structure = {
        "pos": array("pos", first("pos"), np.float32),
        "atomic_numbers": numbers.astype(np.int64),
        "cell": cell,
        "pbc": array("pbc", fields["pbc"], bool).ravel() if "pbc" in fields else np.full(3, cell.any()),
        "tags": array("tags", fields.get("tags", np.full(n, 2)), np.int64),
        "fixed": array("fixed", fields.get("fixed", np.zeros(n)), bool),
        "id": row,
        "energy": energy[0],
        "forces": array("force", first("force", "forces"), np.float32),
    }
    if "sid" in fields:
        structure["group"] = _text(fields["sid"])
        structure["sid"] = f"{structure['group']}/{_text(fields['fid'])}" if "fid" in fields else structure["group"]
    return structure


def read_structures(path, *, mend: str, rejected=None, energy=None) -> Iterator[tuple[str, dict]]:
    """(where, structure), checked, of the graphs at ``path``; ids count the structures that are kept.

    energy: a function of a graph's fields to the name of the field with its energy; the rest as in
    :func:`read_records`.
    """
    row = 0
    for where, fields in read_records(path, mend=mend, rejected=rejected):
        try:
            structure = structure_of(fields, row, energy(fields) if energy else None)
        except ValueError as error:
            refuse(f"{where}: {error}", rejected)
            continue
        if keep(structure, where, rejected):
            yield where, structure
            row += 1


def _read_lmdb(file: Path, mend: str, rejected: list[str] | None) -> Iterator[tuple[str, dict]]:
    """Records of one LMDB in the order of their numbers."""
    single = not file.is_dir()
    data = file if single else file / "data.mdb"
    if not data.exists():
        raise FileNotFoundError(f"{file} is missing; {mend}")
    size = check_head(data, "an LMDB", mend=mend).stat().st_size
    if size < 8192:  # two pages of LMDB's own come first
        raise ValueError(f"{file} is not an LMDB (it has {size} bytes); {mend}")
    try:
        with lmdb.open(str(file), subdir=not single, readonly=True, lock=False, readahead=False, max_readers=1) as env:
            if (env.info()["last_pgno"] + 1) * env.stat()["psize"] > size:
                raise ValueError(f"{file} is cut short; {mend}")
            with env.begin() as transaction:
                length = transaction.get(b"length")
                if length is None:
                    length = sum(key.isdigit() for key, _ in transaction.cursor())
                else:
                    length = loads(bytes(length), where=f"{file}: length", mend=mend)
                for number in range(length):
                    where = f"{file}: record {number}"
                    data = transaction.get(str(number).encode())
                    if data is None:
                        refuse(f"{where} is missing (the file says it has {length}); {mend}", rejected)
                        continue
                    try:
                        fields = loads(bytes(data), where=where, mend=mend)
                    except Refused:
                        raise
                    except ValueError:
                        refuse(f"{where} is not a readable pickle (cut short or altered); {mend}", rejected)
                        continue
                    if not isinstance(fields, dict):
                        raise ValueError(f"{where} is not a graph; {mend}")
                    yield where, fields
    except lmdb.Error:
        raise ValueError(f"{file} is not a sound LMDB (cut short, altered, or another kind of file); {mend}") from None


def _text(value) -> str:
    """A system or frame number as text: of an int, a 0-dim array or text."""
    return str(np.asarray(value).item())
