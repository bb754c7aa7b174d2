"""The published QMOF frameworks with their PBE band gap (label ``y``, eV), in each of the forms they are served in.

Looked for in ``data_root``, ``data_root/qmof`` and their ``qmof_database`` folders, in this order:

* ``qmof.json`` with ``qmof_structure_data.json``, of the official script: two parallel lists, read entry by entry.
* a folder (or ``.tar.gz``) of CIF files, ``relaxed_structures*``, with a table ``qmof*.csv`` with columns
  ``qmof_id`` (or ``name``) and the band gap (``outputs.pbe.bandgap``, ``bandgap_pbe``, ``bandgap`` or ``y``).
* an npz of flat arrays (``qmof*.npz``: qmof_id, natoms, cellpar (a b c in Å, three angles in degrees), Z, frac,
  bandgap_pbe).

Nothing is converted: Å and eV. ``id`` is the place in the file, ``sid`` the qmof_id. Split: seed-42 shuffle of the
file's order, 80/10/10, so the official split needs the official pair of files.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from jmp_lib.data import formats, splits
from jmp_lib.data.collect import make_structure, numbers_of, screened
from jmp_lib.data.structures import StructureSet
from jmp_lib.facts import task as task_facts
from jmp_lib.files import reading

_GAP_COLUMNS = ("outputs.pbe.bandgap", "bandgap_pbe", "bandgap", "y")
_ID_COLUMNS = ("qmof_id", "name", "id", "cif_id")
_FORMS = ("qmof.json", "relaxed_structures*", "qmof*.npz")


def mend(task=None, root: str | Path = "DATA_ROOT") -> str:
    """Where QMOF comes from and where to put it."""
    folder = formats.folder_of("qmof", root)
    return f"unpack qmof.json and qmof_structure_data.json from {formats.source_url('QMOF')} into {folder}"


def find(task, root: str | Path) -> list[Path]:
    """The best form of QMOF at hand; raises ``FileNotFoundError`` (one sentence with the mend) when there is none.

    A folder of CIF files counts only with its table.
    """
    folders = formats.folders_of("qmof", root, ("", "qmof_database", "qmof_database/qmof_database"))
    missing = f"no QMOF file in {root}; {mend(task, root)}"
    serves = lambda path: not path.name.startswith("relaxed_") or _table(path)  # noqa: E731
    return [formats.first_file(_FORMS, folders, missing, serves)]


def load(task, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All frameworks at hand with label ``y``, and their split. Raises as :func:`find` and :func:`read`."""
    (path,), total = find(task, root), int(task_facts("qmof_bandgap")["n_total"])
    description = f"published QMOF (PBE), {{n}} of {total} frameworks, from {path.name}"
    data = formats.whole_set("QMOF", read(path), total, description, path)
    return data, splits.eighty_ten_ten(len(data))


def read(path: str | Path, table: str | Path | None = None, rejected: list[str] | None = None) -> Iterator[dict]:
    """Frameworks of one file or folder with label ``y`` (eV), ``id`` and ``sid``.

    table: the csv of the band gaps for CIF files (None: ``qmof*.csv`` beside them). rejected: gets the reason
    for each framework that cannot be used, then left out. Raises ``FileNotFoundError`` or ``ValueError``, one sentence.
    """
    path = Path(path)
    advice = mend(root=path.parent)
    if path.suffix == ".npz":
        items = _npz(path, advice)
    elif path.suffix == ".json":
        items = _json(path.with_name("qmof.json"), path.with_name("qmof_structure_data.json"), advice)
    elif path.is_dir() or path.name.endswith((".tar.gz", ".tgz")):
        items = _cifs(path, Path(table) if table else _table(path), advice)
    else:
        raise ValueError(f"{path} is none of the forms of QMOF ({', '.join(_FORMS)}); {advice}")
    yield from screened(items, str(path), rejected)


