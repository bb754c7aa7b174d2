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
from itertools import zip_longest
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, numbers_of, part_name, screened, to_set
from jmp_lib.data.files import check_head, read_npz
from jmp_lib.data.jsonstream import top_list
from jmp_lib.data.sources import source_url
from jmp_lib.data.structures import StructureSet
from jmp_lib.facts import task as task_facts

_GAP_COLUMNS = ("outputs.pbe.bandgap", "bandgap_pbe", "bandgap", "y")
_ID_COLUMNS = ("qmof_id", "name", "id", "cif_id")
_FORMS = ("qmof.json", "relaxed_structures*", "qmof*.npz")


def mend(data_root: str | Path = "DATA_ROOT") -> str:
    """Where QMOF comes from and where to put it."""
    root = Path(data_root)
    folder = root if root.name == "qmof" else root / "qmof"
    return f"unpack qmof.json and qmof_structure_data.json from {source_url('QMOF')} into {folder}"


def find_file(data_root: str | Path) -> Path:
    """The best form of QMOF at hand; raises ``FileNotFoundError`` (one sentence with the mend) when there is none.

    A folder of CIF files counts only with its table.
    """
    root = Path(data_root).expanduser()
    subfolders = ("", "qmof_database", "qmof_database/qmof_database")
    folders = [base / sub for base in (root, root / "qmof") for sub in subfolders]
    for form in _FORMS:
        for folder in folders:
            for found in sorted(folder.glob(form)):
                if form != "relaxed_structures*" or _table(found):
                    return found
    raise FileNotFoundError(f"no QMOF file in {root}; {mend(data_root)}")


def read(
    path: str | Path, table: str | Path | None = None, rejected: list[str] | None = None
) -> Iterator[dict]:
    """Frameworks of one file or folder with label ``y`` (eV), ``id`` and ``sid``.

    table: the csv of the band gaps for CIF files (None: ``qmof*.csv`` beside them). rejected: gets the reason
    for each framework that cannot be used, then left out. Raises ``FileNotFoundError`` or ``ValueError``, one sentence.
    """
    path = Path(path)
    advice = mend(path.parent)
    if path.suffix == ".npz":
        items = _npz(path, advice)
    elif path.suffix == ".json":
        items = _json(path.with_name("qmof.json"), path.with_name("qmof_structure_data.json"), advice)
    elif path.is_dir() or path.name.endswith((".tar.gz", ".tgz")):
        items = _cifs(path, Path(table) if table else _table(path), advice)
    else:
        check_head(path, "a form of QMOF", mend=advice)
        raise ValueError(f"{path} is none of the forms of QMOF ({', '.join(_FORMS)}); {advice}")
    yield from screened(items, str(path), rejected)


def load_qmof(data_root: str | Path) -> tuple[StructureSet, splits.Split]:
    """All frameworks at hand with label ``y``, and their split. Raises as :func:`find_file` and :func:`read`."""
    path = find_file(data_root)
    total = int(task_facts("qmof_bandgap")["n_total"])
    data = to_set("QMOF", read(path), where=str(path))
    description = f"published QMOF (PBE), {len(data)} of {total} frameworks, from {path.name}"
    data = data.renamed(part_name("QMOF", len(data), total), description)
    return data, splits.eighty_ten_ten(len(data))


def _npz(path: Path, advice: str) -> Iterator:
    raw = read_npz(path, ["qmof_id", "natoms", "cellpar", "Z", "frac", "bandgap_pbe"], mend=advice)
    n, ends = len(raw["qmof_id"]), np.cumsum(raw["natoms"], dtype=np.int64)
    n_atoms = int(ends[-1]) if n else 0
    shapes = {"natoms": (n,), "cellpar": (n, 6), "Z": (n_atoms,), "frac": (n_atoms, 3), "bandgap_pbe": (n,)}
    for key, shape in shapes.items():
        if raw[key].shape != shape:
            raise ValueError(f"{path}: array {key!r} has shape {raw[key].shape} where {shape} is needed; {advice}")

    def make(row: int) -> dict:
        atoms = slice(ends[row] - raw["natoms"][row], ends[row])
        cell = _cell(raw["cellpar"][row])
        pos = raw["frac"][atoms].astype(np.float64) @ cell
        return make_structure(pos, raw["Z"][atoms], row, cell=cell, sid=raw["qmof_id"][row], y=raw["bandgap_pbe"][row])

    for row in range(n):
        yield str(raw["qmof_id"][row]), lambda row=row: make(row)


