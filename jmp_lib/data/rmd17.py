"""The published rMD17 files, read as they are.

Two layouts, looked for in ``data_root``, ``data_root/rmd17`` and their ``npz_data`` folders:

* the archive: ``rmd17_<molecule>.npz``, all 100,000 frames (azobenzene 99,988). Split of the official code: 950
  train, 50 validation, the rest test, of one seed-42 shuffle. The archive's own ``splits/index_train_0k.csv`` and
  ``index_test_0k.csv`` (k = 1..5) are used only when asked for with ``shipped_split=k``.
* per-molecule parts: ``rmd17_<molecule>_train_01.npz`` and ``_test_01.npz``, 1,000 frames each. Split: 950 train
  and 50 validation of the train file by the same shuffle; the whole test file is test. Errors are then over 1,000
  test frames, not 99,000.

Arrays: nuclear_charges (N,); coords (F,N,3) Å; energies (F,) kcal/mol; forces (F,N,3) kcal/(mol Å), true forces.
Converted here, once, with the official factor (:data:`jmp_lib.units.KCAL_PER_MOL`) to eV and eV/Å. Level: PBE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.files import read_npz
from jmp_lib.data.sources import source_url
from jmp_lib.data.structures import StructureSet

# atomic numbers that occur in each molecule, with how often: the check that a file is the molecule it is named for
COMPOSITION = {
    "aspirin": {1: 8, 6: 9, 8: 4},
    "azobenzene": {1: 10, 6: 12, 7: 2},
    "benzene": {1: 6, 6: 6},
    "ethanol": {1: 6, 6: 2, 8: 1},
    "malonaldehyde": {1: 4, 6: 3, 8: 2},
    "naphthalene": {1: 8, 6: 10},
    "paracetamol": {1: 9, 6: 8, 7: 1, 8: 2},
    "salicylic": {1: 6, 6: 7, 8: 3},
    "toluene": {1: 8, 6: 7},
    "uracil": {1: 4, 6: 4, 7: 2, 8: 2},
}
MOLECULES = tuple(COMPOSITION)
N_TRAIN, N_VAL = 950, 50

# the data set's author serves split 01 to 05 in parts here; the archive's address is in facts/downloads.csv
PARTS_URL = "https://github.com/andersx/rmd17-npz (folder rmd17-npz)"
_KEYS = ["nuclear_charges", "coords", "energies", "forces"]


@dataclass(frozen=True)
class Files:
    """The files of one molecule: the whole set in ``archive``, or ``train`` and ``test`` parts."""

    archive: Path | None = None
    train: Path | None = None
    test: Path | None = None


def find_files(molecule: str, data_root: str | Path) -> Files:
    """Files of ``molecule`` under ``data_root``; the archive's file goes before the parts.

    Raises ``ValueError`` for a name that is not one of the ten, ``FileNotFoundError`` (one sentence: which file,
    where it comes from, where to put it) when neither layout is complete.
    """
    if molecule not in COMPOSITION:
        raise ValueError(f"rMD17 has no molecule {molecule!r}; it has {', '.join(MOLECULES)}")
    root = Path(data_root).expanduser()
    folders = [base / sub for base in (root, root / "rmd17") for sub in ("", "npz_data")]
    parts = f"rmd17_{molecule}_train_01.npz", f"rmd17_{molecule}_test_01.npz"
    for folder in folders:
        if (folder / f"rmd17_{molecule}.npz").is_file():
            return Files(archive=folder / f"rmd17_{molecule}.npz")
    for folder in folders:
        here = [(folder / name).is_file() for name in parts]
        if all(here):
            return Files(train=folder / parts[0], test=folder / parts[1])
        if any(here):
            raise FileNotFoundError(f"{folder / parts[here.index(False)]} is missing; {mend(molecule, root)}")
    raise FileNotFoundError(f"no rMD17 file of {molecule} in {root}; {mend(molecule, root)}")


def mend(molecule: str, data_root: str | Path) -> str:
    """Where a file of ``molecule`` comes from and where to put it."""
    root = Path(data_root)
    folder = root if root.name in ("rmd17", "npz_data") else root / "rmd17"
    return (
        f"unpack rmd17_{molecule}.npz from rmd17.tar.bz2 in {source_url('rMD17')}, or get its _train_01 "
        f"and _test_01 parts from {PARTS_URL}, and put it in {folder}"
    )


def read_frames(path: str | Path, molecule: str, data_root: str | Path | None = None) -> dict[str, np.ndarray]:
    """Frames of one original file, converted: numbers (N,), pos (F,N,3) Å, energy (F,) eV, forces (F,N,3) eV/Å.

    ``frame`` (F,) is there when the file has ``old_indices`` (frame numbers of the original MD17).
    Raises ``FileNotFoundError`` or ``ValueError`` (one sentence) for a missing, damaged or wrong file.
    """
    advice = mend(molecule, data_root if data_root is not None else Path(path).parent)
    raw = read_npz(path, mend=advice)
    missing = [key for key in _KEYS if key not in raw]
    if missing:
        raise ValueError(f"{path} has no array {', '.join(map(repr, missing))}, so it is not an rMD17 file; {advice}")
    numbers, coords = raw["nuclear_charges"], raw["coords"]
    n_frames, n_atoms = len(raw["energies"]) if raw["energies"].ndim == 1 else -1, numbers.size
    shapes = {"nuclear_charges": (n_atoms,), "coords": (n_frames, n_atoms, 3), "forces": (n_frames, n_atoms, 3)}
    for key, shape in shapes.items():
        if n_frames < 1 or raw[key].shape != shape:
            raise ValueError(
                f"{path}: array {key!r} has shape {raw[key].shape}, which does not fit {n_atoms} nuclear charges "
                f"and energies of shape {raw['energies'].shape}; {advice}"
            )
    found = {int(z): int(n) for z, n in zip(*np.unique(numbers, return_counts=True), strict=True)}
    if found != COMPOSITION[molecule]:
        raise ValueError(
            f"{path} does not hold {molecule}: its atoms are {found} (element: count) where {molecule} has "
            f"{COMPOSITION[molecule]}; {advice}"
        )
    for key in ("coords", "energies", "forces"):
        bad = ~np.isfinite(raw[key].reshape(n_frames, -1)).all(axis=1)
        if bad.any():
            raise ValueError(f"{path}: frame {np.flatnonzero(bad)[0]}, array {key!r} holds NaN or infinity; {advice}")
    frames = {
        "numbers": numbers,
        "pos": coords,
        "energy": raw["energies"] * units.KCAL_PER_MOL,
        "forces": raw["forces"] * units.KCAL_PER_MOL_PER_ANGSTROM,
    }
    return frames | ({"frame": raw["old_indices"]} if "old_indices" in raw else {})


def read(path: str | Path, *, molecule: str | None = None) -> Iterator[dict]:
    """Structures of one original file: energy eV, forces eV/Å; group the molecule, sid "<molecule>/<frame of MD17>".

    molecule: read off the file's name when None. Raises as :func:`read_frames`, and ``ValueError`` for a name that
    tells no molecule.
    """
    path = Path(path)
    named = re.fullmatch(r"rmd17_([a-z]+)(_(train|test)_0[1-5])?", path.stem)
    molecule = molecule or (named[1] if named else None)
    if molecule not in COMPOSITION:
        raise ValueError(f"{path} is not named rmd17_<molecule>.npz; say which of {', '.join(MOLECULES)} it holds")
    frames = read_frames(path, molecule)
    n_atoms = len(frames["numbers"])
    for row in range(len(frames["pos"])):
        yield {
            "pos": frames["pos"][row].astype(np.float32),
            "atomic_numbers": frames["numbers"].astype(np.int64),
            "cell": np.zeros((3, 3)),
            "pbc": np.zeros(3, bool),
            "tags": np.full(n_atoms, 2, np.int64),
            "fixed": np.zeros(n_atoms, bool),
            "id": row,
            "energy": np.float64(frames["energy"][row]),
            "forces": frames["forces"][row].astype(np.float32),
            "group": molecule,
            "sid": f"{molecule}/{frames['frame'][row] if 'frame' in frames else row}",
        }


def load_rmd17(
    molecule: str, data_root: str | Path, shipped_split: int | None = None
) -> tuple[StructureSet, splits.Split]:
    """All frames at hand of ``molecule`` with labels energy (eV) and forces (eV/Å), and their split (rows of the set).

    Of the two parts, the frames of the test file follow those of the train file. shipped_split: k = 1..5 takes the
    archive's own 1,000 train frames (950 train, 50 validation by the seed-42 shuffle) and 1,000 test frames.
    Raises as :func:`find_files` and :func:`read_frames`, and ``ValueError`` when the parts share frames.
    """
    files = find_files(molecule, data_root)
    if files.archive:
        frames = read_frames(files.archive, molecule, data_root)
        split = splits.rmd17(len(frames["pos"]), N_TRAIN, N_VAL)
        source = files.archive.name
        if shipped_split is not None:
            split, source = (
                _shipped(files.archive, shipped_split, len(frames["pos"])),
                f"{source}, shipped split {shipped_split}",
            )
    else:
        if shipped_split not in (None, 1):
            raise ValueError(
                f"shipped split {shipped_split} of {molecule} needs the archive's file; {mend(molecule, data_root)}"
            )
        parts = [read_frames(path, molecule, data_root) for path in (files.train, files.test)]
        if not np.array_equal(parts[0]["numbers"], parts[1]["numbers"]):
            raise ValueError(
                f"{files.train} and {files.test} list their atoms in different orders; {mend(molecule, data_root)}"
            )
        if all("frame" in part for part in parts) and np.intersect1d(parts[0]["frame"], parts[1]["frame"]).size:
            raise ValueError(
                f"{files.train} and {files.test} share frames, so one of them is not the file it is named for; "
                f"{mend(molecule, data_root)}"
            )
        frames = {key: np.concatenate([part[key] for part in parts]) for key in ("pos", "energy", "forces")}
        frames["numbers"] = parts[0]["numbers"]
        n_train_file = len(parts[0]["pos"])
        split = _of_train_file(np.arange(n_train_file), np.arange(n_train_file, len(frames["pos"])))
        source = f"{files.train.name} and {files.test.name}"
    n_frames, n_atoms = frames["pos"].shape[:2]
    data = StructureSet.from_arrays(
        f"rMD17 {molecule}",
        np.full(n_frames, n_atoms),
        frames["pos"].reshape(-1, 3),
        np.tile(frames["numbers"], n_frames),
        description=f"published rMD17 {molecule} (PBE/def2-SVP), {n_frames} frames of {source}",
        forces=frames["forces"].reshape(-1, 3),
        scalars={"energy": frames["energy"]},
        group=np.zeros(n_frames, dtype=np.int64),
        group_names=[molecule],
        where=source,
    )
    return data, split


def _of_train_file(train: np.ndarray, test: np.ndarray) -> splits.Split:
    """950 train and 50 validation rows of the shuffled ``train`` (a smaller file: in proportion); all ``test``."""
    order = train[splits.shuffled(len(train))]
    n_train = N_TRAIN if len(train) >= N_TRAIN + N_VAL else int(len(train) * N_TRAIN / (N_TRAIN + N_VAL))
    if n_train < 1:
        raise ValueError(f"{len(train)} frames are too few for a train and a validation part")
    return splits.Split(order[:n_train], order[n_train : N_TRAIN + N_VAL], test)


def _shipped(archive: Path, k: int, n_frames: int) -> splits.Split:
    """Split k of the archive's own index files, which lie in ``splits`` beside the folder of the npz files."""
    if k not in range(1, 6):
        raise ValueError(f"there is no shipped rMD17 split {k}: they are 1 to 5")
    rows = []
    for part in ("train", "test"):
        name = f"index_{part}_{k:02d}.csv"
        places = [archive.parent / "splits" / name, archive.parent.parent / "splits" / name]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"{places[-1]} is missing; it is in rmd17.tar.bz2 ({source_url('rMD17')}), folder rmd17/splits"
            )
        try:
            index = np.loadtxt(path, dtype=np.int64, ndmin=1)
        except ValueError:
            raise ValueError(
                f"{path} is not a list of whole numbers; get it from rmd17.tar.bz2 ({source_url('rMD17')})"
            ) from None
        if index.size == 0 or index.min() < 0 or index.max() >= n_frames:
            raise ValueError(
                f"{path} names frames outside the {n_frames} of {archive.name}; get both from {source_url('rMD17')}"
            )
        rows.append(index)
    return _of_train_file(*rows)
