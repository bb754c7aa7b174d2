"""The published MD22 trajectories: seven molecules, npz of sGDML or extended xyz.

Looked for in ``data_root`` and ``data_root/md22``: ``md22_<name>.npz``, then ``md22_<name>*.xyz`` or ``.extxyz`` with
labels. The npz: ``z`` (N,); ``R`` (F,N,3) Å; ``E`` (F,1) kcal/mol; ``F`` (F,N,3) kcal/(mol Å), true forces; its other
entries, some of them pickled objects, are never opened. Extended xyz: ``Energy`` in the comment line and ``forces``
per atom, same units. Converted here, once, with the official factor (:data:`jmp_lib.units.KCAL_PER_MOL`).

Split: seed-42 shuffle; a pool of sGDML's size, its last 5 % validation and the rest train; all other frames test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, screened
from jmp_lib.data.formats import first_file, folder_of, folders_of, known, read_npz, source_url, whole_set
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.xyz import read_frames
from jmp_lib.facts import task as task_facts
from jmp_lib.files import reading

# task -> (name in the file names, atoms: the check that a file is the molecule it is named for)
MOLECULES = {
    "ac-ala3-nhme": ("Ac-Ala3-NHMe", 42),
    "dha": ("DHA", 56),
    "stachyose": ("stachyose", 87),
    "at-at": ("AT-AT", 60),
    "at-at-cg-cg": ("AT-AT-CG-CG", 118),
    "buckyball-catcher": ("buckyball-catcher", 148),
    "double-walled-nanotube": ("double-walled_nanotube", 370),
}
_UNITS = {"e_unit": "kcal/mol", "r_unit": "Ang"}  # what the npz says of itself, where it says it as plain text


def mend(name: str, root: str | Path = "DATA_ROOT") -> str:
    """Where the file of a molecule comes from and where to put it."""
    file = f"md22_{MOLECULES[known('MD22 has no molecule', name, MOLECULES)][0]}.npz"
    return f"get {file} from {source_url('MD22', file=file)} and put it in {folder_of('md22', root)}"


def find(name: str, root: str | Path) -> list[Path]:
    """The file of a molecule, npz before xyz."""
    advice, (molecule, _) = mend(name, root), MOLECULES[name]
    forms = (f"md22_{molecule}.npz", f"md22_{molecule}.*xyz", f"md22_{molecule}_*.*xyz")
    missing = f"no MD22 file of {molecule} in {root}; {advice}"
    return [first_file(forms, folders_of("md22", root), missing, lambda path: "unlabelled" not in path.name)]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """The frames at hand of a molecule and their split; ``ValueError`` when they are too few for it."""
    (path,), (molecule, _) = find(name, root), MOLECULES[name]
    official = task_facts(f"md22_{name}")
    pool, total = int(official["n_train"]) + int(official["n_val"]), int(official["n_total"])
    description = f"published MD22 {molecule} (PBE+MBD), {{n}} of {total} frames, from {path.name}"
    data = whole_set(f"MD22 {molecule}", read(path, name), total, description, path)
    try:
        return data, splits.md22(len(data), pool)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {mend(name, root)}") from None


def read(path: Path, name: str) -> Iterator[dict]:
    """Frames of one file with energy (eV) and forces (eV/Å); ``id`` is the frame, ``group`` the molecule."""
    form = _npz if path.suffix == ".npz" else _xyz
    yield from screened(form(path, *MOLECULES[name], mend(name, path.parent)), str(path))


def _npz(path: Path, molecule: str, atoms: int, advice: str) -> Iterator:
    shapes = {"z": ("atoms",), "R": ("frames", "atoms", 3), "F": ("frames", "atoms", 3), "E": None}
    raw = read_npz(path, shapes, mend=advice)
    energies = raw["E"].reshape(-1)
    with reading(path, advice):
        if not len(energies) or len(energies) != len(raw["R"]):
            raise ValueError(f"array 'E' has shape {raw['E'].shape} where there are {len(raw['R'])} frames")
        for key, expected in _UNITS.items():
            if key in raw and str(raw[key].item()) != expected:
                raise ValueError(f"it says that its {key} is {str(raw[key].item())!r} where MD22 has {expected!r}")
        _check_atoms(len(raw["z"]), molecule, atoms)
    for i in range(len(energies)):
        yield f"frame {i}", partial(_frame, raw["R"][i], raw["z"], i, energies[i], raw["F"][i], molecule)


def _xyz(path: Path, molecule: str, natoms: int, advice: str) -> Iterator:
    def make(i: int, atoms) -> dict:
        labels = atoms.info | (atoms.calc.results if atoms.calc else {})
        energy = labels.get("energy", labels.get("Energy"))
        if energy is None or "forces" not in labels:
            raise ValueError("it has no energy and forces")
        return _frame(atoms.positions, atoms.numbers, i, energy, labels["forces"], molecule)

    for i, atoms in enumerate(read_frames(path, mend=advice)):
        with reading(path, advice):
            _check_atoms(len(atoms), molecule, natoms)
        yield f"frame {i}", partial(make, i, atoms)


def _check_atoms(found: int, molecule: str, atoms: int) -> None:
    if found != atoms:
        raise ValueError(f"it has {found} atoms where {molecule} has {atoms}")


def _frame(pos, numbers, i: int, energy: float, forces, molecule: str) -> dict:
    """A structure of values in the files' units."""
    forces = np.asarray(forces, dtype=np.float64) * units.KCAL_PER_MOL_PER_ANGSTROM
    return make_structure(pos, numbers, i, forces=forces, energy=float(energy) * units.KCAL_PER_MOL, group=molecule)