def _json(gaps: Path, structures: Path, advice: str) -> Iterator:
    for path in (gaps, structures):
        check_head(path, "a JSON list", mend=advice)

    def make(row: int, about: dict, entry: dict) -> dict:
        sites = entry["structure"]["sites"]
        cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64)
        pos = np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
        said, found = about.get("info", {}).get("natoms", len(sites)), len(sites)
        if said != found:
            raise ValueError(f"qmof.json says {said} atoms, its structure has {found}")
        gap = about["outputs"]["pbe"]["bandgap"]
        if gap is None:
            raise ValueError("its PBE band gap is missing")
        numbers = numbers_of([site["label"] for site in sites])
        return make_structure(pos, numbers, row, cell=cell, sid=about["qmof_id"], y=gap)

    try:
        with open(gaps, encoding="utf-8") as first, open(structures, encoding="utf-8") as second:
            for row, (about, entry) in enumerate(zip_longest(top_list(first), top_list(second))):
                if about is None or entry is None:
                    raise ValueError(f"one of the two lists ends after {row} frameworks")
                if about["qmof_id"] != entry["qmof_id"]:
                    raise ValueError(f"entry {row} is {about['qmof_id']} in one list, {entry['qmof_id']} in the other")
                yield about["qmof_id"], lambda row=row, about=about, entry=entry: make(row, about, entry)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{gaps} and {structures.name} are not QMOF's parallel lists: {error}; {advice}") from None


def _table(path: Path) -> Path | None:
    """The csv of band gaps beside a folder or archive of CIF files."""
    inside = sorted(path.glob("qmof*.csv")) if path.is_dir() else []
    return next(iter(inside + sorted(path.parent.glob("qmof*.csv"))), None)


def _cifs(path: Path, table: Path | None, advice: str) -> Iterator:
    if table is None:
        raise FileNotFoundError(f"{path} holds structures only; put the table qmof.csv with the band gaps beside it")
    gaps = _gaps(table)
    for row, (name, text) in enumerate(_cif_texts(path, advice)):
        yield name, lambda row=row, name=name, text=text: _of_cif(row, name, text, gaps)


def _gaps(table: Path) -> dict[str, str]:
    check_head(table, "a csv table", mend="put the table qmof.csv of the QMOF database there")
    with open(table, newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        names = rows.fieldnames or []
        id_column = next((key for key in _ID_COLUMNS if key in names), None)
        gap_column = next((key for key in _GAP_COLUMNS if key in names), None)
        if id_column is None or gap_column is None:
            raise ValueError(f"{table} needs a column qmof_id or name, and one of {', '.join(_GAP_COLUMNS)}")
        return {row[id_column]: row[gap_column] for row in rows}


def _cif_texts(path: Path, advice: str) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        files = sorted(path.glob("*.cif"))
        if not files:
            raise FileNotFoundError(f"{path} holds no CIF files; {advice}")
        yield from ((file.stem, file.read_text(encoding="utf-8", errors="replace")) for file in files)
        return
    check_head(path, "a gzip archive", b"\x1f\x8b", mend=advice)
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".cif"):
                    yield Path(member.name).stem, archive.extractfile(member).read().decode("utf-8", "replace")
    except (tarfile.TarError, EOFError, OSError):
        raise ValueError(f"{path} is damaged (cut short or altered); {advice}") from None


def _of_cif(row: int, name: str, text: str, gaps: dict[str, str]) -> dict:
    from ase.io.cif import parse_cif

    if not gaps.get(name):
        raise ValueError("the table has no band gap of it")
    try:
        (block,) = list(parse_cif(io.StringIO(text)))
        atoms = block.get_atoms()
    except Exception:  # ASE raises many kinds for a file that is not what it says
        raise ValueError("its CIF cannot be read") from None
    cell = np.array(atoms.cell)
    return make_structure(atoms.positions, atoms.numbers, row, cell=cell, sid=name, y=float(gaps[name]))


def _cell(cellpar: np.ndarray) -> np.ndarray:
    """Lattice vectors in rows (Å) of a b c alpha beta gamma, the first along x, the second in the xy plane."""
    if not np.isfinite(cellpar).all() or (cellpar <= 0).any():
        raise ValueError("field 'cell': its lengths and angles must be positive")
    return np.array(cellpar_to_cell(cellpar))
