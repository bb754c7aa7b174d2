"""The published QM9 molecules with the 12 targets of the paper, in each of the forms they are served in.

Looked for in ``data_root`` and ``data_root/qm9``, in this order:

* ``qm9_v3.pt``, of the official script: a list of 130,831 dictionaries, already in eV. Read with torch's restricted
  ``weights_only`` unpickler, which makes tensors and containers and nothing else.
* ``gdb9.sdf`` with ``gdb9.sdf.csv`` (133,885 rows) and ``uncharacterized.txt``, the 3,054 molecules left out.
* ``dsgdb9nsd.xyz.tar.bz2``, or a folder ``dsgdb9nsd.xyz`` of its files: the raw data of the authors;
  ``uncharacterized.txt`` is needed too.
* an npz of flat arrays (``qm9*.npz``: id, N, Z, R, mu, alpha, HOMO, LUMO, gap, R2, ZPVE, U0, U, H, G, Cv).
* ``qm9*.xyz``, extended xyz with the raw properties in the comment lines.

Raw energies are in Hartree; converted here, once, with the factor of torch_geometric (:data:`HARTREE_QM9`), which made
the official file. mu D, alpha a0^3, R2 a0^2, Cv cal/(mol K) as they are. ``id`` is the number in dsgdb9nsd_NNNNNN less
one (qm9_v3.pt and extended xyz: the place in the file). U0, U, H, G are totals; the official per-element references of
those, ZPVE and Cv are :func:`atom_references`. Split: seed-42 shuffle, the last 20,000 validation and test.
"""

from __future__ import annotations

import csv
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from jmp_lib import facts
from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, numbers_of, part_name, screened, to_set
from jmp_lib.data.files import check_head, read_npz
from jmp_lib.data.sources import source_url
from jmp_lib.data.structures import StructureSet
from jmp_lib.units import HARTREE_QM9

N_OFFICIAL, N_RAW, N_UNCHARACTERIZED = 130_831, 133_885, 3_054
# target -> factor from the raw files' unit to the label's
FACTOR = {"mu": 1.0, "alpha": 1.0, "eps_HOMO": HARTREE_QM9, "eps_LUMO": HARTREE_QM9, "delta_eps": HARTREE_QM9,
          "R2": 1.0, "ZPVE": HARTREE_QM9, "U0": HARTREE_QM9, "U": HARTREE_QM9, "H": HARTREE_QM9, "G": HARTREE_QM9,
          "Cv": 1.0}  # fmt: skip
TARGETS = tuple(FACTOR)
_NPZ_KEYS = ("mu", "alpha", "HOMO", "LUMO", "gap", "R2", "ZPVE", "U0", "U", "H", "G", "Cv")
_CSV_KEYS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv")
_XYZ_KEYS = ("mu", "alpha", "epsHOMO", "epsLUMO", "epsgap", "<R2>", "zpve", "U0", "U", "H", "G", "Cv")
_FORMS = ("qm9_v3.pt", "gdb9.sdf", "dsgdb9nsd.xyz.tar.bz2", "dsgdb9nsd.xyz", "qm9*.npz", "qm9*.xyz")


def mend(data_root: str | Path = "DATA_ROOT") -> str:
    """Where QM9 comes from and where to put it."""
    root = Path(data_root)
    folder = root if root.name == "qm9" else root / "qm9"
    return (
        f"unpack qm9_v3.pt from {source_url('QM9')}, or gdb9.sdf and gdb9.sdf.csv from "
        f"{source_url('QM9', 'torch_geometric raw')} with uncharacterized.txt beside them, and put them in {folder}"
    )


def find_file(data_root: str | Path) -> Path:
    """The best form of QM9 at hand; raises ``FileNotFoundError`` (one sentence with the mend) when there is none."""
    root = Path(data_root).expanduser()
    for form in _FORMS:
        for folder in (root, root / "qm9"):
            if found := sorted(folder.glob(form)):
                return found[0]
    raise FileNotFoundError(f"no QM9 file in {root}; {mend(data_root)}")


def read(path: str | Path, rejected: list[str] | None = None) -> Iterator[dict]:
    """Molecules of one file (any form) with the 12 targets, their ``id`` and ``sid``, uncharacterized ones left out.

    rejected: gets the reason for each molecule that cannot be used, which is then left out; the uncharacterized ones
    are among them. Raises ``FileNotFoundError`` or ``ValueError``, one sentence with the mend.
    """
    path = Path(path)
    advice = mend(path.parent)
    kinds = {".pt": _torch, ".sdf": _sdf, ".bz2": _tar, ".npz": _npz, ".xyz": _extended_xyz}
    form = _folder if path.is_dir() else kinds.get(path.suffix)
    if form is None:
        raise ValueError(f"{path} is none of the forms of QM9 ({', '.join(_FORMS)}); {advice}")
    left_out = _uncharacterized(path.parent, advice) if form in (_sdf, _tar, _folder) else frozenset()
    items = form(path, advice)
    characterized = (item for item in items if not _is_left_out(item[0], left_out, rejected))
    yield from screened(characterized, str(path), rejected)