def _json(gaps: Path, structures: Path, advice: str) -> Iterator:
    def make(row: int, about: dict, entry: dict) -> dict:
        sites = entry["structure"]["sites"]
        said, gap = about.get("info", {}).get("natoms", len(sites)), about["outputs"]["pbe"]["bandgap"]
        if said != len(sites):
            raise ValueError(f"qmof.json says {said} atoms, its structure has {len(sites)}")
        if gap is None:
            raise ValueError("its PBE band gap is missing")
        cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64)
        pos = np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
        numbers = numbers_of([site["label"] for site in sites])
        return make_structure(pos, numbers, row, cell=cell, sid=about["qmof_id"], y=gap)

    formats.check_head(structures, "a JSON list", b"[", mend=advice)
    with formats.opened(gaps, "a JSON list", b"[", mend=advice), open(gaps, "rb") as a, open(structures, "rb") as b:
        entries = zip_longest(formats.json_items(a, "item"), formats.json_items(b, "item"))
        for row, (about, entry) in enumerate(entries):
            if about is None or entry is None:
                raise ValueError(f"one of the two lists ends after {row} frameworks")
            if about["qmof_id"] != entry["qmof_id"]:
                raise ValueError(f"entry {row} is {about['qmof_id']} in one list, {entry['qmof_id']} in the other")
            yield about["qmof_id"], partial(make, row, about, entry)


def _npz(path: Path, advice: str) -> Iterator:
    shapes = {"qmof_id": ("n",), "natoms": ("n",), "cellpar": ("n", 6), "bandgap_pbe": ("n",), "Z": None, "frac": None}
    raw = formats.read_npz(path, shapes, mend=advice)
    ends = np.cumsum(raw["natoms"], dtype=np.int64)
    with reading(path, advice):
        formats.check_shapes(raw, {"Z": ("atoms",), "frac": ("atoms", 3)}, atoms=int(ends[-1]) if len(ends) else 0)

    def make(row: int) -> dict:
        atoms, cellpar = slice(ends[row] - raw["natoms"][row], ends[row]), raw["cellpar"][row]
        if not np.isfinite(cellpar).all() or (cellpar <= 0).any():
            raise ValueError("field 'cell': its lengths and angles must be positive")
        cell = np.array(cellpar_to_cell(cellpar))  # rows, the first along x, the second in the xy plane
        pos = raw["frac"][atoms].astype(np.float64) @ cell
        return make_structure(pos, raw["Z"][atoms], row, cell=cell, sid=raw["qmof_id"][row], y=raw["bandgap_pbe"][row])

    for row, name in enumerate(raw["qmof_id"]):
        yield str(name), partial(make, row)


def _table(path: Path) -> Path | None:
    """The csv of band gaps in or beside a folder or archive of CIF files."""
    inside = sorted(path.glob("qmof*.csv")) if path.is_dir() else []
    return next(iter(inside + sorted(path.parent.glob("qmof*.csv"))), None)


def _cifs(path: Path, table: Path | None, advice: str) -> Iterator:
    from ase.io.cif import parse_cif

    def make(row: int, name: str, text: bytes) -> dict:
        if not gaps.get(name):
            raise ValueError("the table has no band gap of it")
        try:
            (block,) = parse_cif(io.StringIO(text.decode("utf-8", "replace")))
            atoms = block.get_atoms()
        except Exception:  # ASE raises many kinds for a file that is not what it says
            raise ValueError("its CIF cannot be read") from None
        cell = np.array(atoms.cell)
        return make_structure(atoms.positions, atoms.numbers, row, cell=cell, sid=name, y=float(gaps[name]))

    if table is None:
        raise FileNotFoundError(f"{path} holds structures only; put the table qmof.csv with the band gaps beside it")
    gaps = _gaps(table)
    row = -1
    for row, (name, text) in enumerate(_cif_texts(path, advice)):
        yield Path(name).stem, partial(make, row, Path(name).stem, text)
    if row < 0:
        raise FileNotFoundError(f"{path} holds no CIF files; {advice}")


def _gaps(table: Path) -> dict[str, str]:
    advice = "put the table qmof.csv of the QMOF database there"
    with formats.opened(table, "a csv table", mend=advice), open(table, newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        id_column, gap_column = (
            next((key for key in keys if key in (rows.fieldnames or [])), None) for keys in (_ID_COLUMNS, _GAP_COLUMNS)
        )
        if id_column is None or gap_column is None:
            raise ValueError(f"it needs a column qmof_id or name, and one of {', '.join(_GAP_COLUMNS)}")
        return {row[id_column]: row[gap_column] for row in rows}


def _cif_texts(path: Path, advice: str) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in sorted(path.glob("*.cif")))
        return
    with formats.opened(path, "a gzip archive", b"\x1f\x8b", mend=advice), tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".cif"):
                yield member.name, archive.extractfile(member).read()
