"""The published MD22 trajectories: seven molecules, npz of sGDML or extended xyz.

Looked for in ``data_root`` and ``data_root/md22``: ``md22_<name>.npz``, then ``md22_<name>*.xyz`` or ``.extxyz`` with
labels. The npz: ``z`` (N,); ``R`` (F,N,3) Å; ``E`` (F,1) kcal/mol; ``F`` (F,N,3) kcal/(mol Å), true forces; its other
entries, some of them pickled objects, are never opened. Extended xyz: ``Energy`` in the comment line and ``forces``
per atom, same units. Converted here, once, with the official factor (:data:`jmp_lib.units.KCAL_PER_MOL`).

Split: seed-42 shuffle; a pool of sGDML's size, its last 5 % validation and the rest train; all other frames test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, numbers_of, part_name, screened, to_set
from jmp_lib.data.files import check_head, read_npz
from jmp_lib.data.structures import StructureSet
from jmp_lib.facts import downloads
from jmp_lib.facts import task as task_facts
from jmp_lib.strict import nearest

# name in the file names -> atoms: the check that a file is the molecule it is named for
ATOMS = {
    "Ac-Ala3-NHMe": 42,
    "DHA": 56,
    "stachyose": 87,
    "AT-AT": 60,
    "AT-AT-CG-CG": 118,
    "buckyball-catcher": 148,
    "double-walled_nanotube": 370,
}
MOLECULES = tuple(ATOMS)


def molecule_of(name: str) -> str:
    """The file name's spelling of a molecule (``ac-ala3-nhme`` of a task id -> ``Ac-Ala3-NHMe``)."""
    for molecule in MOLECULES:
        if name.lower().replace("_", "-") == molecule.lower().replace("_", "-"):
            return molecule
    raise ValueError(f"MD22 has no molecule {name!r}; {nearest(name, MOLECULES)}".replace("valid key", "name"))


def _facts(molecule: str):
    return task_facts("md22_" + molecule.lower().replace("_", "-"))


def mend(molecule: str, data_root: str | Path = "DATA_ROOT") -> str:
    """Where the file of ``molecule`` comes from and where to put it."""
    rows = downloads()
    url = rows.loc[(rows["dataset"] == "MD22") & (rows["file"] == f"md22_{molecule}.npz"), "url"].iloc[0]
    root = Path(data_root)
    return f"get md22_{molecule}.npz from {url} and put it in {root if root.name == 'md22' else root / 'md22'}"


def find_file(molecule: str, data_root: str | Path) -> Path:
    """The file of ``molecule``, npz before xyz; raises ``FileNotFoundError`` (one sentence with the mend)."""
    molecule = molecule_of(molecule)
    root = Path(data_root).expanduser()
    for form in (f"md22_{molecule}.npz", f"md22_{molecule}.*xyz", f"md22_{molecule}_*.*xyz"):
        for folder in (root, root / "md22"):
            found = [path for path in sorted(folder.glob(form)) if "unlabelled" not in path.name]
            if found:
                return found[0]
    raise FileNotFoundError(f"no MD22 file of {molecule} in {root}; {mend(molecule, data_root)}")


def read(
    path: str | Path, molecule: str | None = None, rejected: list[str] | None = None
) -> Iterator[dict]:
    """Frames of one file with energy (eV) and forces (eV/Å); ``id`` is the frame, ``group`` the molecule.

    molecule: read off the file's name when None. rejected: gets the reason for each frame that cannot be used, which
    is then left out. Raises ``FileNotFoundError`` or ``ValueError``, one sentence with the mend.
    """
    path = Path(path)
    molecule = _named(path) if molecule is None else molecule_of(molecule)
    advice = mend(molecule, path.parent)
    items = _npz(path, molecule, advice) if path.suffix == ".npz" else _xyz(path, molecule, advice)
    yield from screened(items, str(path), rejected)