def load_qm9(data_root: str | Path) -> tuple[StructureSet, splits.Split]:
    """All molecules at hand with the 12 targets, and their split. Raises as :func:`find_file`, :func:`read`."""
    path = find_file(data_root)
    about = path.stat()
    return _load(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1)  # twelve tasks read the same file
def _load(path: Path, modified: int, size: int) -> tuple[StructureSet, splits.Split]:
    data = to_set("QM9", read(path), where=str(path))
    description = f"published QM9 (B3LYP/6-31G(2df,p)), {len(data)} of {N_OFFICIAL} molecules, from {path.name}"
    data = data.renamed(part_name("QM9", len(data), N_OFFICIAL), description)
    data = data.subset(np.argsort(data.ids, kind="stable"))  # the split counts on the order of the numbers
    return data, splits.qm9(len(data))


def atom_references() -> dict[str, np.ndarray]:
    """Official per-element references: target -> (10,) by atomic number 0..9, in the label's unit.

    They are subtracted before mean and standard deviation are taken (rounded to five digits, as published).
    """
    official = facts.hyperparameters()["qm9_atom_references"]
    return {key: np.array(values) for key, values in official.items() if key in TARGETS}


def _molecule(pos, numbers, number: int, raw) -> dict:
    """A structure of raw values (12,) in the files' units; ``number`` counts from 1."""
    labels = {key: value * FACTOR[key] for key, value in zip(TARGETS, map(float, raw), strict=True)}
    return make_structure(pos, numbers, number - 1, sid=f"dsgdb9nsd_{number:06d}", **labels)


def _is_left_out(name: str, left_out: frozenset[int], rejected: list[str] | None) -> bool:
    out = bool(left_out) and int(name.rsplit("_", 1)[1]) in left_out
    if out and rejected is not None:
        rejected.append(f"{name}: uncharacterized, its geometry does not match its SMILES")
    return out


def _uncharacterized(folder: Path, advice: str) -> frozenset[int]:
    path = next((p / "uncharacterized.txt" for p in (folder, folder.parent) if (p / "uncharacterized.txt").is_file()),
                folder / "uncharacterized.txt")  # fmt: skip
    check_head(path, "the list of uncharacterized molecules", mend=advice)
    rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    numbers = [int(row[0]) for row in rows if len(row) > 2 and row[0].isdigit()]
    said = next((int(row[0]) for row in rows if len(row) == 2 and row[1].startswith("compound")), len(numbers))
    if not numbers or len(set(numbers)) != said or max(numbers) > N_RAW:
        raise ValueError(
            f"{path} names {len(numbers)} molecules; the list has {N_UNCHARACTERIZED}; get it from "
            f"https://ndownloader.figshare.com/files/3195404"
        )
    return frozenset(numbers)


def _npz(path: Path, advice: str) -> Iterator:
    keys = ["id", "N", "Z", "R", *_NPZ_KEYS]
    raw = read_npz(path, keys, mend=advice)
    n, ends = len(raw["id"]), np.cumsum(raw["N"], dtype=np.int64)
    n_atoms = int(ends[-1]) if n else 0
    shapes = {"Z": (n_atoms,), "R": (n_atoms, 3)} | {key: (n,) for key in ("id", "N", *_NPZ_KEYS)}
    for key, shape in shapes.items():
        if raw[key].shape != shape:
            raise ValueError(f"{path}: array {key!r} has shape {raw[key].shape} where {shape} is needed; {advice}")
    values = np.stack([raw[key] for key in _NPZ_KEYS], axis=1).astype(np.float64)
    for row in range(n):
        atoms = slice(ends[row] - raw["N"][row], ends[row])
        arguments = raw["R"][atoms], raw["Z"][atoms], int(raw["id"][row]), values[row]
        yield f"gdb_{arguments[2]}", lambda a=arguments: _molecule(*a)


def _sdf(path: Path, advice: str) -> Iterator:
    table = path.with_name(path.name + ".csv")
    check_head(table, "the table of properties", mend=advice)
    check_head(path, "an sdf file", mend=advice)
    with open(table, newline="", encoding="utf-8") as stream, open(path, encoding="utf-8", errors="replace") as sdf:
        rows = csv.DictReader(stream)
        missing = [key for key in ("mol_id", *_CSV_KEYS) if key not in (rows.fieldnames or [])]
        if missing:
            raise ValueError(f"{table} has no column {', '.join(missing)}; {advice}")
        number = 0
        for number, row in enumerate(rows, start=1):
            lines = []
            for line in sdf:
                if line.startswith("$$$$"):
                    break
                lines.append(line)
            else:
                raise ValueError(f"{path} ends before molecule {number} of {table.name} does; {advice}")
            if not lines[0].strip() == row["mol_id"] == f"gdb_{number}":
                raise ValueError(f"{path}: molecule {number} is not {row['mol_id']} as in {table.name}; {advice}")
            yield f"gdb_{number}", lambda number=number, lines=lines, row=row: _of_sdf(number, lines, row)
        if sdf.read(1).strip():
            raise ValueError(f"{path} has more molecules than the {number} of {table.name}; {advice}")


