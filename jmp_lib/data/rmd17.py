"""The published rMD17 files, read as they are.

Two layouts, looked for in ``data_root``, ``data_root/rmd17`` and their ``npz_data``, ``rmd17/npz_data`` and
``raw/rmd17/npz_data`` (where torch_geometric's ``MD17`` unpacks the archive):

* the archive: ``rmd17_<molecule>.npz``, all 100,000 frames (azobenzene 99,988). Split of the official code: 950
  train, 50 validation, the rest test, of one seed-42 shuffle; the archive's own five splits are not used.
* per-molecule parts: ``rmd17_<molecule>_train_01.npz`` and ``_test_01.npz``, 1,000 frames each. Split: 950 train
  and 50 validation of the train file by the same shuffle; the whole test file is test. Errors are then over 1,000
  test frames, not 99,000.

Arrays: nuclear_charges (N,); coords (F,N,3) Å; energies (F,) kcal/mol; forces (F,N,3) kcal/(mol Å), true forces.
Converted here, once, with the official factor (:data:`jmp_lib.units.KCAL_PER_MOL`) to eV and eV/Å. Level: PBE.
torch_geometric's own class is not asked: it rounds energies of -97,000 kcal/mol to float32 (steps of 0.3 meV).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import hill
from jmp_lib.data.formats import folder_of, folders_of, known, matching, read_npz
from jmp_lib.data.structures import StructureSet
from jmp_lib.files import reading

# formula of each molecule: the check that a file is the molecule it is named for
FORMULAS = {"aspirin": "C9H8O4", "azobenzene": "C12H10N2", "benzene": "C6H6", "ethanol": "C2H6O",
            "malonaldehyde": "C3H4O2", "naphthalene": "C10H8", "paracetamol": "C8H9NO2", "salicylic": "C7H6O3",
            "toluene": "C7H8", "uracil": "C4H4N2O2"}
MOLECULES = tuple(FORMULAS)
N_TRAIN, N_VAL = 950, 50

# the data set's author serves split 01 to 05 in parts here; the archive's address is in facts/downloads.csv
PARTS_URL = "https://github.com/andersx/rmd17-npz (folder rmd17-npz)"
_SHAPES = {"nuclear_charges": ("atoms",), "energies": ("frames",), "coords": ("frames", "atoms", 3),
           "forces": ("frames", "atoms", 3)}  # fmt: skip


def mend(molecule: str, root: str | Path = "DATA_ROOT") -> str:
    """Where the file of a molecule comes from and where to put it."""
    folder = Path(root) if Path(root).name == "npz_data" else folder_of("rmd17", root)
    return (f"unpack rmd17_{molecule}.npz from rmd17.tar.bz2 in {source_url('rMD17', 'official JMP')}, or get its "
            f"_train_01 and _test_01 parts from {PARTS_URL}, and put it in {folder}")


def find(molecule: str, root: str | Path) -> list[Path]:
    """The archive's file of a molecule, else its train and test parts."""
    known("rMD17 has no molecule", molecule, MOLECULES)
    folders = folders_of("rmd17", root, ("", "npz_data", "rmd17/npz_data", "raw/rmd17/npz_data"))
    for names in ([f"rmd17_{molecule}.npz"], [f"rmd17_{molecule}_{part}_01.npz" for part in ("train", "test")]):
        there = [matching(name, folders) for name in names]
        if all(there):
            return [path for (path,) in there]
        if any(there):
            raise FileNotFoundError(f"{next(filter(None, there))[0].parent / names[there.index([])]} is "
                                    f"missing; {mend(molecule, root)}")
    raise FileNotFoundError(f"no rMD17 file of {molecule} in {root}; {mend(molecule, root)}")


def load(molecule: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All frames at hand of a molecule with energy (eV) and forces (eV/Å), and their split (rows of the set).

    Of the two parts, the frames of the test file follow those of the train file. ``ValueError`` when the parts
    share frames.
    """
    paths, advice = find(molecule, root), mend(molecule, root)
    parts, files = [read_arrays(path, molecule, advice) for path in paths], " and ".join(path.name for path in paths)
    if any(not np.array_equal(part["nuclear_charges"], parts[0]["nuclear_charges"]) for part in parts):
        raise ValueError(f"{files} list their atoms in different orders; {advice}")
    if len(parts) > 1 and all("old_indices" in part for part in parts):
        if np.intersect1d(*(part["old_indices"] for part in parts)).size:
            raise ValueError(f"{files} share frames, so one is not what its name says; {advice}")
    pos, energy, forces = (np.concatenate([part[key] for part in parts]) for key in ("coords", "energies", "forces"))
    n_frames, n_atoms = pos.shape[:2]
    try:
        data = StructureSet.from_arrays(
            f"rMD17 {molecule}", np.full(n_frames, n_atoms),
            pos.reshape(-1, 3), np.tile(parts[0]["nuclear_charges"], n_frames),
            description=f"published rMD17 {molecule} (PBE/def2-SVP), {n_frames} frames of {files}",
            forces=forces.reshape(-1, 3) * units.KCAL_PER_MOL, scalars={"energy": energy * units.KCAL_PER_MOL},
            group=np.zeros(n_frames, dtype=np.int64), group_names=[molecule], where=files)  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    if len(parts) == 1:
        return data, splits.rmd17(n_frames, N_TRAIN, N_VAL)
    n_file = len(parts[0]["coords"])
    n_train = N_TRAIN if n_file >= N_TRAIN + N_VAL else int(n_file * N_TRAIN / (N_TRAIN + N_VAL))
    order = splits.shuffled(n_file)
    return data, splits.Split(order[:n_train], order[n_train : N_TRAIN + N_VAL], np.arange(n_file, n_frames))


def read_arrays(path: str | Path, molecule: str, advice: str) -> dict[str, np.ndarray]:
    """Arrays of one original file as they are (see the module), which is that of ``molecule``; with ``old_indices``
    (F,), frame numbers of the original MD17, where the file has them."""
    raw = read_npz(path, _SHAPES, mend=advice)
    with reading(path, advice):
        if (found := hill(raw["nuclear_charges"])) != FORMULAS[molecule]:
            raise ValueError(f"it has {found} where {molecule} is {FORMULAS[molecule]}")
    return raw