def load_md22(molecule: str, data_root: str | Path) -> tuple[StructureSet, splits.Split]:
    """The frames at hand of ``molecule`` and their split (rows of the set).

    Raises as :func:`find_file` and :func:`read`, and ``ValueError`` when the frames are too few for the split.
    """
    molecule = molecule_of(molecule)
    path = find_file(molecule, data_root)
    official = _facts(molecule)
    pool, total = int(official["n_train"]) + int(official["n_val"]), int(official["n_total"])
    data = to_set(f"MD22 {molecule}", read(path, molecule), where=str(path))
    description = f"published MD22 {molecule} (PBE+MBD), {len(data)} of {total} frames, from {path.name}"
    try:
        split = splits.md22(len(data), pool)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {mend(molecule, data_root)}") from None
    return data.renamed(part_name(data.name, len(data), total), description), split


def _named(path: Path) -> str:
    stem = path.name.removeprefix("md22_").split(".")[0]
    fits = [molecule for molecule in MOLECULES if stem == molecule or stem.startswith(molecule + "_")]
    if not fits:
        raise ValueError(f"{path} is not named md22_<molecule>, so its molecule must be given: {', '.join(MOLECULES)}")
    return max(fits, key=len)


def _npz(path: Path, molecule: str, advice: str) -> Iterator:
    raw = read_npz(path, ["z", "R", "E", "F"], mend=advice)
    numbers = raw["z"]
    n_frames, n_atoms = len(raw["R"]), numbers.size
    energies = raw["E"].reshape(-1)
    shapes = {"z": (n_atoms,), "R": (n_frames, n_atoms, 3), "F": (n_frames, n_atoms, 3), "E": raw["E"].shape}
    for key, shape in shapes.items():
        if raw[key].shape != shape or energies.shape != (n_frames,) or not n_frames:
            raise ValueError(
                f"{path}: array {key!r} has shape {raw[key].shape}, which does not fit {n_atoms} atoms and energies of "
                f"shape {raw['E'].shape}; {advice}"
            )
    _check_atoms(path, n_atoms, molecule, advice)
    _check_units(path, advice)
    for i in range(n_frames):
        yield f"frame {i}", lambda i=i: _frame(raw["R"][i], numbers, i, energies[i], raw["F"][i], molecule)


def _check_units(path: Path, advice: str) -> None:
    """The units the file states, where it states them as plain text, are those that are converted here."""
    for key, expected in (("e_unit", "kcal/mol"), ("r_unit", "Ang")):
        try:
            said = str(read_npz(path, [key], mend="")[key].item())
        except ValueError:  # not stated, or a pickled object: stays closed
            continue
        if said != expected:
            raise ValueError(f"{path} says that its {key} is {said!r} where MD22 has {expected!r}; {advice}")


def _check_atoms(path: Path, n_atoms: int, molecule: str, advice: str) -> None:
    if n_atoms != ATOMS[molecule]:
        raise ValueError(f"{path} does not hold {molecule}: it has {n_atoms} atoms, not {ATOMS[molecule]}; {advice}")


def _frame(pos, numbers, i: int, energy: float, forces, molecule: str) -> dict:
    return make_structure(
        pos,
        numbers,
        i,
        forces=np.asarray(forces, dtype=np.float64) * units.KCAL_PER_MOL_PER_ANGSTROM,
        energy=float(energy) * units.KCAL_PER_MOL,
        group=molecule,
    )


def _xyz(path: Path, molecule: str, advice: str) -> Iterator:
    from ase.io import iread

    check_head(path, "an extended xyz file", mend=advice)

    def make(i: int, atoms) -> dict:
        labels = atoms.info | (atoms.calc.results if atoms.calc else {})
        energy = labels.get("energy", labels.get("Energy"))
        forces = labels.get("forces", atoms.arrays.get("forces"))
        if energy is None or forces is None:
            raise ValueError("it has no energy and forces")
        _check_atoms(path, len(atoms), molecule, advice)
        return _frame(atoms.positions, numbers_of(atoms.get_chemical_symbols()), i, energy, forces, molecule)

    frames = iread(str(path), index=":", format="extxyz")
    i = -1
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception:  # ASE raises many kinds for a file that is not what it says
            raise ValueError(f"{path}: frame {i + 1} cannot be read, the file is damaged; {advice}") from None
        i += 1
        yield f"frame {i}", lambda i=i, atoms=atoms: make(i, atoms)
