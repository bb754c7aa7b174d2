"""The published SPICE conformations: solvated amino acids and dipeptides, from the official or the upstream HDF5.

One group per molecule: ``atomic_numbers`` (N,), ``conformations`` (F,N,3) bohr, ``dft_total_energy`` and
``formation_energy`` (F,) Hartree, ``dft_total_gradient`` (F,N,3) Hartree/bohr, ``smiles``, ``subset``. The file holds
the gradient: force = - gradient. Converted here, once, with the official factors (:mod:`jmp_lib.units`) to Å, eV and
eV/Å. Labels: ``energy`` (total), ``formation_energy`` (the official loader's target) and ``forces``; ``sid`` is
molecule/conformer, ``group`` the molecule. Order: molecules by name, conformers as stored, which the split counts on:
all of them shuffled (seed 42), 80/10/10. Level: ωB97M-D3BJ/def2-TZVPPD.

Looked for in ``data_root`` and ``data_root/spice``: ``solvated_amino_acids.h5`` or ``dipeptides.h5`` (official), then
any ``SPICE*.hdf5`` that has the subset (upstream; :func:`cut` keeps the needed part of it).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.collect import make_structure, part_name, screened, to_set
from jmp_lib.data.files import check_head
from jmp_lib.data.structures import StructureSet
from jmp_lib.facts import downloads
from jmp_lib.facts import task as task_facts

# part of SPICE -> how its subset field begins (a version follows: v1.1; dipeptides v1.2, in releases 2.x v1.3)
SUBSETS = {
    "solvated_amino_acids": "SPICE Solvated Amino Acids Single Points Dataset",
    "dipeptides": "SPICE Dipeptides Single Points Dataset",
}
_FIELDS = ("atomic_numbers", "conformations", "dft_total_energy", "formation_energy", "dft_total_gradient")
_MAGIC = b"\x89HDF\r\n\x1a\n"


def check_subset(subset: str) -> None:
    """Raise ``ValueError`` unless ``subset`` is one of the two."""
    if subset not in SUBSETS:
        raise ValueError(f"{subset!r} is no part of SPICE used here; the parts are {', '.join(SUBSETS)}")


def mend(subset: str | None, data_root: str | Path = "DATA_ROOT") -> str:
    """Where SPICE comes from and where to put it."""
    rows = downloads()
    row = rows[(rows["dataset"] == "SPICE") & (rows["file"] == "SPICE-1.1.4.hdf5")].iloc[0]
    root = Path(data_root)
    folder = root if root.name == "spice" else root / "spice"
    wanted = f", of which only {subset} is read" if subset else ""
    return f"get {row['file']} from {row['url']}{wanted}, and put it in {folder}"


def find_file(subset: str, data_root: str | Path) -> Path:
    """The file that has ``subset``; raises ``FileNotFoundError`` (one sentence with the mend) when none has."""
    check_subset(subset)
    root = Path(data_root).expanduser()
    folders = (root, root / "spice")
    names = (f"{subset}.h5", f"{subset}.hdf5", f"SPICE_{subset}.hdf5", f"SPICE_{subset}.h5")
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    for folder in folders:
        for path in sorted([*folder.glob("SPICE*.hdf5"), *folder.glob("SPICE*.h5")]):
            if next(_molecules(path, subset), None):
                return path
    raise FileNotFoundError(f"no SPICE file with {subset} in {root}; {mend(subset, data_root)}")


def read(path: str | Path, subset: str | None = None, rejected: list[str] | None = None) -> Iterator[dict]:
    """Conformations of one file, molecule by molecule, with energy, formation_energy (eV) and forces (eV/Å).

    subset: only this part (None: all that is there). rejected: gets the reason for each conformation that cannot be
    used, which is then left out. Raises ``FileNotFoundError`` or ``ValueError``, one sentence with the mend.
    """
    yield from screened(_items(Path(path), subset), str(path), rejected)


def load_spice(subset: str, data_root: str | Path) -> tuple[StructureSet, splits.Split]:
    """All conformations of ``subset`` and their split (rows of the set). Raises as :func:`find_file`, :func:`read`."""
    path = find_file(subset, data_root)
    total = int(task_facts(f"spice_{subset}")["n_total"])
    data = to_set(f"SPICE {subset}", read(path, subset), where=str(path))
    description = f"published SPICE {subset} (wB97M-D3BJ/def2-TZVPPD), {len(data)} conformations, from {path.name}"
    data = data.renamed(part_name(data.name, len(data), total), description)
    return data, splits.eighty_ten_ten(len(data))


def cut(path: str | Path, subset: str, target: str | Path) -> int:
    """Copies the molecules of ``subset``, with the fields read here, to the new file ``target``; returns how many.

    The file appears under its name only when it is whole. Raises as :func:`read`.
    """
    check_subset(subset)
    target = Path(target)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    n_molecules = 0
    try:
        with h5py.File(unfinished, "w") as made:
            for name, group in _molecules(Path(path), subset):
                kept = made.create_group(name)
                for field in (*_FIELDS, "smiles", "subset"):
                    if field in group:
                        group.copy(field, kept)
                n_molecules += 1
        if not n_molecules:
            raise ValueError(f"{path} has no molecule of {subset}; {mend(subset, target.parent)}")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return n_molecules


def _molecules(path: Path, subset: str | None) -> Iterator[tuple[str, h5py.Group]]:
    """Names, in order, and open groups of the molecules of ``subset``."""
    advice = mend(subset, path.parent)
    if subset is not None:
        check_subset(subset)
    check_head(path, "an HDF5 file", _MAGIC, mend=advice)
    try:
        with h5py.File(path, "r") as file:
            for name in sorted(file):
                group = file[name]
                if not isinstance(group, h5py.Group) or "conformations" not in group:
                    raise ValueError(
                        f"{path} is not a SPICE file: its entry {name!r} is no molecule with conformations; {advice}"
                    )
                if subset is None or _is_of(group, subset, path, advice):
                    yield name, group
    except (OSError, RuntimeError, KeyError):
        raise ValueError(f"{path} is damaged (cut short or altered); {advice}") from None


def _is_of(group: h5py.Group, subset: str, path: Path, advice: str) -> bool:
    """Whether a molecule belongs to ``subset``; one that does not say so belongs to the part its file is named for."""
    if "subset" not in group:
        if subset in path.name:
            return True
        raise ValueError(f"{path}: molecule {group.name} does not say which subset it is of; {advice}")
    said = np.ravel(group["subset"][()])[0]
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return re.fullmatch(re.escape(SUBSETS[subset]) + r"( v[\d.]+)?", said) is not None


def _items(path: Path, subset: str | None) -> Iterator:
    row = 0
    for name, group in _molecules(path, subset):
        missing = [field for field in _FIELDS if field not in group]
        if missing:
            raise ValueError(f"{path}: molecule {name} has no {', '.join(missing)}; {mend(subset, path.parent)}")
        try:
            raw = {field: group[field][()] for field in _FIELDS}
        except (OSError, RuntimeError):
            raise ValueError(f"{path} is damaged (molecule {name}); {mend(subset, path.parent)}") from None
        _check_unit(group, path)
        n_frames, n_atoms = len(raw["conformations"]), raw["atomic_numbers"].size
        for field in _FIELDS[1:]:
            shape = (n_frames,) if field.endswith("energy") else (n_frames, n_atoms, 3)
            if raw[field].shape != shape:
                raise ValueError(
                    f"{path}: molecule {name}, field {field!r} has shape {raw[field].shape} where {n_frames} "
                    f"conformations of {n_atoms} atoms need {shape}; {mend(subset, path.parent)}"
                )
        for i in range(n_frames):
            yield f"{name}/{i}", lambda name=name, raw=raw, i=i, row=row: _conformation(name, raw, i, row)
            row += 1
    if not row:
        raise ValueError(f"{path} has no conformation{f' of {subset}' if subset else ''}; {mend(subset, path.parent)}")


def _check_unit(group: h5py.Group, path: Path) -> None:
    said = group["conformations"].attrs.get("units", "bohr")
    said = said.decode() if isinstance(said, bytes) else str(said)
    if said != "bohr":
        raise ValueError(f"{path}: molecule {group.name} has its conformations in {said!r}, where SPICE has bohr")


def _conformation(name: str, raw: dict[str, np.ndarray], i: int, row: int) -> dict:
    return make_structure(
        raw["conformations"][i].astype(np.float64) * units.BOHR,
        raw["atomic_numbers"],
        row,
        forces=-raw["dft_total_gradient"][i].astype(np.float64) * units.HARTREE_PER_BOHR,
        energy=raw["dft_total_energy"][i] * units.HARTREE,
        formation_energy=raw["formation_energy"][i] * units.HARTREE,
        sid=f"{name}/{i}",
        group=name,
    )
