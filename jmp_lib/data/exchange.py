"""Files that ASE reads and pymatgen objects as ``ase.Atoms``, and these as structures.

Units are eV, Å, eV/Å. Scalar targets and texts (``sid``, ``group``) come from ``info``. Pickles are never opened.
What has two meanings is refused: labels for species, shared or partly empty sites, tags that are no tags of OC20.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from jmp_lib.data.collect import DISORDERED, check_structure, number_of
from jmp_lib.data.door import DTYPES
from jmp_lib.data.formats import opened
from jmp_lib.data.xyz import read_frames, read_lines

_REFUSED = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth", ".traj")
_KNOWN = "known are extended XYZ, ASE databases, CIF and POSCAR"
_ENDINGS = (".xz", ".gz", ".bz2")


def _rows_of(path: Path) -> Iterator[Atoms]:
    """Rows of an ASE database; what its ``data`` and key-value pairs hold is in ``info``."""
    from ase.db import connect

    kind, magic = ("json", b"{") if path.suffix.lower() == ".json" else ("db", b"SQLite format 3\0")
    with opened(path, f"an ASE database ({path.suffix})", magic, mend=_KNOWN):
        for row in connect(path, type=kind, use_lock_file=False).select(sort="id"):
            atoms = row.toatoms()
            atoms.info.update({**row.data, **row.key_value_pairs})
            yield atoms


def _of_cif(path: Path) -> Iterator[Atoms]:
    """Structures of a CIF, as ASE makes them; ``ValueError`` names a site that is shared, partly empty or of no element."""
    from ase.io.cif import parse_cif

    text = io.StringIO("".join(read_lines(path, mend=_KNOWN)))
    with opened(path, "a CIF", mend=_KNOWN), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Wrong number")  # ASE leaves out such an atom
        for block in parse_cif(text):
            if not block.has_structure():
                continue
            labels = block.get("_atom_site_label") or block["_atom_site_type_symbol"]
            shares = block.get("_atom_site_occupancy") or [1] * len(labels)
            for label, symbol, share in zip(labels, block.get("_atom_site_type_symbol") or labels, shares):
                try:
                    number_of(re.match(r"[A-Za-z]*", str(symbol))[0])
                except ValueError as error:
                    raise ValueError(f"{path}: data_{block.name}, site {label}: {error}") from None
                if isinstance(share, (int, float)) and abs(share - 1) > 1e-3:
                    raise ValueError(f"{path}: data_{block.name}, {DISORDERED.format(f'{label} (occupancy {share})')}")
            sites = block.get_unsymmetrized_structure()
            sites.pbc = sites.cell.rank == 3
            check_structure(from_ase(sites), f"{path}: data_{block.name}, sites")
            yield block.get_atoms(fractional_occupancies=False)


def read_atoms(path: Path) -> list[Atoms]:
    """Every frame of a file, as :func:`iter_atoms`."""
    return list(iter_atoms(path))


def iter_atoms(path: Path) -> Iterator[Atoms]:
    """The frames of a file: (extended) XYZ, an ASE database (its data and key-value pairs in ``info``) and CIF, one in memory
    at a time; POSCAR, what else ASE reads.

    Raises ``FileNotFoundError`` or ``ValueError`` with one sentence naming the file.
    """
    ending = ending_of(path)
    if ending in _REFUSED:
        raise ValueError(f"{path}: {ending} files are not read (they may run code or lack meaning); write extended XYZ "
                         "with ase.io.write('mine.extxyz', frames)")
    if ending in (".xyz", ".extxyz") or (ending not in (".db", ".json", ".cif") and not is_poscar(path) and _counts_atoms(path)):
        frames = read_frames(path, mend=_KNOWN)
    elif ending in (".db", ".json"):
        frames = _rows_of(path)
    elif ending == ".cif":
        frames = _of_cif(path)
    else:
        from ase.io import read

        vasp = ending in (".poscar", ".vasp") or is_poscar(path)
        with opened(path, "a file of structures", mend=_KNOWN):
            if vasp:
                _check_counts(path)
            if ending in (".pdb", ".ent"):
                _check_elements(path)
            try:
                frames = read(path, index=":", format="vasp" if vasp else None)
            except KeyError as error:  # a symbol that ASE does not know
                number_of(str(error.args[0]))
                raise
    empty = True
    for atoms in frames:
        empty = False
        yield atoms
    if empty:
        raise ValueError(f"{path} holds no structure; {_KNOWN}")


def _check_counts(path: Path) -> None:
    """``ValueError`` for a POSCAR that says that it has more atoms than lines: ASE takes memory for what it says."""
    lines = list(read_lines(path, mend=_KNOWN))
    for line in lines[5:7]:  # of which the second has the numbers where the first has the elements
        stated = sum(int(word) for word in line.split() if word.isdigit())
        if stated > len(lines):
            raise ValueError(f"{path} says that it has {stated} atoms, in {len(lines)} lines; {_KNOWN}")


def _check_elements(path: Path) -> None:
    """``ValueError`` for a PDB with an atom whose element does not stand in its columns: ASE takes the name CA for calcium."""
    for at, line in enumerate(read_lines(path, mend=_KNOWN), 1):
        if line.startswith(("ATOM", "HETATM")):
            try:
                number_of(line[76:78].strip().capitalize())
            except ValueError as error:
                raise ValueError(f"{path}: line {at}, columns 77 and 78: {error}") from None


def ending_of(path: Path) -> str:
    """Ending in lower case, below that of a compressed file: ``.cif`` of ``A.CIF.gz``."""
    return ([""] + [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _ENDINGS])[-1]


def _counts_atoms(path: Path) -> bool:
    """Whether a file that exists begins like XYZ: a number of atoms, a comment, an atom with its place."""
    if not path.is_file():
        return False
    try:
        head = list(islice((line.split() for line in read_lines(path, mend=_KNOWN)), 8))
    except ValueError:
        return False
    while head and not head[0]:
        del head[0]
    return len(head) > 2 and len(head[0]) == 1 and head[0][0].isdigit() and len(head[2]) >= 4 and head[2][0].isalnum()


def is_poscar(path: Path) -> bool:
    """Whether the name says that this is a POSCAR or CONTCAR, which have no ending."""
    return path.name.upper().startswith(("POSCAR", "CONTCAR"))


def to_atoms(item, where: str) -> Atoms:
    """A copy of an ``ase.Atoms`` (with its results), or the Atoms of a pymatgen Structure or Molecule; else ``ValueError``."""
    if isinstance(item, Atoms):
        made = item.copy()
        if results := getattr(item.calc, "results", None):
            made.calc = SinglePointCalculator(made)
            made.calc.results.update(results)  # those of other codes have names that ASE does not take
        return made
    if not (hasattr(item, "sites") and hasattr(item, "composition")):
        raise ValueError(f"{where} is a {type(item).__name__}, not an ase.Atoms or a pymatgen structure")
    numbers = []
    for place, site in enumerate(item.sites):
        (element, share), *others = site.species.items()
        if others or abs(share - 1) > 1e-3:
            raise ValueError(f"{where}: {DISORDERED.format(f'{place} ({site.species_string})')}")
        try:
            numbers.append(number_of(getattr(getattr(element, "element", element), "value", element.symbol)))  # D has symbol H
        except ValueError as error:
            raise ValueError(f"{where}: site {place}: {error}") from None
    lattice = getattr(item, "lattice", None)
    return Atoms(numbers, item.cart_coords, cell=lattice and lattice.matrix, pbc=lattice and lattice.pbc)


def from_ase(atoms: Atoms, number: int = 0, where: str = "the structure") -> dict:
    """The structure of an ``ase.Atoms``; ``number`` is its id when ``info`` has none that is a number.

    Tags that are all 0, as ASE's builders give them, are none: 2. Raises ``ValueError`` naming ``where`` for shared or
    partly empty sites and for tags that cannot be those of a slab: 0 must lie below 1 and 2.
    """
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            fixed[constraint.index] = True
    for site, share in _shares(atoms):
        raise ValueError(f"{where}: {DISORDERED.format(f'{site} ({share})')}")
    structure = {
        "pos": atoms.positions.astype(np.float32),
        "atomic_numbers": atoms.numbers.astype(np.int64),
        "cell": _whole_cell(atoms),
        "pbc": np.array(atoms.pbc),
        "tags": _tags(atoms, where),
        "fixed": fixed,
        "id": number,
    }
    for key in ("energy", "forces"):
        value = getattr(atoms.calc, "results", {}).get(key)
        if value is not None:
            try:
                value = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"{where}: its {key} {str(value)[:40]!r} is no number; mend it or leave it out") from None
            structure[key] = value.astype(np.float32) if key == "forces" else float(value.item()) if value.size == 1 else value
    for key, value in atoms.info.items():
        plain = not isinstance(value, (list, tuple, Mapping)) and np.ndim(value) == 0
        kind = np.asarray(value).dtype.kind if plain else "several"
        if key == "id":
            if kind in ("i", "u") and 0 <= value < 2**62:
                structure["id"] = int(value)
            elif value is not None and kind != "b":
                text = value.tolist() if hasattr(value, "tolist") else value
                structure["sid"] = text if isinstance(text, str) else json.dumps(text, default=str)
        elif isinstance(value, str):
            structure.setdefault(key, value)
        elif kind in ("i", "u", "f") and key not in DTYPES:
            structure.setdefault(key, float(value))
    return structure


def _whole_cell(atoms: Atoms) -> np.ndarray:
    """The cell (3,3) Å; a vector that builders of chains and sheets leave at zero, where nothing repeats, is given a length."""
    cell, missing = np.array(atoms.cell, dtype=np.float64), ~atoms.cell.array.any(axis=1)
    if not atoms.pbc.any() or not missing.any() or (missing & atoms.pbc).any():
        return cell
    return np.where(missing[:, None], atoms.cell.complete().array * (20.0 + 2.0 * np.ptp(atoms.positions)), cell)


def _shares(atoms: Atoms) -> Iterator[tuple]:
    """(site, what ASE says of it) for the sites that are shared or partly empty: of a CIF, or of a protein's file."""
    known = atoms.info.get("occupancy")
    for site, shares in known.items() if isinstance(known, Mapping) else ():
        if len(shares) != 1 or abs(sum(shares.values()) - 1) > 1e-3:
            yield site, shares
    filled = atoms.arrays.get("occupancy", np.zeros(0))
    if filled.dtype.kind in "iuf" and filled.any():  # all 0 where a program does not know
        yield from ((f"{site} ({atoms.symbols[site]})", filled[site]) for site in np.flatnonzero(np.abs(filled - 1) > 1e-3))


