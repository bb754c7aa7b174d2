"""Structures to and from extended XYZ files and ASE databases, so that a store locks nobody in.

What a structure has comes back: pos (float32, all digits), atomic_numbers, cell, pbc, tags, fixed, forces (eV/Å),
energy (eV), scalar targets, texts and id. Foreign files are read too: energy and forces as ASE finds them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

_ARRAYS = {"pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces"}


def write_extxyz(path: str | Path, structures: Iterable[dict]) -> int:
    """Write structures as extended XYZ (``.extxyz``), all digits kept; returns how many. The file appears when complete."""
    path, count = Path(path), 0
    temporary = path.with_name(path.name + ".partial")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            for structure in structures:
                stream.write(_frame(structure))
                count += 1
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_extxyz(path: str | Path) -> Iterator[dict]:
    """Structures of an extended XYZ file one after the other; units are taken to be eV and Å.

    Raises ``FileNotFoundError`` for no file, ``ValueError`` (one sentence) for one that is cut short or not extended XYZ.
    """
    from ase.io import iread

    path, number = Path(path), -1
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name an extended XYZ file")
    frames = iread(path, index=":", format="extxyz")
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            if number < 0:
                raise ValueError(f"{path} is empty; name an extended XYZ file") from None
            return
        except Exception as error:  # ase raises many kinds for text that is not its format
            place = f"after frame {number}" if number >= 0 else "at its start"
            raise ValueError(f"{path} is damaged or not extended XYZ ({place}): {error}; get it again") from None
        number += 1
        yield from_ase(atoms, number)


def write_ase_db(path: str | Path, structures: Iterable[dict]) -> int:
    """Write structures as an ASE database (SQLite, ``.db``); returns how many. The file appears when complete."""
    from ase.db import connect

    path, count = Path(path), 0
    if path.suffix != ".db":
        raise ValueError(f"{path}: an ASE database is told by its name, which must end in .db")
    temporary = path.with_name(path.stem + ".partial.db")
    temporary.unlink(missing_ok=True)
    try:
        with connect(temporary, use_lock_file=False) as database:
            for structure in structures:
                database.write(to_ase(structure), data={"jmp": json.dumps(_extra(structure))})
                count += 1
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_ase_db(path: str | Path) -> Iterator[dict]:
    """Structures of an ASE database one after the other; raises as :func:`read_extxyz`."""
    import sqlite3

    from ase.db import connect

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name an ASE database")
    try:
        for number, row in enumerate(connect(path, use_lock_file=False).select(sort="id")):
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            atoms.info.update(json.loads(row.data["jmp"]) if "jmp" in row.data else {})
            yield from_ase(atoms, number)
    except (sqlite3.DatabaseError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(f"{path} is damaged or not an ASE database (.db): {error}; get it again") from None


def to_ase(structure: dict) -> Atoms:
    """The structure as an ``ase.Atoms`` with tags, constraint, energy and forces; targets and texts in ``info``."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms

    atoms = Atoms(
        numbers=structure["atomic_numbers"], positions=structure["pos"], cell=structure.get("cell"),
        pbc=structure.get("pbc", False), tags=structure.get("tags", np.full(len(structure["pos"]), 2)),
    )  # fmt: skip
    if np.any(structure.get("fixed", False)):
        atoms.set_constraint(FixAtoms(mask=structure["fixed"]))
    labels = {key: structure[key] for key in ("energy", "forces") if key in structure}
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info.update(_extra(structure))
    return atoms


def from_ase(atoms: Atoms, number: int = 0) -> dict:
    """The structure of an ``ase.Atoms``; ``number`` is its id when ``info`` has none. Atoms without tags get 2."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            fixed[constraint.index] = True
    structure = {
        "pos": atoms.positions.astype(np.float32),
        "atomic_numbers": atoms.numbers.astype(np.int64),
        "cell": np.array(atoms.cell, dtype=np.float64),
        "pbc": np.array(atoms.pbc),
        "tags": atoms.get_tags().astype(np.int64) if atoms.has("tags") else np.full(len(atoms), 2),
        "fixed": fixed,
        "id": int(atoms.info.get("id", number)),
    }
    results = atoms.calc.results if atoms.calc is not None else {}
    if "energy" in results:
        structure["energy"] = float(results["energy"])
    if "forces" in results:
        structure["forces"] = np.asarray(results["forces"], dtype=np.float32)
    for key, value in atoms.info.items():
        if isinstance(value, str):
            structure.setdefault(key, value)
        elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf":
            structure.setdefault(key, float(value))
    return structure


def _extra(structure: dict) -> dict:
    """What ASE has no place for: id, scalar targets, texts."""
    extra = {key: value for key, value in structure.items() if key not in _ARRAYS | {"energy"}}
    return {key: value if isinstance(value, (str, int)) else float(value) for key, value in extra.items()}


def _frame(structure: dict) -> str:
    """One frame of extended XYZ; float32 with 9 digits and float64 with 17 come back as they were."""
    extra = _extra(structure)
    head = []
    if np.any(structure.get("cell", 0.0)):
        head.append('Lattice="' + " ".join(repr(float(x)) for x in np.ravel(structure["cell"])) + '"')
    columns = [("species", "S", 1), ("pos", "R", 3), ("tags", "I", 1), ("move_mask", "L", 1)]
    columns += [("forces", "R", 3)] if "forces" in structure else []
    head.append("Properties=" + ":".join(f"{name}:{kind}:{width}" for name, kind, width in columns))
    if "energy" in structure:
        head.append(f"energy={float(structure['energy'])!r}")
    for key, value in extra.items():
        head.append(f"{key}={json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)}")
    head.append('pbc="' + " ".join("T" if p else "F" for p in structure.get("pbc", (False,) * 3)) + '"')
    natoms = len(structure["pos"])
    tags, fixed = structure.get("tags", np.full(natoms, 2)), structure.get("fixed", np.zeros(natoms, dtype=bool))
    lines = [str(natoms), " ".join(head)]
    for i in range(natoms):
        words = [chemical_symbols[structure["atomic_numbers"][i]], *(f"{x:.9g}" for x in structure["pos"][i])]
        words += [str(int(tags[i])), "F" if fixed[i] else "T"]
        words += [f"{x:.9g}" for x in structure["forces"][i]] if "forces" in structure else []
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"
