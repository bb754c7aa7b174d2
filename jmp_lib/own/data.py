"""A user's own data: a file, a folder with a CSV of labels, or a pandas table becomes a set of structures with its
properties and units, or is refused with one sentence; and its split, no structure (or group) in two parts.

Recognised: extended XYZ, ASE databases (``.db``, ``.json``), every other single file that ASE reads; a folder of CIF,
POSCAR/vasp and xyz files, whose CSV (commas, semicolons or tabs) has a column with the file names (with or without
ending, also numbers that lost their leading zeros).  Pickles are never opened.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase import units as ase_units
from ase.formula import Formula

from jmp_lib.data.copies import copies
from jmp_lib.data.door import check_structure, hill
from jmp_lib.data.exchange import ending_of, from_ase, is_poscar, iter_atoms, read_lines, to_atoms
from jmp_lib.data.splits import Split, group_parts
from jmp_lib.data.structures import StructureSet, to_set
from jmp_lib.parameters import nearest
from jmp_lib.records import fingerprint

FEWEST = 10  # structures: below this there is nothing to split
FIELDS = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed")
RESERVED = (*FIELDS, "id", "natoms", "batch", "graphs", "name", "group", "dataset_index",
            "candidates", "real_atoms", "a2a_pair")
FOLDER_ENDINGS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")
FILE_COLUMNS = ("file", "filename", "file_name", "name", "id", "structure", "structure_id",
                "material_id", "cif", "cif_id")
ENERGY = {"ev": 1.0, "mev": 1e-3, "hartree": ase_units.Hartree, "ha": ase_units.Hartree, "ry": ase_units.Rydberg,
          "kcal/mol": ase_units.kcal / ase_units.mol, "kj/mol": ase_units.kJ / ase_units.mol}
LENGTH = {"å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "bohr": ase_units.Bohr}
SPLITS = ("random", "group", "composition", "given")
PARTS = ("train", "val", "test")
OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}  # of these


@dataclass(frozen=True)
class OwnData:
    """What is learnt, of which structures."""

    name: str  # of its results: with a mark of structures, labels and units, so that other data never overwrite them
    structures: StructureSet  # energies in eV, forces in eV/Å, other properties in their own unit
    properties: tuple[str, ...]  # names of what is learnt; ("energy", "forces") for energies and forces
    units: dict[str, str]  # of each
    groups: np.ndarray | None  # a text for each structure
    given: np.ndarray | None  # "train", "val" or "test" for each structure

    @cached_property
    def copies(self) -> np.ndarray:
        """(S,) int64: the first structure that each one is a copy of (:mod:`jmp_lib.data.copies`)."""
        return copies(self.structures)

    @property
    def forces(self) -> bool:
        """Whether energies and forces are learnt."""
        return "forces" in self.properties


def read_own(source, properties: list[str], units: list[str] | None, *, labels_csv=None, group_key: str | None = None,
             name: str = "own") -> OwnData:
    """Read and check; ``properties`` are names in the file: one or several scalars, or an energy and
    a (N,3) force array.

    units: one per property, asked for once because no file says them.  Raises ``ValueError`` or ``FileNotFoundError``.
    """
    where = "the table" if isinstance(source, pd.DataFrame) else str(source)
    if not properties:
        raise ValueError("say what to learn: properties = \"band_gap\", or \"energy, forces\"")
    if not units or len(units) != len(properties):
        raise ValueError(f"{where}: give the unit of each of {', '.join(properties)} (units = \"...\", with commas, "
                         "in that order): no file says them reliably")
    for key in properties:
        if key in RESERVED or not re.fullmatch(r"[\w \-]+", key):
            raise ValueError(f"property {key!r} cannot be a name here: rename it with letters, digits and _")
    found = read_source(source, labels_csv)
    _check_all_have(found, properties)
    columns = {key: [_value(atoms, key, name) for name, atoms in found.items()] for key in properties}
    if len(found) < FEWEST:
        raise ValueError(f"{where} holds {len(found)} structure{'s' * (len(found) != 1)}: "
                         f"at least {FEWEST} are needed to train, validate and test")
    if any(np.ndim(values[0]) == 2 for values in columns.values()):
        columns, units = _energies_and_forces(columns, units, where)
    structures = to_set(name, _structures(found, columns), where=where)
    for key, values in columns.items():
        flat = np.concatenate([np.ravel(v) for v in values])
        same = flat.std() <= 1e-12 * max(1.0, abs(flat[0]))
        if same and not (key == "energy" and "forces" in columns):  # forces are what such energies leave to learn
            raise ValueError(f"{where}: '{key}' is the same for all {len(values)} structures, "
                             "so there is nothing to learn")
    if group_key is not None and (without := [name for name, atoms in found.items() if group_key not in atoms.info]):
        raise ValueError(f"{without[0]}: no group '{group_key}' in it; "
                         "set group_key to a name that every structure has")
    groups = None if group_key is None else np.array([str(atoms.info[group_key]) for atoms in found.values()])
    given = [str(atoms.info.get("split", "")).strip().lower() for atoms in found.values()]
    given = np.array([OTHER_NAMES.get(part, part) for part in given])
    mark = fingerprint({"data": structures.sha256, "units": dict(zip(columns, units))})[:8]
    return OwnData(f"{name}-{mark}", structures, tuple(columns), dict(zip(columns, units)), groups,
                   given if given.any() else None)


def read_source(source, labels_csv: str | Path | None = None) -> dict[str, Atoms]:
    """All structures of ``source`` (path or pandas table), labels in ``info``, ``arrays`` or the calculator;
    each under the words that say where it is from. Raises ``FileNotFoundError`` or ``ValueError`` with one
    sentence naming the file."""
    if isinstance(source, pd.DataFrame):
        return _of_table(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError("source must be a path or a pandas table with a column of structures, "
                         f"not a {type(source).__name__}")
    path = Path(source).expanduser()
    if path.is_dir():
        if not labels_csv:
            raise ValueError(f"{path} is a folder: name the CSV with the labels of its files (labels_csv)")
        return _of_folder(path, Path(labels_csv).expanduser())
    if labels_csv:
        raise ValueError("labels_csv belongs to a folder of structure files; "
                         f"{path.name} is one file with its own labels")
    return {f"{path}, structure {number}": atoms for number, atoms in enumerate(iter_atoms(path))}


def _of_table(table: pd.DataFrame) -> dict[str, Atoms]:
    """Structures of a table: the one column of Atoms or pymatgen objects, all others become labels in ``info``."""
    if table.columns.has_duplicates:
        raise ValueError(f"the table has two columns of the same name ({', '.join(map(str, table))}): rename one")
    columns = [c for c in table if any(isinstance(item, Atoms) or hasattr(item, "sites") for item in table[c])]
    if len(columns) != 1:
        raise ValueError(f"the table must have one column of ase.Atoms or pymatgen structures, it has {len(columns)} "
                         f"among {', '.join(map(str, table))}")
    names = [f"row {number} of the table" for number in range(len(table))]
    frames = {name: to_atoms(item, name) for name, item in zip(names, table[columns[0]])}
    for atoms, labels in zip(frames.values(), table.drop(columns=columns).to_dict("records")):
        atoms.info.update({str(key): value for key, value in labels.items()})
    return frames


def _of_folder(folder: Path, labels_csv: Path) -> dict[str, Atoms]:
    """The structure files that ``labels_csv`` names, in its order, with its other columns in ``info``.

    A file that the CSV does not name, one named twice, and a row without a file, are errors:
    labels must not slip by one.
    """
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")
             and (ending_of(p) in FOLDER_ENDINGS or is_poscar(p))]
    if not files:
        raise ValueError(f"{folder} holds no CIF, POSCAR or xyz file")
    file_of = _matcher(files)
    column, rows = _read_csv(labels_csv, file_of)
    frames, lines = {}, {}
    strays = [row[column] for row in rows.values() if file_of(row[column]) is None]
    if strays or not rows:
        raise ValueError(f"{labels_csv}: "
                         f"{len(strays)} of {len(rows)} rows name no file of {folder} (column {column!r}, for "
                         f"instance {strays[0] if strays else '-'!r}): file names and this column must agree")
    for line, row in rows.items():
        path = file_of(row[column])
        if lines.setdefault(path, line) != line:
            raise ValueError(f"{labels_csv}: lines {lines[path]} and {line} both name {path.name}: leave one out")
    if unnamed := [p.name for p in files if p not in lines]:
        raise ValueError(f"{folder}: {len(unnamed)} files have no row in {labels_csv.name}, for instance {unnamed[0]}: "
                         "add their labels or move them away")
    for path, line in lines.items():
        first, *more = iter_atoms(path)
        if more:
            raise ValueError(f"{path} holds {len(more) + 1} structures where a row of labels "
                             "is for one: leave one in it")
        first.info.update(rows[line])
        frames[f"{path} (line {line} of {labels_csv.name})"] = first
    return frames


def _matcher(files: Sequence[Path]) -> Callable[[str], Path | None]:
    """The function from a text to the one of ``files`` that it names, else None: by name, or name without ending, in
    any case, behind a folder, or as a number without its leading zeros, where no two files could be meant."""
    known: dict[str, Path | None] = {}
    for path in files:
        # of a compressed one
        stem = path.stem if ending_of(path) == path.suffix.lower() else path.stem.rpartition(".")[0]
        number = {stem.lstrip("0") or "0"} if stem.isdigit() else set()
        for key in {name.lower() for name in (path.name, path.stem, stem)} | number:
            known[key] = None if key in known else path

    def file_of(text: str) -> Path | None:
        text = text.replace("\\", "/").rsplit("/", 1)[-1].lower()
        number = re.sub(r"\.0*$", "", text)
        return known.get(text) or (known.get(number.lstrip("0") or "0") if number.isdigit() else None)

    return file_of


def _read_csv(path: Path, file_of: Callable[[str], Path | None]) -> tuple[str, dict[int, dict[str, str]]]:
    """The column whose words are names of files, and the rows of a CSV as texts by the number of their line; blank
    rows do not count.

    Decimal commas are read as such where commas do not part the columns.
    """
    mend = "a CSV with a column of file names and columns of labels, and a first line that names them"
    text, lines = list(read_lines(path, mend=mend)), {}
    delimiter = max(",;\t", key=next((line for line in text if line.strip(" ,;\t\r\n")), "").count)
    reader = csv.reader(text, delimiter=delimiter)
    for words in reader:
        if any(map(str.strip, words)):
            lines[reader.line_num] = [word.strip() for word in words]
    if not lines:
        raise ValueError(f"{path} is empty; it must be {mend}")
    head = lines.pop(min(lines))
    if len(head) < 2:
        raise ValueError(f"{path} has one column, or none; it must be {mend}")
    if any(file_of(word) is not None and not re.search(r"[A-Za-z]", re.sub(re.escape(word), "", ",".join(head)))
           for word in head):
        raise ValueError(f"{path}: its first line {delimiter.join(head)!r} is a row, not the names of the columns: "
                         f"write them above it, for instance file{delimiter}band_gap")
    if len(set(head)) < len(head):
        raise ValueError(f"{path}: two columns have the same name ({', '.join(head)}): rename one")
    if ragged := [line for line, row in lines.items() if len(row) != len(head)]:
        raise ValueError(f"{path}: line {ragged[0]} has {len(lines[ragged[0]])} columns where the first line has "
                         f"{len(head)} (decimal commas? a comma in a name?): mend it")
    rows = {line: dict(zip(head, row)) for line, row in lines.items()}
    hits = {name: sum(file_of(row[name]) is not None for row in rows.values()) for name in head}
    likely = [name for name in head if hits[name] == max(hits.values())]
    named = [name for name in likely if name.lower().replace(" ", "_") in FILE_COLUMNS] or likely
    if any(hits.values()) and len(named) > 1:
        raise ValueError(f"{path}: the columns {', '.join(named)} all name files: rename the one that does to 'file'")
    for name in head if delimiter != "," else ():
        if all(re.fullmatch(r"[-+]?\d*,?\d+([eE][-+]?\d+)?", row[name]) for row in rows.values() if row[name]):
            for row in rows.values():
                row[name] = row[name].replace(",", ".")
    return named[0], rows


def _labels(atoms: Atoms) -> dict:
    """What a structure holds beside its geometry: info, calculator results and per-atom arrays."""
    arrays = {name: array for name, array in atoms.arrays.items() if name not in ("positions", "numbers")}
    return {**arrays, **getattr(atoms.calc, "results", {}), **atoms.info}


def _check_all_have(found: dict[str, Atoms], properties: list[str]) -> None:
    """``ValueError`` for a property that some structures lack: how many, the first of them, and what is in it."""
    for key in properties:
        if without := [where for where, atoms in found.items() if _labels(atoms).get(key) is None]:
            there = ", ".join(sorted(map(str, _labels(found[without[0]])))) or "nothing but geometry"
            some = (f"{len(without)} of {len(found)} structures lack it: leave them out, or"
                    if len(without) < len(found) else "no structure has it:")
            raise ValueError(f"{without[0]}: no '{key}' in it (there is: {there}); "
                             f"{some} set properties to names that every structure has")


def _value(atoms: Atoms, key: str, where: str):
    """Label ``key``: a float or (N,3)."""
    known = _labels(atoms)
    if isinstance(known[key], str) and not known[key].strip():
        raise ValueError(f"{where}: '{key}' is empty; leave this structure out or fill it in")
    try:
        value = np.asarray(known[key], float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: '{key}' is {str(known[key])[:60]!r}, not a number; "
                         "leave this structure out or mend the label") from None
    if value.size == 1 and value.shape != (1, 3):
        return value.item()
    if value.shape != (len(atoms), 3):
        raise ValueError(f"{where}: '{key}' has shape {value.shape}; a number or three per atom is needed")
    return value


def _energies_and_forces(columns: dict[str, list], units: list[str], where: str):
    """Columns under the names energy and forces, in eV and eV/Å, and these units."""
    vectors = [key for key in columns if np.ndim(columns[key][0]) == 2]
    scalars = [key for key in columns if key not in vectors]
    if len(vectors) != 1 or len(scalars) != 1:
        raise ValueError(f"{where}: forces are learnt together with one energy: set properties = \"energy, forces\" "
                         f"(here: {', '.join(columns)})")
    unit, renamed = dict(zip(columns, units)), {"energy": scalars[0], "forces": vectors[0]}
    factors = {of: factor(unit[key], of) for of, key in renamed.items()}
    return {of: [value * factors[of] for value in columns[key]] for of, key in renamed.items()}, ["eV", "eV/Å"]


def factor(unit: str, of: str) -> float:
    """Factor from ``unit`` to eV or, of ``forces`` (energy/length, for instance ``kcal/mol/Å``), to eV/Å;
    ``ValueError`` says which are known."""
    energy, length = unit, ""
    if of == "forces":
        energy, _, length = re.sub(r"\(mol å\)", "mol/Å", unit, flags=re.IGNORECASE).rpartition("/")
        if not energy or length.strip().lower() not in LENGTH:
            raise ValueError(f"unknown force unit {unit!r}; write energy/length, "
                             "for instance eV/Å, kcal/mol/Å or Hartree/bohr")
    if energy.strip().lower() not in ENERGY:
        raise ValueError(f"unknown energy unit {energy!r}; known are eV, meV, Hartree, Ry, kcal/mol, kJ/mol")
    return ENERGY[energy.strip().lower()] / LENGTH.get(length.strip().lower(), 1.0)


def _structures(found: dict[str, Atoms], columns: dict[str, list]):
    for row, (where, atoms) in enumerate(found.items()):
        read = from_ase(atoms, where=where)
        made = {**{key: read[key] for key in FIELDS}, "id": row,
                **{key: values[row] for key, values in columns.items()}}
        check_structure(made, where)
        yield made


def split_own(data: OwnData, kind: str = "random", seed: int = 42) -> Split:
    """Rows of the three parts; a fifth for the test, a tenth for validation.

    random: copies of a structure stay together; group: whole groups of ``group_key``; composition: whole reduced
    formulas; given: the label ``split`` of each structure.  ``ValueError``: an empty part, or copies in two parts.
    """
    if kind not in SPLITS:
        raise ValueError(f"unknown split {kind!r}; {nearest(kind, SPLITS)}".replace("key", "kind"))
    split = _given(data) if kind == "given" else Split(*group_parts(units_of(data, kind), (0.2, 0.1), seed)[::-1])
    for one, other in combinations(PARTS, 2):
        rows, others = getattr(split, one), getattr(split, other)
        both = rows[np.isin(data.copies[rows], data.copies[others])]
        if both.size:
            twin = others[data.copies[others] == data.copies[both[0]]][0]
            raise ValueError(f"structures {both[0]} and {twin} are the same but lie in {one} and {other} (split = "
                             f"{kind!r}), so the test would not be honest: remove one of them")
    return split


def _given(data: OwnData) -> Split:
    if data.given is None:
        raise ValueError("split = \"given\" needs a label 'split' of every structure: train, val or test")
    bad = np.flatnonzero(~np.isin(data.given, PARTS))
    if bad.size:
        raise ValueError(f"structure {bad[0]}: its split is {str(data.given[bad[0]])!r}; write train, val or test")
    found = [np.flatnonzero(data.given == name) for name in PARTS]
    if min(map(len, found)) == 0:
        raise ValueError("the given split leaves train, val or test empty")
    return Split(*found)


def units_of(data: OwnData, kind: str) -> np.ndarray:
    """What stays together, and what the bootstrap draws: a text or number for each structure."""
    if kind == "group" and data.groups is None:
        raise ValueError("split = \"group\" needs group_key: the name of a label that says "
                         "which structures belong together")
    if kind == "composition":
        return np.array([formula(s["atomic_numbers"]) for s in data.structures])
    return data.copies if kind == "random" or data.groups is None else data.groups


def formula(atomic_numbers) -> str:
    """Reduced formula, elements in Hill order."""
    return Formula(hill(atomic_numbers)).reduce()[0].format("hill")