def _tags(atoms: Atoms, where: str) -> np.ndarray:
    """Tags (N,) int64 as OC20 has them. Its 0, below the surface, decides what the network sees; other tags are refused."""
    tags = atoms.arrays.get("tags", np.full(len(atoms), 2))
    if tags.dtype.kind not in "iufb":
        raise ValueError(f"{where}: its tags are {tags.dtype}, not numbers; leave them out")
    if not tags.any():
        return np.full(len(atoms), 2)
    below = tags == 0
    if below.any():
        lies = atoms.cell.rank == 3 and atoms.pbc.any()
        if lies:
            height = np.sort(atoms.get_scaled_positions(wrap=True)[:, 2])
            gaps = np.diff(height, append=height[0] + 1)
            height = (atoms.get_scaled_positions(wrap=False)[:, 2] - height[(gaps.argmax() + 1) % len(height)] + 1e-6) % 1
            lies = height[below].mean() < height[~below].mean()
        if not lies:
            raise ValueError(f"{where}: its tags are not those of OC20 (0 below the surface of a slab, 1 surface, 2 adsorbate), but "
                             "layers of a builder or marks of your own; set them so, or atoms.set_tags(2) for none")  # fmt: skip
    return tags if tags.dtype.kind == "f" and (tags % 1 != 0).any() else tags.astype(np.int64)
