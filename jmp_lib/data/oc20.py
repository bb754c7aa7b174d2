"""OC20 S2EF: adsorbates on catalyst surfaces, in every form it comes in.

* the release: ``N.extxyz.xz`` (frames with total energies, eV, and forces, eV/Å) beside ``N.txt.xz`` (a line for
  each frame: ``random<sid>,frame<fid>,<reference energy>``); adsorption energy = total energy - reference energy.
* LMDB made of it by the Open Catalyst download script with ``--ref-energy``: y is the adsorption energy already;
  the total energy is y + ``oc20_ref.pkl["random<sid>"]``.
* relaxation trajectories of ASE, ``random<sid>.traj``: total energies; adsorption energies need the references.

Forces are true forces, those of fixed atoms included. Nothing is converted: the files are in eV and Å. The paper
trains on adsorption energies. Tags: 0 below the surface, 1 surface, 2 adsorbate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jmp_lib.data import graph_records
from jmp_lib.data.check_structure import keep, refuse
from jmp_lib.data.sources import source_url
from jmp_lib.data.unpickle import load_pickle
from jmp_lib.data.xyz_frames import read_lines, read_xyz

ENERGIES = ("adsorption", "total", "stored")
ADSORBATE_ELEMENTS = (1, 6, 7, 8)
MEND = f"get it anew from {source_url('OC20', 'pre-training')} (or a smaller part of OC20 S2EF) and unpack it"
REFERENCES = "the reference energies are in oc20_ref.pkl"


def read(
    path: str | Path,
    *,
    energy: str = "adsorption",
    references: str | Path | dict | None = None,
    rejected: list[str] | None = None,
) -> Iterator[dict]:
    """Structures of OC20 one at a time: energy eV, forces eV/Å, cell, tags, fixed; group "random<sid>",
    sid "random<sid>/<frame>".

    path: an .extxyz(.xz), .lmdb, .traj or .pkl file, or a folder of them. energy: "adsorption", "total", or
    "stored" for what the file holds (total in .extxyz and .traj, adsorption in LMDB).
    references: oc20_ref.pkl or its contents ({"random<sid>": eV}), for LMDB read as total and trajectories read as
    adsorption energies. rejected: a list that takes the reasons of the structures left out; without it the first
    unsound structure raises ``ValueError``, as a damaged file always does. ``FileNotFoundError``: nothing there.
    """
    if energy not in ENERGIES:
        raise ValueError(f"energy must be one of {', '.join(ENERGIES)}, not {energy!r}")
    references = load_references(references) if isinstance(references, (str, Path)) else references
    files = _files(Path(path))
    row = 0
    for file in files:
        if file.suffix == ".traj":
            structures = _read_traj(file, energy, references, rejected)
        elif ".extxyz" in file.suffixes:
            structures = _read_release(file, energy, rejected)
        else:
            structures = _read_lmdb(file, energy, references, rejected)
        for structure in structures:
            yield structure | {"id": row}
            row += 1


def load_references(path: str | Path) -> dict[str, float]:
    """Reference energies {"random<sid>": eV} of oc20_ref.pkl, read without running anything in it."""
    mend = f"get oc20_ref.pkl from {source_url('OC20', 'reference energies')}"
    found = load_pickle(path, mend=mend)
    if not isinstance(found, dict) or not all(isinstance(value, float) for value in found.values()):
        raise ValueError(f"{path} is not a table of reference energies by name; {mend}")
    return found


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
        raise ValueError("which atoms are the adsorbate cannot be told from elements and order")
    tags = np.where(fixed, 0, 1)
    tags[len(slab) :] = 2
    return tags.astype(np.int64)


def _files(path: Path) -> list[Path]:
    """The files at ``path``; in a folder the release's go before LMDB and trajectories."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {MEND}")
    if not path.is_dir() or (path / "data.mdb").is_file():
        return [path]
    for pattern in ("*.extxyz.xz", "*.extxyz", "*.lmdb", "*.traj"):
        if found := sorted(path.glob(pattern)):
            return found
    raise FileNotFoundError(f"{path} has no .extxyz.xz, .lmdb or .traj file; {MEND}")


def _read_release(file: Path, energy: str, rejected) -> Iterator[dict]:
    """Frames of one .extxyz(.xz) with the lines of its .txt(.xz)."""
    text = file.with_name(file.name.replace(".extxyz", ".txt"))
    if not text.is_file() and text.with_suffix("").is_file():
        text = text.with_suffix("")
    if not text.is_file():
        if energy == "adsorption":
            raise FileNotFoundError(f"{text} is missing beside {file.name}: it has the reference energies; {MEND}")
        for row, frame in enumerate(read_xyz(file, mend=MEND)):
            yield from _kept(_of_frame, frame, f"{file}: frame {row}", rejected)
        return
    lines = read_lines(text, mend=MEND)
    count = -1
    for count, frame in enumerate(read_xyz(file, mend=MEND)):
        where = f"{file}: frame {count}"
        line = next(lines, None)
        if line is None:
            raise ValueError(f"{text} has {count} lines, fewer than {file.name} has frames; {MEND}")
        words = re.fullmatch(r"random(\d+),frame(\d+)(?:,(-?[\d.]+(?:[eE][-+]?\d+)?))?", line.strip())
        if not words:
            raise ValueError(f"{text}: line {count + 1} is {line[:60]!r}, not random<sid>,frame<fid>,<energy>; {MEND}")
        sid, fid, reference = words.groups()
        if energy == "adsorption" and reference is None:
            raise ValueError(f"{text}: line {count + 1} has no reference energy; read total energies")
        for structure in _kept(_of_frame, frame, where, rejected):
            if energy == "adsorption":
                structure["energy"] = structure["energy"] - float(reference)
            yield structure | {"group": f"random{sid}", "sid": f"random{sid}/{fid}"}
    if count < 0 or next(lines, None) is not None:
        raise ValueError(f"{file} has {count + 1} frames, fewer than {text.name} has lines; {MEND}")


