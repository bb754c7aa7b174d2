"""A user's own structures as ``ase.Atoms``: a file, a folder with a CSV of labels, or a pandas table.

Recognised: extended XYZ, ASE databases (``.db``), every other single file that ASE reads; a folder of CIF, POSCAR/vasp
and xyz files, whose CSV has a column with the file names (with or without ending).  Pickles are never opened.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from ase import Atoms

from jmp_lib.data.atoms import is_poscar, read_atoms, to_atoms

FOLDER_ENDINGS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")


def read_source(source, labels_csv: str | Path | None = None) -> list[Atoms]:
    """All structures of ``source`` (path or pandas table), labels in ``info``, ``arrays`` or the calculator.

    Raises ``FileNotFoundError`` or ``ValueError`` with one sentence naming the file.
    """
    if isinstance(source, pd.DataFrame):
        return from_table(source)
    path = Path(source).expanduser()
    if path.is_dir():
        if not labels_csv:
            raise ValueError(f"{path} is a folder: name the CSV with the labels of its files (labels_csv)")
        return read_folder(path, Path(labels_csv).expanduser())
    frames = read_atoms(path)
    if labels_csv:
        raise ValueError(f"labels_csv belongs to a folder of structure files; {path.name} is one file with its own labels")
    return frames


def from_table(table: pd.DataFrame) -> list[Atoms]:
    """Structures of a table: the one column of Atoms or pymatgen objects, all others become labels in ``info``."""
    columns = [c for c in table if len(table) and (isinstance(table[c].iloc[0], Atoms) or hasattr(table[c].iloc[0], "sites"))]
    if len(columns) != 1:
        raise ValueError(f"the table must have one column of ase.Atoms or pymatgen structures, it has {len(columns)} "
                         f"among {', '.join(map(str, table))}")
    frames = []
    for number, (_, row) in enumerate(table.iterrows()):
        atoms = to_atoms(row[columns[0]], f"row {number} of the table")
        atoms.info.update({str(key): row[key] for key in table if key != columns[0]})
        frames.append(atoms)
    return frames


def read_folder(folder: Path, labels_csv: Path) -> list[Atoms]:
    """The structure files that ``labels_csv`` names, in its order, with its other columns in ``info``.

    A file that the CSV does not name, and a row without a file, are errors: labels must not slip by one.
    """
    if not labels_csv.is_file():
        raise FileNotFoundError(f"{labels_csv} is missing: a CSV with a column of file names and columns of labels")
    table = pd.read_csv(labels_csv)
    files = {p.name: p for p in sorted(folder.iterdir()) if p.is_file() and _is_structure(p)}
    if not files:
        raise ValueError(f"{folder} holds no CIF, POSCAR or xyz file")
    names = {**{p.stem: p for p in files.values()}, **files}
    best = max(table, key=lambda c: table[c].astype(str).isin(names).sum(), default=None)
    found = table[best].astype(str) if best is not None else pd.Series([], dtype=str)
    missing = [n for n in found if n not in names]
    if missing or not len(found):
        raise ValueError(f"{labels_csv}: {len(missing)} of {len(found)} rows name no file of {folder} (column {best!r}, for "
                         f"instance {missing[0] if missing else '-'!r}): file names and this column must agree")
    unnamed = sorted(set(files) - {names[n].name for n in found})
    if unnamed:
        raise ValueError(f"{folder}: {len(unnamed)} files have no row in {labels_csv.name}, for instance {unnamed[0]}: add "
                         "their labels or move them away")
    frames = []
    for (_, row), name in zip(table.iterrows(), found):
        atoms = read_atoms(names[name])[-1]
        atoms.info.update({str(key): row[key] for key in table})
        frames.append(atoms)
    return frames


def _is_structure(path: Path) -> bool:
    return path.suffix.lower() in FOLDER_ENDINGS or is_poscar(path)
