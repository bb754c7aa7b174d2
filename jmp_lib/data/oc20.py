"""OC20 S2EF: adsorbates on catalyst surfaces, in three forms, all in eV and Å. The paper trains on adsorption energies.

* the release: ``N.extxyz.xz`` (frames with total energies and true forces, those of fixed atoms too) beside
  ``N.txt.xz`` (a line for each frame: ``random<sid>,frame<fid>,<reference energy>``); adsorption energy = total
  energy - reference energy.
* LMDB made of it by the Open Catalyst download script with ``--ref-energy``: y is the adsorption energy.
* an npz of relaxation trajectories (natoms, sid, fid, energy, cell; of all atoms one after the other atomic_numbers,
  pos, force, fixed), a sample of the set with total energies, never mixed with the other forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, screened
from jmp_lib.data.exchange import from_ase, read_frames, read_lines
from jmp_lib.data.formats import read_npz, slices
from jmp_lib.data.graph_records import read_graphs

ADSORBATE_ELEMENTS = (1, 6, 7, 8)
MEND = f"get it anew from {source_url('OC20', 'pre-training')} (or a smaller part of OC20 S2EF) and unpack it"


def read(path: str | Path, *, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of OC20 one at a time: energy eV (adsorption; of relaxations total), forces eV/Å, cell, tags, fixed;
    group "random<sid>", sid "random<sid>/<frame>".

    path: an .extxyz(.xz), .lmdb, .pkl or .npz file.
    """
    path = Path(path)
    if ".extxyz" in path.suffixes or path.suffix == ".npz":
        return screened((_arrays if path.suffix == ".npz" else _release)(path), str(path), rejected)
    return _records(path, rejected)


def derive_tags(atomic_numbers: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Tags (N,) int64 of a slab whose file has none: fixed 0, free 1, adsorbate 2.

    OC20 holds exactly the atoms below the surface fixed and appends the adsorbate (C, H, N, O) to the slab, so the
    free C, H, N, O atoms at the end are the adsorbate. ``ValueError`` where the slab itself has one of these
    elements, or no atom is left: there the order does not tell.
    """
    light = np.isin(atomic_numbers, ADSORBATE_ELEMENTS) & ~fixed
    n_adsorbate = int(np.argmin(light[::-1])) if not light.all() else len(light)
    slab = atomic_numbers[: len(atomic_numbers) - n_adsorbate]
    if n_adsorbate == 0 or len(slab) == 0 or np.isin(slab, atomic_numbers[len(slab) :]).any():
        raise ValueError("it has no tags, and which atoms are the adsorbate cannot be told from elements and order")
    tags = np.where(fixed, 0, 1)
    tags[len(slab) :] = 2
    return tags.astype(np.int64)


def _release(file: Path) -> Iterator:
    """Frames of one .extxyz(.xz) with the lines of its .txt(.xz)."""
    text = file.with_name(file.name.replace(".extxyz", ".txt"))
    if not text.is_file() and text.with_suffix("").is_file():
        text = text.with_suffix("")
    if not text.is_file():
        raise FileNotFoundError(f"{text} is missing beside {file.name}: it has the reference energies; {MEND}")
    for count, (atoms, line) in enumerate(zip_longest(read_frames(file, mend=MEND), read_lines(text, mend=MEND))):
        if line is None:
            raise ValueError(f"{text} has {count} lines, fewer than {file.name} has frames; {MEND}")
        if atoms is None:
            raise ValueError(f"{file} has {count} frames, fewer than {text.name} has lines; {MEND}")
        words = re.fullmatch(r"random(\d+),frame(\d+),(-?[\d.]+(?:[eE][-+]?\d+)?)", line.strip())
        if not words:
            said = line[:60].strip()
            raise ValueError(f"{text}: line {count + 1} is {said!r}, not random<sid>,frame<fid>,<energy>; {MEND}")
        sid, fid, reference = words.groups()
        yield f"frame {count}", partial(_of_atoms, atoms, float(reference), f"random{sid}", fid)


def _records(file: Path, rejected: list[str] | None) -> Iterator[dict]:
    """Records of an LMDB of adsorption energies (or a pickled list of them)."""
    for structure in read_graphs(file, "OC20", True, mend=MEND, rejected=rejected):
        if "sid" not in structure:
            raise ValueError(f"{file}: structure {structure['id']} has no sid, so it is not of OC20; {MEND}")
        yield structure | {key: f"random{structure[key].removeprefix('random')}" for key in ("group", "sid")}


def _arrays(file: Path) -> Iterator:
    """Frames of many relaxations in flat arrays; the tags, which it has not, are derived."""
    shapes = {"natoms": ("frames",), "sid": ("frames",), "fid": ("frames",), "energy": ("frames",),
              "cell": ("frames", 3, 3), "atomic_numbers": ("atoms",), "fixed": ("atoms",), "pos": ("atoms", 3),
              "force": ("atoms", 3)}  # fmt: skip
    held = read_npz(file, shapes, counts="natoms", mend=MEND)

    def make(row: int, atoms: slice) -> dict:
        numbers, fixed, group = (held["atomic_numbers"][atoms].astype(np.int64),
                                 held["fixed"][atoms].astype(bool), f"random{held['sid'][row]}")
        made = make_structure(held["pos"][atoms], numbers, cell=held["cell"][row], forces=held["force"][atoms],
                              group=group, sid=f"{group}/{held['fid'][row]}", energy=held["energy"][row])  # fmt: skip
        return made | {"fixed": fixed, "tags": derive_tags(numbers, fixed)}

    yield from ((f"frame {row}", partial(make, row, atoms)) for row, atoms in enumerate(slices(held["natoms"])))


def _of_atoms(atoms, reference: float, group: str, frame: str) -> dict:
    """A structure of ASE atoms with a calculator that holds total energy and forces;
    tags are derived where all are 0."""
    results = atoms.calc.results if atoms.calc is not None else {}
    missing = [key for key in ("energy", "forces") if key not in results] + ([] if atoms.cell.rank == 3 else ["cell"])
    if missing:
        raise ValueError(f"there is no {', '.join(missing)}, which frames of OC20 S2EF have")
    atoms.info = {}  # what else stands there is no label
    tags = atoms.arrays.pop("tags", np.zeros(len(atoms))).astype(np.int64)
    structure = from_ase(atoms)
    del structure["id"]
    tags = tags if tags.any() else derive_tags(structure["atomic_numbers"], structure["fixed"])
    return structure | {"tags": tags, "energy": structure["energy"] - reference,
                        "group": group, "sid": f"{group}/{frame}"}
