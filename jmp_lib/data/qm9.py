"""The published QM9 molecules with the 12 targets of the paper, in three forms.

Looked for in ``data_root`` and ``data_root/qm9`` (also in their ``raw``, where torch_geometric's ``QM9`` keeps what it
fetched), in this order:

* ``qm9_v3.pt``, of the official script and of torch_geometric: a list of 130,831 dictionaries, already in eV. Read with
  torch's restricted ``weights_only`` unpickler, which makes tensors and containers and nothing else.
* ``gdb9.sdf`` with ``gdb9.sdf.csv`` (133,885 rows) and ``uncharacterized.txt``, the 3,054 molecules left out.
* an npz of flat arrays (``qm9*.npz``: id, N, Z, R, mu, alpha, HOMO, LUMO, gap, R2, ZPVE, U0, U, H, G, Cv).

torch_geometric's own class is not asked: it keeps targets in float32, and its sdf needs rdkit. Raw energies are in
Hartree; converted here, once, with its factor (:data:`HARTREE_QM9`), which made the official file. mu D, alpha a0^3, R2
a0^2, Cv cal/(mol K) as they are. ``id`` is the number in dsgdb9nsd_NNNNNN less one (qm9_v3.pt: the place in the file).
U0, U, H, G are totals; the official per-element references of those, ZPVE and Cv are :func:`atom_references`. Split:
seed-42 shuffle, the last 20,000 validation and test.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np

from jmp_lib import facts
from jmp_lib.data import formats, splits
from jmp_lib.data.collect import make_structure, numbers_of, screened
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
_FORMS = ("qm9_v3.pt", "gdb9.sdf", "qm9*.npz")


def mend(name: str = "", root: str | Path = "DATA_ROOT") -> str:
    """Where QM9 comes from."""
    return (f"unpack qm9_v3.pt from {formats.source_url('QM9', 'official JMP')}, or gdb9.sdf and gdb9.sdf.csv from "
            f"{formats.source_url('QM9', 'torch_geometric raw')} with uncharacterized.txt beside them, and put them in "
            f"{formats.folder_of('qm9', root)}")


def find(name: str, root: str | Path) -> list[Path]:
    """The best form of QM9 at hand."""
    folders = formats.folders_of("qm9", root, ("", "raw"))
    return [formats.first_file(_FORMS, folders, f"no QM9 file in {root}; {mend(root=root)}")]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All molecules at hand with the 12 targets, and their split."""
    (path,) = find(name, root)
    description = f"published QM9 (B3LYP/6-31G(2df,p)), {{n}} of {N_OFFICIAL} molecules, from {path.name}"
    data = formats.whole_set("QM9", read(path), N_OFFICIAL, description, path)
    data = data.subset(np.argsort(data.ids, kind="stable"))  # the split counts on the order of the numbers
    return data, splits.qm9(len(data))


def read(path: Path) -> Iterator[dict]:
    """Molecules of one file (any form) with the 12 targets, without the uncharacterized ones of the raw files."""
    form = {".pt": _torch, ".sdf": _sdf, ".npz": _npz}[path.suffix]
    yield from screened(form(path, mend(root=path.parent)), str(path))


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


def _uncharacterized(folder: Path, advice: str) -> frozenset[int]:
    places = [place / "uncharacterized.txt" for place in (folder, folder.parent)]
    path = next(filter(Path.is_file, places), places[0])
    with formats.opened(path, "the list of uncharacterized molecules", mend=advice):
        rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        numbers = [int(row[0]) for row in rows if len(row) > 2 and row[0].isdigit()]
        said = next((int(row[0]) for row in rows if len(row) == 2 and row[1].startswith("compound")), len(numbers))
        if not numbers or len(set(numbers)) != said or max(numbers) > N_RAW:
            raise ValueError(f"it names {len(numbers)} molecules, the list has {N_UNCHARACTERIZED}")
    return frozenset(numbers)


def _torch(path: Path, advice: str) -> Iterator:
    import torch

    with formats.opened(path, "a file of torch", mend=advice):
        try:
            entries = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise ValueError("it is damaged, or holds more than tensors and lists") from None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is not the list of dictionaries of qm9_v3.pt")

    def make(row: int, entry: dict) -> dict:
        labels = zip(TARGETS, entry["y"].double().reshape(-1).numpy()[: len(TARGETS)], strict=True)  # in eV already
        return make_structure(entry["pos"].numpy(), entry["z"].numpy(), row, sid=entry.get("name"), **dict(labels))

    for row, entry in enumerate(entries):
        yield f"row_{row}", partial(make, row, entry)


def _sdf(path: Path, advice: str) -> Iterator:
    def make(number: int, lines: list[str], row: dict) -> dict:
        count = int(lines[3][:3])
        atoms, after = [line.split() for line in lines[4 : 4 + count]], lines[4 + count].split()
        if count < 1 or (len(after) > 3 and after[3].isalpha()):
            raise ValueError(f"it says that it has {count} atoms, and more follow")
        pos = [[float(x) for x in atom[:3]] for atom in atoms]
        return _molecule(pos, numbers_of([atom[3] for atom in atoms]), number, [row[key] for key in _CSV_KEYS])

    table, left_out = path.with_name(path.name + ".csv"), _uncharacterized(path.parent, advice)
    formats.check_head(table, "the table of properties", mend=advice)
    with (formats.opened(path, "an sdf file", mend=advice), open(table, newline="", encoding="utf-8") as stream,
          open(path, encoding="utf-8", errors="replace") as sdf):
        number, rows = 0, csv.DictReader(stream)
        for number, row in enumerate(rows, start=1):
            lines = list(takewhile(lambda line: not line.startswith("$$$$"), sdf))
            if not any(line.startswith("M  END") for line in lines):
                raise ValueError(f"it ends before molecule {number} of {table.name} does")
            if not lines[0].strip() == row["mol_id"] == f"gdb_{number}":
                raise ValueError(f"molecule {number} is not {row['mol_id']} as in {table.name}")
            if number not in left_out:  # their geometry does not match their SMILES
                yield f"gdb_{number}", partial(make, number, lines, row)
        if sdf.read(1).strip():
            raise ValueError(f"it has more molecules than the {number} of {table.name}")


def _npz(path: Path, advice: str) -> Iterator:
    shapes = dict.fromkeys(("id", "N", *_NPZ_KEYS), ("molecules",)) | {"Z": ("atoms",), "R": ("atoms", 3)}
    raw = formats.read_npz(path, shapes, counts="N", mend=advice)
    values = np.stack([raw[key] for key in _NPZ_KEYS], axis=1).astype(np.float64)
    for number, atoms, row in zip(raw["id"].astype(int).tolist(), formats.slices(raw["N"]), values, strict=True):
        yield f"gdb_{number}", partial(_molecule, raw["R"][atoms], raw["Z"][atoms], number, row)