def _kept(make, source, where: str, rejected) -> Iterator[dict]:
    """The structure ``make(source)`` where it is sound; else none, and its reason noted or raised."""
    try:
        structure = make(source)
    except ValueError as error:
        refuse(f"{where}: {error}", rejected)
        return
    if keep(structure, where, rejected):
        yield structure


def _of_frame(frame) -> dict:
    """A structure of an XYZ frame; energy is the total energy of the file."""
    missing = [key for key in ("forces", "tags", "pos") if key not in frame.columns]
    missing += [key for key in ("energy", "Lattice") if key not in frame.info]
    if missing:
        raise ValueError(f"there is no {', '.join(missing)}, which frames of OC20 S2EF have")
    n = len(frame.atomic_numbers)
    return {
        "pos": frame.columns["pos"].astype(np.float32),
        "atomic_numbers": frame.atomic_numbers,
        "cell": np.array(frame.info["Lattice"], np.float64).T,  # ASE's parser has the vectors in columns
        "pbc": np.ones(3, bool),
        "tags": frame.columns["tags"].astype(np.int64),
        "fixed": ~frame.columns.get("move_mask", np.ones(n, bool)),
        "energy": np.float64(frame.info["energy"]),
        "forces": frame.columns["forces"].astype(np.float32),
    }


def _read_lmdb(file: Path, energy: str, references: dict | None, rejected) -> Iterator[dict]:
    """Records of an LMDB of adsorption energies (or a pickled list of them)."""
    if energy == "total" and references is None:
        raise ValueError(f"{file} holds adsorption energies; for total energies give references: {REFERENCES}")
    for where, structure in graph_records.read_structures(file, mend=MEND, rejected=rejected):
        if not structure["pbc"].any() or "sid" not in structure:
            raise ValueError(f"{where} has no cell or no sid, so it is not of OC20; {MEND}")
        name = f"random{structure['group'].removeprefix('random')}"
        structure |= {"group": name, "sid": f"random{structure['sid'].removeprefix('random')}"}
        if energy == "total":
            if name not in references:
                refuse(f"{where}: {name} has no reference energy; {REFERENCES}", rejected)
                continue
            structure["energy"] = structure["energy"] + references[name]
        yield structure


def _read_traj(file: Path, energy: str, references: dict | None, rejected) -> Iterator[dict]:
    """Frames of an ASE relaxation trajectory named random<sid>.traj; tags are derived where all are 0."""
    from ase.io.trajectory import Trajectory
    from ase.io.ulm import InvalidULMFileError

    if energy == "adsorption" and (references is None or file.stem not in references):
        raise ValueError(
            f"{file} holds total energies; read it with energy='total', or give references that have "
            f"{file.stem!r}: {REFERENCES}"
        )
    shift = references[file.stem] if energy == "adsorption" else 0.0
    damaged = f"{file} is not a sound ASE trajectory (cut short, altered, or another kind of file); {MEND}"
    try:
        trajectory = Trajectory(file)
    except (InvalidULMFileError, OSError, ValueError, KeyError, EOFError, IndexError):
        raise ValueError(damaged) from None
    for count in range(len(trajectory)):
        try:
            atoms = trajectory[count]
        except (OSError, ValueError, KeyError, EOFError, IndexError, TypeError):
            raise ValueError(damaged) from None
        for structure in _kept(_of_atoms, atoms, f"{file}: frame {count}", rejected):
            structure["energy"] = structure["energy"] - shift
            yield structure | {"group": file.stem, "sid": f"{file.stem}/{atoms.info.get('frame', count)}"}


def _of_atoms(atoms) -> dict:
    """A structure of ASE atoms with a calculator that holds total energy and forces."""
    results = atoms.calc.results if atoms.calc is not None else {}
    if "energy" not in results or "forces" not in results:
        raise ValueError("there is no energy or there are no forces")
    fixed = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        if constraint.todict()["name"] == "FixAtoms":
            fixed[constraint.index] = True
    numbers, tags = atoms.get_atomic_numbers().astype(np.int64), atoms.get_tags().astype(np.int64)
    if not tags.any():
        try:
            tags = derive_tags(numbers, fixed)
        except ValueError as error:
            raise ValueError(f"all tags are 0, and {error} (the S2EF files and LMDB have tags)") from None
    return {
        "pos": atoms.get_positions().astype(np.float32),
        "atomic_numbers": numbers,
        "cell": np.asarray(atoms.cell, np.float64),
        "pbc": np.asarray(atoms.pbc, bool),
        "tags": tags,
        "fixed": fixed,
        "energy": np.float64(results["energy"]),
        "forces": np.asarray(results["forces"], np.float32),
    }