def _of_sdf(number: int, lines: list[str], row: dict) -> dict:
    n_atoms = int(lines[3][:3])
    atoms = [line.split() for line in lines[4 : 4 + n_atoms]]
    pos = [[float(x) for x in atom[:3]] for atom in atoms]
    return _molecule(pos, numbers_of([atom[3] for atom in atoms]), number, [row[key] for key in _CSV_KEYS])


def _of_raw_xyz(number: int, text: str) -> dict:
    lines = text.replace("*^", "e").splitlines()
    tag, *values = lines[1].split()
    if tag != "gdb" or int(values[0]) != number or len(values) != 16:
        raise ValueError(f"its second line is not that of molecule {number} with 15 properties")
    atoms = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    pos = [[float(x) for x in atom[1:4]] for atom in atoms]
    return _molecule(pos, numbers_of([atom[0] for atom in atoms]), number, values[4:])


def _tar(path: Path, advice: str) -> Iterator:
    check_head(path, "a bzip2 archive", b"BZh", mend=advice)
    try:
        with tarfile.open(path, "r|bz2") as archive:
            for member in archive:
                if number := _raw_number(member.name):
                    text = archive.extractfile(member).read().decode("utf-8", "replace")
                    yield f"gdb_{number}", lambda number=number, text=text: _of_raw_xyz(number, text)
    except (tarfile.TarError, EOFError, OSError):
        raise ValueError(f"{path} is damaged (cut short or altered); {advice}") from None


def _folder(path: Path, advice: str) -> Iterator:
    files = {number: file for file in path.glob("dsgdb9nsd_*.xyz") if (number := _raw_number(file.name))}
    if not files:
        raise FileNotFoundError(f"{path} holds no dsgdb9nsd_NNNNNN.xyz; {advice}")
    for number in sorted(files):
        yield f"gdb_{number}", lambda n=number: _of_raw_xyz(n, files[n].read_text(encoding="utf-8", errors="replace"))


def _raw_number(name: str) -> int:
    found = re.search(r"dsgdb9nsd_(\d{6})\.xyz$", name)
    return int(found[1]) if found else 0


def _extended_xyz(path: Path, advice: str) -> Iterator:
    check_head(path, "an extended xyz file", mend=advice)
    with open(path, encoding="utf-8") as stream:
        for number, first in enumerate(iter(stream.readline, ""), start=1):
            if not first.strip().isdigit():
                raise ValueError(f"{path}: molecule {number} does not begin with its number of atoms; {advice}")
            comment = dict(re.findall(r"(\S+?)=(\S+)", stream.readline()))
            atoms = [stream.readline().split() for _ in range(int(first))]
            yield f"molecule_{number}", lambda n=number, c=comment, a=atoms: _of_extended_xyz(n, c, a)


def _of_extended_xyz(number: int, comment: dict, atoms: list[list[str]]) -> dict:
    missing = [key for key in _XYZ_KEYS if key not in comment]
    if missing:
        raise ValueError(f"its comment line has no {', '.join(missing)}")
    if any(len(atom) < 4 for atom in atoms):
        raise ValueError("the file ends within it")
    pos = [[float(x) for x in atom[1:4]] for atom in atoms]
    raw = [comment[key] for key in _XYZ_KEYS]
    made = _molecule(pos, numbers_of([atom[0] for atom in atoms]), number, raw)
    del made["sid"]  # the file does not say which molecules of QM9 these are
    return made


def _torch(path: Path, advice: str) -> Iterator:
    import pickle

    import torch

    check_head(path, "a file of torch", mend=advice)
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        raise ValueError(f"{path} is damaged, or holds more than tensors and lists; {advice}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not the list of dictionaries of qm9_v3.pt; {advice}")

    def make(row: int, entry: dict) -> dict:
        values = entry["y"].double().reshape(-1).numpy()  # in eV already
        labels = dict(zip(TARGETS, values[: len(TARGETS)], strict=True))
        return make_structure(entry["pos"].numpy(), entry["z"].numpy(), row, sid=entry.get("name"), **labels)

    for row, entry in enumerate(entries):
        yield f"row_{row}", lambda row=row, entry=entry: make(row, entry)
