"""Foreign structures as ``ase.Atoms``: pymatgen objects, and every file that ASE reads.  Pickles are never opened."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

REFUSED = (".pkl", ".pickle", ".npy", ".pt", ".traj")
STYLES = {".xyz": "extxyz", ".extxyz": "extxyz", ".poscar": "vasp", ".vasp": "vasp"}


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


def read_atoms(path: Path) -> list[Atoms]:
    """Every frame of a file: extended XYZ, an ASE database (``.db``; its key-value pairs go to ``info``), CIF, POSCAR, ...

    Raises ``FileNotFoundError`` or ``ValueError`` with one sentence naming the file.
    """
    ending = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name an extended XYZ file, an ASE database or a folder of structures")
    if ending in REFUSED:
        raise ValueError(f"{path}: {path.suffix} files are not read (they may run code or lack meaning); write extended XYZ "
                         "with ase.io.write('mine.extxyz', frames)")
    try:
        if ending == ".db":
            frames = _read_database(path)
        else:
            from ase.io import read

            frames = read(path, index=":", format=STYLES.get(ending, "vasp" if is_poscar(path) else None))
    except Exception as error:  # ASE raises many kinds for text that is not its format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as structures ({reason[:150]}); known are extended XYZ, ASE databases, CIF "
                         "and POSCAR") from None
    if not frames:
        raise ValueError(f"{path} holds no structure")
    return frames


def is_poscar(path: Path) -> bool:
    """Whether the name says that this is a POSCAR or CONTCAR, which have no ending."""
    return path.name.upper().startswith(("POSCAR", "CONTCAR"))


def _read_database(path: Path) -> list[Atoms]:
    from ase.db import connect

    frames = []
    for row in connect(path, use_lock_file=False).select(sort="id"):
        frames.append(row.toatoms())
        frames[-1].info.update(row.key_value_pairs)
    return frames
