"""A user's own data: a file, a folder with a CSV of labels, or a pandas table becomes a set of structures with its
properties and units, or is refused with one sentence.

Recognised: extended XYZ, ASE databases (``.db``), every other single file that ASE reads; a folder of CIF, POSCAR/vasp
and xyz files, whose CSV has a column with the file names (with or without ending).  Pickles are never opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase import units as ase_units

from jmp_lib.data.collect import to_set
from jmp_lib.data.copies import copies
from jmp_lib.data.exchange import from_ase, is_poscar, read_atoms, to_atoms
from jmp_lib.data.structures import StructureSet

FEWEST = 10  # structures: below this there is nothing to split
FIELDS = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed")
RESERVED = (*FIELDS, "id", "natoms", "batch", "graphs")
FOLDER_ENDINGS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")
ENERGY = {"ev": 1.0, "mev": 1e-3, "hartree": ase_units.Hartree, "ha": ase_units.Hartree, "ry": ase_units.Rydberg,
          "kcal/mol": ase_units.kcal / ase_units.mol, "kj/mol": ase_units.kJ / ase_units.mol}
LENGTH = {"å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "bohr": ase_units.Bohr}


@dataclass(frozen=True)
class OwnData:
    """structures: energies in eV, forces in eV/Å, other properties in their own unit.

    properties: names of what is learnt (``("energy", "forces")`` for energies and forces); units: of each;
    groups: text of each structure or None; given: "train", "val" or "test" of each structure or None.
    """

    name: str
    structures: StructureSet
    properties: tuple[str, ...]
    units: dict[str, str]
    groups: np.ndarray | None
    given: np.ndarray | None

    @cached_property
    def copies(self) -> np.ndarray:
        """(S,) int64: the first structure that each one is a copy of (:mod:`jmp_lib.data.copies`)."""
        return copies(self.structures)

    @property
    def forces(self) -> bool:
        """Whether energies and forces are learnt."""
        return "forces" in self.properties


def read_own(source, properties: list[str], units: list[str] | None, *, labels_csv=None, group_key: str | None = None,
             name: str = "own", split_key: str = "split") -> OwnData:
    """Read and check; ``properties`` are names in the file: one or several scalars, or an energy and a (N,3) force array.

    units: one per property, asked for once because no file says them.  Raises ``ValueError`` or ``FileNotFoundError``.
    """
    frames = read_source(source, labels_csv)
    where = "the table" if isinstance(source, pd.DataFrame) else str(source)
    _check_request(properties, units, where)
    columns = {key: [_value(atoms, key, f"{where}, structure {i}") for i, atoms in enumerate(frames)] for key in properties}
    if len(frames) < FEWEST:
        raise ValueError(f"{where} holds {len(frames)} structure{'s' * (len(frames) != 1)}: at least {FEWEST} are needed to "
                         "train, validate and test")
    if any(np.ndim(values[0]) == 2 for values in columns.values()):
        columns, units = _energies_and_forces(columns, units, where)
    for key, values in columns.items():
        flat = np.concatenate([np.ravel(v) for v in values])
        if flat.std() <= 1e-12 * max(1.0, abs(flat[0])):
            raise ValueError(f"{where}: '{key}' is the same for all {len(values)} structures, so there is nothing to learn")
    groups = None if group_key is None else np.array([_text(a, group_key, f"{where}, structure {i}")
                                                      for i, a in enumerate(frames)])
    given = np.array([str(a.info.get(split_key, "")) for a in frames])
    return OwnData(name, _as_set(name, frames, columns, where), tuple(columns), dict(zip(columns, units)), groups,
                   given if given.any() else None)


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
    if labels_csv:
        raise ValueError(f"labels_csv belongs to a folder of structure files; {path.name} is one file with its own labels")
    return read_atoms(path)


def from_table(table: pd.DataFrame) -> list[Atoms]:
    """Structures of a table: the one column of Atoms or pymatgen objects, all others become labels in ``info``."""
    columns = [c for c in table if len(table) and (isinstance(table[c].iloc[0], Atoms) or hasattr(table[c].iloc[0], "sites"))]
    if len(columns) != 1:
        raise ValueError(f"the table must have one column of ase.Atoms or pymatgen structures, it has {len(columns)} "
                         f"among {', '.join(map(str, table))}")
    frames = [to_atoms(item, f"row {number} of the table") for number, item in enumerate(table[columns[0]])]
    return _with_labels(frames, table.drop(columns=columns))


def read_folder(folder: Path, labels_csv: Path) -> list[Atoms]:
    """The structure files that ``labels_csv`` names, in its order, with its other columns in ``info``.

    A file that the CSV does not name, and a row without a file, are errors: labels must not slip by one.
    """
    if not labels_csv.is_file():
        raise FileNotFoundError(f"{labels_csv} is missing: a CSV with a column of file names and columns of labels")
    table = pd.read_csv(labels_csv)
    files = {p.name: p for p in sorted(folder.iterdir())
             if p.is_file() and (p.suffix.lower() in FOLDER_ENDINGS or is_poscar(p))}
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
    return _with_labels([read_atoms(names[name])[-1] for name in found], table)


def _with_labels(frames: list[Atoms], table: pd.DataFrame) -> list[Atoms]:
    for atoms, (_, row) in zip(frames, table.iterrows()):
        atoms.info.update({str(key): row[key] for key in table})
    return frames


def _check_request(properties, units, where) -> None:
    if not properties:
        raise ValueError("say what to learn: properties = \"band_gap\", or \"energy, forces\"")
    if not units or len(units) != len(properties):
        raise ValueError(f"{where}: give the unit of each of {', '.join(properties)} (units = \"...\", with commas, in that "
                         "order): no file says them reliably")
    for key in properties:
        if key in RESERVED or not re.fullmatch(r"[\w \-]+", key):
            raise ValueError(f"property {key!r} cannot be a name here: rename it with letters, digits and _")


def _value(atoms: Atoms, key: str, where: str):
    """Label ``key`` from info, calculator results or per-atom arrays: a float or (N,3)."""
    arrays = {name: array for name, array in atoms.arrays.items() if name not in ("positions", "numbers")}
    known = {**arrays, **(atoms.calc.results if atoms.calc is not None else {}), **atoms.info}
    if known.get(key) is None:
        raise ValueError(f"{where}: no '{key}' in it (there is: {', '.join(sorted(known)) or 'nothing but geometry'}); set "
                         "properties to names that every structure has")
    try:
        value = np.asarray(known[key], float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: '{key}' is {known[key]!r}, not a number") from None
    if value.shape not in ((), (len(atoms), 3)):
        raise ValueError(f"{where}: '{key}' has shape {value.shape}; a number or three per atom is needed")
    if not np.isfinite(value).all():
        raise ValueError(f"{where}: '{key}' holds NaN or infinity; leave this structure out or mend the label")
    return float(value) if value.ndim == 0 else value


def _text(atoms: Atoms, key: str, where: str) -> str:
    if key not in atoms.info:
        raise ValueError(f"{where}: no group '{key}' in it; set group_key to a name that every structure has")
    return str(atoms.info[key])


def _energies_and_forces(columns: dict[str, list], units: list[str], where: str):
    """Columns under the names energy and forces, in eV and eV/Å, and these units."""
    vectors = [key for key in columns if np.ndim(columns[key][0]) == 2]
    scalars = [key for key in columns if key not in vectors]
    if len(vectors) != 1 or len(scalars) != 1:
        raise ValueError(f"{where}: forces are learnt together with one energy: set properties = \"energy, forces\" (here: "
                         f"{', '.join(columns)})")
    unit = dict(zip(columns, units))
    factor, force = energy_factor(unit[scalars[0]]), force_factor(unit[vectors[0]])
    made = {"energy": [v * factor for v in columns[scalars[0]]], "forces": [v * force for v in columns[vectors[0]]]}
    return made, ["eV", "eV/Å"]


def energy_factor(unit: str) -> float:
    """Factor from ``unit`` to eV; ``ValueError`` naming the known ones."""
    try:
        return ENERGY[unit.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown energy unit {unit!r}; known are eV, meV, Hartree, Ry, kcal/mol, kJ/mol") from None


def force_factor(unit: str) -> float:
    """Factor from ``unit`` (energy/length, for instance ``kcal/mol/Å``) to eV/Å."""
    energy, _, length = unit.strip().replace("(mol Å)", "mol/Å").rpartition("/")
    if not energy or length.strip().lower() not in LENGTH:
        raise ValueError(f"unknown force unit {unit!r}; write energy/length, for instance eV/Å, kcal/mol/Å or Hartree/bohr")
    return energy_factor(energy) / LENGTH[length.strip().lower()]


def _as_set(name: str, frames: list[Atoms], columns: dict[str, list], where: str) -> StructureSet:
    def structures():
        for i, atoms in enumerate(frames):
            found = from_ase(atoms)
            yield {**{key: found[key] for key in FIELDS}, "id": i, **{key: values[i] for key, values in columns.items()}}

    return to_set(name, structures(), where=where)
