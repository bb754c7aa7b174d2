"""The published MD22 trajectories: seven molecules, npz of sGDML.

Looked for in ``data_root`` and ``data_root/md22``: ``md22_<name>.npz``, with ``z`` (N,); ``R`` (F,N,3) Å; ``E`` (F,1)
kcal/mol; ``F`` (F,N,3) kcal/(mol Å), true forces; its other entries, some of them pickled objects, are never opened.
Converted here, once, with the official factor (:data:`jmp_lib.units.KCAL_PER_MOL`).

Split: seed-42 shuffle; a pool of sGDML's size, its last 5 % validation and the rest train; all other frames test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, screened
from jmp_lib.data.formats import first_file, folder_of, folders_of, known, read_npz, whole_set
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS
from jmp_lib.files import reading

# task -> (name in the file names, atoms: the check that a file is the molecule it is named for)
MOLECULES = {"ac-ala3-nhme": ("Ac-Ala3-NHMe", 42), "dha": ("DHA", 56),
             "stachyose": ("stachyose", 87), "at-at": ("AT-AT", 60),
             "at-at-cg-cg": ("AT-AT-CG-CG", 118), "buckyball-catcher": ("buckyball-catcher", 148),
             "double-walled-nanotube": ("double-walled_nanotube", 370)}  # fmt: skip
_UNITS = {"e_unit": "kcal/mol", "r_unit": "Ang"}  # what the npz says of itself, where it says it as plain text


def mend(name: str, root: str | Path = "DATA_ROOT") -> str:
    """Where the file of a molecule comes from and where to put it."""
    file = f"md22_{MOLECULES[known('MD22 has no molecule', name, MOLECULES)][0]}.npz"
    return f"get {file} from {source_url('MD22', file=file)} and put it in {folder_of('md22', root)}"


def find(name: str, root: str | Path) -> list[Path]:
    """The file of a molecule."""
    advice, (molecule, _) = mend(name, root), MOLECULES[name]
    return [first_file([f"md22_{molecule}.npz"], folders_of("md22", root),
                       f"no MD22 file of {molecule} in {root}; {advice}")]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The frames at hand of a molecule and their split; ``ValueError`` when they are too few for it."""
    (path,), (molecule, _) = find(name, root), MOLECULES[name]
    task = TASKS[f"md22_{name}"]
    description = f"published MD22 {molecule} (PBE+MBD), {{n}} of {task.n_total} frames, from {path.name}"
    data = whole_set(f"MD22 {molecule}", read(path, name), task.n_total, description, path)
    try:
        return data, splits.md22(len(data), task.n_train + task.n_val)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {mend(name, root)}") from None


def read(path: Path, name: str) -> Iterator[dict]:
    """Frames of one file with energy (eV) and forces (eV/Å); ``id`` is the frame, ``group`` the molecule."""
    return screened(_frames(path, *MOLECULES[name], mend(name, path.parent)), str(path))


def _frames(path: Path, molecule: str, atoms: int, advice: str) -> Iterator:
    shapes = {"z": ("atoms",), "R": ("frames", "atoms", 3), "F": ("frames", "atoms", 3), "E": ("frames", 1)}
    raw = read_npz(path, shapes, mend=advice)
    with reading(path, advice):
        for key, expected in _UNITS.items():
            if key in raw and str(raw[key].item()) != expected:
                raise ValueError(f"it says that its {key} is {str(raw[key].item())!r} where MD22 has {expected!r}")
        if len(raw["z"]) != atoms:
            raise ValueError(f"it has {len(raw['z'])} atoms where {molecule} has {atoms}")

    def make(i: int) -> dict:
        forces = raw["F"][i].astype(np.float64) * units.KCAL_PER_MOL
        return make_structure(raw["R"][i], raw["z"], id=i, forces=forces,
                              energy=float(raw["E"][i, 0]) * units.KCAL_PER_MOL, group=molecule)

    yield from ((f"frame {i}", partial(make, i)) for i in range(len(raw["R"])))
