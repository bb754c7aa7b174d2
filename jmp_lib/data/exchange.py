"""Structures to and from extended XYZ (plain, ``.xz``, ``.gz``), one after the other; files that ASE reads and pymatgen
objects as ``ase.Atoms``, and these as structures.

Units are eV, Å, eV/Å on both sides. Scalar targets and texts (``sid``, ``group``) travel in ``info``. Pickles are never opened.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from jmp_lib.data.formats import opened
from jmp_lib.files import write_atomically

_ARRAYS = {"pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces"}
_REFUSED = (".pkl", ".pickle", ".npy", ".pt", ".traj")
_KNOWN = "known are extended XYZ, ASE databases, CIF and POSCAR"
_OPENERS = {".xz": (lzma.open, "an xz file", b"\xfd7zXZ"), ".gz": (gzip.open, "a gzip file", b"\x1f\x8b")}


def read_lines(path: str | Path, *, mend: str) -> Iterator[str]:
    """Lines of a plain or compressed text; ``ValueError`` (one sentence) where the file turns out cut short or altered."""
    opener, what, magic = _OPENERS.get(Path(path).suffix, (open, "an extended XYZ file", b""))
    with opened(path, what, magic, mend=mend), opener(path, "rt", encoding="utf-8") as stream:
        yield from stream


def read_frames(path: str | Path, *, mend: str) -> Iterator[Atoms]:
    """Frames of an extended XYZ file as ASE reads them, one in memory at a time.

    ASE parses each frame but does not find them: its ``iread`` ends at the first blank line without a word and walks
    through a compressed file twice, its ``ixyzchunks`` takes the first digit for the number of atoms. Raises
    ``FileNotFoundError`` or ``ValueError``, one sentence with file, frame and mend.
    """
    from ase.io.extxyz import read_xyz

    lines = read_lines(path, mend=mend)
    for number, head in enumerate(line for line in lines if line.strip()):
        if not head.strip().isdigit():
            said = head.strip()[:40]
            raise ValueError(f"{path}: frame {number} begins with {said!r}, not with a number of atoms; {mend}")
        frame = [head, *islice(lines, int(head) + 1)]
        if len(frame) < int(head) + 2:
            raise ValueError(f"{path}: frame {number} ends after {max(len(frame) - 2, 0)} of {int(head)} atoms; {mend}")
        try:
            (atoms,) = read_xyz(io.StringIO("".join(frame)), slice(None))
        except Exception as error:  # ASE raises many kinds for text that is not its format
            raise ValueError(f"{path}: frame {number} is not extended XYZ ({error}); {mend}") from None
        yield atoms


def read_extxyz(path: str | Path) -> Iterator[dict]:
    """Structures of an extended XYZ file; raises as :func:`read_frames`."""
    yield from (from_ase(atoms, number) for number, atoms in enumerate(read_frames(path, mend="get it again")))


def write_extxyz(path: str | Path, structures: Iterable[dict]) -> int:
    """Write structures as extended XYZ (``.extxyz``), all digits kept; returns how many. The file appears when complete."""
    count = 0
    with write_atomically(path) as stream:
        for structure in structures:
            stream.write(_frame(structure))
            count += 1
    return count


def _rows_of(path: Path) -> Iterator[Atoms]:
    from ase.db import connect

    with opened(path, "an ASE database (.db)", b"SQLite format 3\0", mend=_KNOWN):
        for row in connect(path, use_lock_file=False).select(sort="id"):
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            yield atoms


def read_atoms(path: Path) -> list[Atoms]:
    """Every frame of a file: extended XYZ, an ASE database (key-value pairs in ``info``), CIF, POSCAR, what else ASE reads.

    Raises ``FileNotFoundError`` or ``ValueError`` with one sentence naming the file.
    """
    if path.suffix.lower() in _REFUSED:
        raise ValueError(f"{path}: {path.suffix} files are not read (they may run code or lack meaning); write extended XYZ "
                         "with ase.io.write('mine.extxyz', frames)")
    if {".xyz", ".extxyz"} & {suffix.lower() for suffix in path.suffixes}:
        frames = list(read_frames(path, mend=_KNOWN))
    elif path.suffix.lower() == ".db":
        frames = list(_rows_of(path))
    else:
        from ase.io import read

        vasp = path.suffix.lower() in (".poscar", ".vasp") or is_poscar(path)
        with opened(path, "a file of structures", mend=_KNOWN):
            frames = read(path, index=":", format="vasp" if vasp else None)
    if not frames:
        raise ValueError(f"{path} holds no structure; {_KNOWN}")
    return frames


def is_poscar(path: Path) -> bool:
    """Whether the name says that this is a POSCAR or CONTCAR, which have no ending."""
    return path.name.upper().startswith(("POSCAR", "CONTCAR"))


def to_atoms(item, where: str) -> Atoms:
    """A copy of an ``ase.Atoms`` (with its results), or the Atoms of a pymatgen Structure or Molecule; else ``ValueError``."""
    if isinstance(item, Atoms):
        made = item.copy()
        if item.calc is not None:
            from ase.calculators.singlepoint import SinglePointCalculator

            made.calc = SinglePointCalculator(made, **item.calc.results)
        return made
    if hasattr(item, "sites") and hasattr(item, "composition"):
        from pymatgen.io.ase import AseAtomsAdaptor

        made = AseAtomsAdaptor.get_atoms(item)
        return Atoms(made.numbers, made.positions, cell=made.cell, pbc=made.pbc)
    raise ValueError(f"{where} is a {type(item).__name__}, not an ase.Atoms or a pymatgen structure")


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
    extra = {key: structure[key] for key in structure.keys() if key not in _ARRAYS | {"energy"}}
    return {key: value if isinstance(value, (str, int)) else float(value) for key, value in extra.items()}


def _frame(structure: dict) -> str:
    """One frame of extended XYZ; float32 with 9 digits, float64 with 17 come back as they were (ASE writes 8 decimals)."""
    natoms = len(structure["pos"])
    given = {key: np.asarray(structure[key]) for key in _ARRAYS if key in structure}
    columns = [("species", "S", 1), ("pos", "R", 3), ("tags", "I", 1), ("move_mask", "L", 1)]
    columns += [("forces", "R", 3)] if "forces" in given else []
    head = []
    if np.any(given.get("cell", 0)):
        head.append('Lattice="' + " ".join(repr(float(x)) for x in np.ravel(given["cell"])) + '"')
    head.append("Properties=" + ":".join(f"{name}:{kind}:{width}" for name, kind, width in columns))
    if "energy" in structure:
        head.append(f"energy={float(structure['energy'])!r}")
    for key, value in _extra(structure).items():
        head.append(f"{key}={json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)}")
    head.append('pbc="' + " ".join("T" if p else "F" for p in given.get("pbc", np.zeros(3))) + '"')
    lines = [str(natoms), " ".join(head)]
    tags, fixed = given.get("tags", np.full(natoms, 2)), given.get("fixed", np.zeros(natoms, dtype=bool))
    for i in range(natoms):
        words = [chemical_symbols[given["atomic_numbers"][i]], *(f"{x:.9g}" for x in given["pos"][i])]
        words += [str(int(tags[i])), "F" if fixed[i] else "T"]
        words += [f"{x:.9g}" for x in given["forces"][i]] if "forces" in given else []
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"
