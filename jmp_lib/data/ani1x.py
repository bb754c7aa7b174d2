"""ANI-1x: molecules of H, C, N, O; ``ani1x-release.h5``, graph records of it (LMDB, pickled lists),
or an npz of frames.

One group for each formula: ``coordinates`` (F,N,3) Å, ``atomic_numbers`` (N,), ``wb97x_dz.energy`` (F,) Hartree and
``wb97x_dz.forces`` (F,N,3) Hartree/Å, true forces. Converted here, once, with ASE's Hartree as in the official
script. A frame without wb97x_dz labels has NaN there and is left out, as in the official script.

The npz has natoms, energy (F,) Hartree, formula and, of all atoms one after the other, atomic_numbers, coordinates Å
and forces Hartree/Å. Read as well: a file of COMP6 at the same theory (``s66x8_wb97x6-31gd.h5``, which says its
theory), where below one group each molecule has ``species`` (symbols), ``coordinates``, ``energies`` and ``forces``
in these units.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data.apart import Asked
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, number_of, screened
from jmp_lib.data.formats import check_shapes, frames_of, open_h5, read_npz, slices
from jmp_lib.data.graph_records import read_graphs

MEND = f"get ani1x-release.h5 from {source_url('ANI-1x', 'pre-training')}"
THEORY = ("wb97x/6-31g*", "wb97x/6-31g(d)")  # one basis, two spellings
ENERGY, FORCES = "wb97x_dz.energy", "wb97x_dz.forces"
MIN_ATOMS = 4  # formulas with fewer atoms are left out of the official split
N_HELD_OUT = 495_600  # frames after which a held-out part of the official split is full


def read(path: str | Path, *, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of ANI-1x one at a time: energy eV (total), forces eV/Å, group formula, sid "formula/frame".

    path: an HDF5 file, an .npz, or an .lmdb or .pkl of graph records. Frames without labels are left out in any case.
    """
    path = Path(path)
    if path.suffix in (".lmdb", ".pkl"):
        return read_graphs(path, "ANI-1x", False, mend=MEND, rejected=rejected)
    return screened(_arrays(path) if path.suffix == ".npz" else _frames(path, rejected), str(path), rejected)


def _make(numbers, formula: str, fid: int, pos, energy, forces) -> dict:
    energy, forces = energy * units.HARTREE_ASE, forces * np.float64(units.HARTREE_ASE)
    return make_structure(pos, numbers, forces=forces, sid=f"{formula}/{fid}", group=formula, energy=energy)


def _frames(path: Path, rejected: list[str] | None) -> Iterator:
    with open_h5(path, mend=MEND) as file:
        names = file.names("")
        if len(names) == 1 and "coordinates" not in (below := file.names(names[0])):
            yield from _of_comp6(file, [f"{names[0]}/{molecule}" for molecule in below])
            return
        for formula in names:
            where = f"group {formula}"
            for fid, (numbers, pos, energy, forces) in enumerate(frames_of(
                    file, formula, ("coordinates", ENERGY, FORCES))):
                if not (np.isnan(energy) or np.isnan(forces).any()):
                    yield f"{where}, frame {fid}", partial(_make, numbers, formula, fid, pos, energy, forces)
                elif rejected is not None:
                    rejected.append(f"{path}: {where}, frame {fid}: no wb97x_dz label (NaN)")


def _of_comp6(file: Asked, groups: list[str]) -> Iterator:
    shapes = {"coordinates": ("frames", "atoms", 3), "energies": ("frames",),
              "forces": ("frames", "atoms", 3), "species": ("atoms",)}
    for group in groups:
        held = file.arrays(group, [*shapes, "lot"])
        check_shapes(held, shapes)
        if (theory := str(held["lot"].ravel()[0])) not in THEORY:
            raise ValueError(f"group {group} is of {theory}, ANI-1x of {THEORY[0]}")
        numbers = np.array([number_of(symbol) for symbol in held["species"]])
        for fid, frame in enumerate(zip(held["coordinates"], held["energies"], held["forces"], strict=True)):
            yield f"group {group}, frame {fid}", partial(_make, numbers, group, fid, *frame)


def _arrays(path: Path) -> Iterator:
    shapes = {"natoms": ("frames",), "energy": ("frames",), "formula": ("frames",), "atomic_numbers": ("atoms",),
              "coordinates": ("atoms", 3), "forces": ("atoms", 3)}  # fmt: skip
    held = read_npz(path, shapes, counts="natoms", mend=MEND)
    for row, atoms in enumerate(slices(held["natoms"])):
        numbers, pos, forces = (held[key][atoms] for key in ("atomic_numbers", "coordinates", "forces"))
        yield f"frame {row}", partial(_make, numbers, str(held["formula"][row]), row, pos, held["energy"][row], forces)


def split_formulas(sizes: dict[str, tuple[int, int]], *, seed: int = 42,
                   n_held_out: int = N_HELD_OUT) -> tuple[list[str], list[str], list[str]]:
    """Formulas of train, validation and test by the official rule, from {formula: (frames, atoms)}.

    Formulas under 4 atoms leave; the sorted rest is shuffled six times; formulas are taken until ``n_held_out``
    frames are reached, first for test, then for validation; the rest is train. The official shuffle had no seed, so
    its parts cannot be had again; ours are fixed by ``seed``. ``ValueError`` when no formula is left for train.
    """
    names = np.array(sorted(name for name, (_, atoms) in sizes.items() if atoms >= MIN_ATOMS), dtype=object)
    rng = np.random.RandomState(seed)
    for _ in range(6):
        rng.shuffle(names)
    frames = np.cumsum([0, *(sizes[name][0] for name in names)])  # of the first 0, 1, 2, ... formulas
    first = int(np.searchsorted(frames, n_held_out))
    second = int(np.searchsorted(frames, frames[min(first, len(names))] + n_held_out))
    if second >= len(names):
        raise ValueError(f"{len(names)} formulas do not hold two parts of {n_held_out} frames and a train part")
    return names[second:].tolist(), names[first:second].tolist(), names[:first].tolist()
