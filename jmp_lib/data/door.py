"""The door: from what a file holds to a sound structure. Every structure passes :func:`check` before a graph is made
of it, whatever it was read from, and nothing checks the same behind it.

Readers and writers pass structures on as dicts of numpy arrays with the fields of
:class:`~jmp_lib.data.structures.Structure`; cell, pbc, tags and fixed may be missing where they are the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from ase.data import atomic_numbers as _NUMBER_OF
from ase.data import chemical_symbols
from ase.formula import Formula
from scipy.spatial import cKDTree

# dtype of every column of a set in memory; scalar columns are float64
DTYPES = {"natoms": np.int64, "pos": np.float32, "atomic_numbers": np.uint8, "cell": np.float64, "pbc": bool,
          "tags": np.uint8, "fixed": bool, "forces": np.float32, "group": np.int64, "ids": np.int64}
PER_ATOM = {"pos": (3,), "atomic_numbers": (), "tags": (), "fixed": (), "forces": (3,)}
SHAPES = PER_ATOM | {"natoms": (), "cell": (3, 3), "pbc": (3,), "group": (), "ids": ()}  # of an atom or a structure
DEFAULTS = {"cell": 0.0, "pbc": False, "tags": 2, "fixed": False}  # of what a source may leave out
MAX_ATOMIC_NUMBER = 118
BLOCK = 1 << 16  # atoms that are searched together
CHUNK = 1 << 11  # atoms whose neighbours are asked for together
SMALLEST_CELL = 1e-6  # smallest volume of a cell, as a part of the product of its edge lengths, that counts as one
SMALLEST_VOLUME = 1.0  # Å³ for an atom of a crystal (solid hydrogen at 500 GPa has 1.3)
THINNEST = 0.5  # Å between two faces of a cell that repeats across them
CLOSEST = 0.1  # Å between two atoms, or an atom and its images
# Å, eV/Å, eV. The neighbour search ends Python where something flat is more than 316 cutoffs wide (6 Å: 1,900 Å).
LARGEST = {"natoms": 100_000, "pos": 900, "cell": 1000, "forces": 1e5, "energy": 1e8}
LARGEST_LABEL = 1e15  # of other scalars, in their unit


def check(where: str, columns: Mapping[str, np.ndarray], one: bool = False) -> None:
    """Raise ``ValueError`` (one sentence: set or file, row, field, atom, what is wrong) for
    contents no network may see.

    columns: natoms (S,), and arrays as of :class:`StructureSet` with the scalars among them; one: they are those of one
    structure, and no row is named. Refused are shapes that do not fit natoms, no atoms or too many, what is no
    element, other tags, NaN, infinity and what is beyond LARGEST, duplicate ids; periodic structures without volume,
    thinner than THINNEST or with less than SMALLEST_VOLUME for an atom; two atoms (or an atom and an image) closer
    than CLOSEST.
    """
    natoms = columns["natoms"]
    if natoms.ndim != 1 or natoms.dtype.kind not in "iu":
        raise ValueError(f"{where}: field 'natoms' must be whole numbers in one row, "
                         f"not {natoms.dtype} of shape {natoms.shape}")
    if len(natoms) == 0:
        raise ValueError(f"{where}: there is no structure in it")
    count, atoms, ends = len(natoms), int(natoms.sum()), np.cumsum(natoms)
    numbers = columns.get("atomic_numbers", natoms)

    def refuse(row: int, key: str, words: str) -> None:
        raise ValueError(f"{where}: field {key!r}{words}" if one else f"{where}: row {row}, field {key!r}{words}")

    def named(atom: int) -> tuple[int, str]:
        row, number = int(np.searchsorted(ends, atom, side="right")), float(numbers[atom])
        symbol = f" ({chemical_symbols[int(number)]})" if number in range(1, MAX_ATOMIC_NUMBER + 1) else ""
        return row, f"atom {atom - ends[row] + natoms[row]}{symbol}"

    def need(good: np.ndarray, key: str, words: str) -> None:
        if not good.all():
            at = int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
            row, atom = named(at) if key in PER_ATOM else (at, "")
            refuse(row, key, words.format(columns[key][at], atom=f" at {atom}" if atom else ""))

    need(natoms > 0, "natoms", ": a structure with {} atoms")
    need(natoms <= LARGEST["natoms"], "natoms",
         f": {{}} atoms in one structure, more than the {LARGEST['natoms']:,} that are taken")
    for key, array in columns.items():
        needed = (atoms if key in PER_ATOM else count, *SHAPES.get(key, ()))
        if array.dtype.kind not in "iufb":
            raise ValueError(f"{where}: field {key!r} holds {array.dtype}, not numbers")
        if array.shape != needed:
            have = f"{atoms} atoms" if one else f"the {count} structures with {atoms} atoms"
            raise ValueError(f"{where}: field {key!r} has shape {array.shape} where {have} need {needed}")
    need(_whole(numbers, 1, MAX_ATOMIC_NUMBER), "atomic_numbers",
         f": {{}} is not an element (1 to {MAX_ATOMIC_NUMBER}){{atom}}")
    if "tags" in columns:
        need(_whole(columns["tags"], 0, 2), "tags", ": {}{atom} is none of 0 (below the surface), 1 (surface) and 2 "
             "(adsorbate, and every atom of other data); leave tags out where they mean something else")  # fmt: skip
    for key, array in columns.items():
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                finite = np.isfinite(array.astype(DTYPES.get(key, np.float64), copy=False))
            need(finite, key, " holds NaN or infinity{atom}; leave this structure out or mend the label")
        largest = LARGEST.get(key) if key in DTYPES or key in LARGEST else LARGEST_LABEL
        if largest and key != "natoms":
            need(np.abs(array) <= largest, key,
                 f" is beyond {largest:g}{{atom}}; mend its unit or leave this structure out")
    cell = columns.get("cell", np.zeros((count, 3, 3)))
    pbc = np.asarray(columns.get("pbc", np.repeat(cell.any(axis=2).any(axis=1, keepdims=True), 3, axis=1)), bool)
    if (periodic := pbc.any(axis=1)).any():
        volume, lengths = np.abs(np.linalg.det(cell)), np.linalg.norm(cell, axis=2)
        flat = volume <= SMALLEST_CELL * np.prod(lengths, axis=1)
        need(~(flat & periodic), "cell", ": periodic, but its lattice vectors span no volume; "
             "give a cell of three vectors, or set pbc to false for a molecule")  # fmt: skip
        faces = np.linalg.norm(np.cross(cell[:, [1, 2, 0]], cell[:, [2, 0, 1]]), axis=2)
        roomy = (volume >= SMALLEST_VOLUME * natoms) | ~pbc.all(axis=1)
        need(roomy & ((volume[:, None] >= THINNEST * faces) | ~pbc).all(axis=1), "cell",
             f": it is thinner than {THINNEST} Å, or an atom has less than {SMALLEST_VOLUME:g} Å³; "
             "give the cell in Å (is it in nm, of one cell for many, very skewed?)")  # fmt: skip
    if pair := _too_close(natoms, columns["pos"], cell, pbc):
        (row, first), (_, second) = map(named, pair[:2])
        refuse(row, "pos", f": {first} and {second} are {pair[2]:.2g} Å apart, "
               f"less than {CLOSEST} Å (an atom listed twice, an image "
               "of it listed, or positions that are not in Å?); leave one out or mend them")  # fmt: skip
    if "ids" in columns:
        unique, first, counts = np.unique(columns["ids"], return_index=True, return_counts=True)
        again = np.isin(np.arange(count), first[counts > 1])
        need(~again, "ids", f": id {{}} occurs {counts.max()} times")


def _whole(array: np.ndarray, least: int, most: int) -> np.ndarray:
    """Where these are whole numbers from ``least`` to ``most``."""
    inside = (array >= least) & (array <= most)
    return inside & (array == np.floor(array)) if array.dtype.kind == "f" else inside


def _too_close(natoms: np.ndarray, pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[int, int, float] | None:
    """Rows of two atoms of a structure that are closer than ``CLOSEST`` (periodic images too), and their distance;
    else None."""
    ends, start = np.cumsum(natoms), 0
    while start < len(natoms):
        first = int(ends[start] - natoms[start])
        stop = max(int(np.searchsorted(ends, first + BLOCK, side="right")), start + 1)
        rows, last = slice(start, stop), int(ends[stop - 1])
        if found := _close_pair(natoms[rows], np.asarray(pos[first:last], np.float64), cell[rows], pbc[rows]):
            return found[0] + first, found[1] + first, found[2]
        start = stop
    return None


def _close_pair(natoms, pos, cell, pbc) -> tuple[int, int, float] | None:
    row, atom = np.repeat(np.arange(len(natoms)), natoms), np.arange(len(pos))
    if pbc.any():  # into the cell, and once more behind the opposite face what lies close to a face
        box = np.where(pbc.any(axis=1)[:, None, None], cell, np.eye(3))
        inverse = np.linalg.inv(box)
        within = np.einsum("ni,nij->nj", pos, inverse[row])
        within -= np.floor(within) * pbc[row]
        reach = 1.001 * CLOSEST * np.linalg.norm(inverse, axis=1)  # (S,3), of the way between two faces
        for axis in range(3):
            near = np.flatnonzero(pbc[row[atom], axis] & (within[:, axis] < reach[row[atom], axis]))
            atom, within = np.concatenate([atom, atom[near]]), np.concatenate([within, within[near] + np.eye(3)[axis]])
        pos = np.einsum("ni,nij->nj", within, box[row[atom]])
    points = np.column_stack([pos, row[atom]])  # structures lie 1 apart in the fourth direction
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    # not all pairs at once: of 100,000 atoms at one place there are too many
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        distance, other = tree.query(part, k=2, distance_upper_bound=CLOSEST)
        if len(found := np.flatnonzero(distance[:, 1] < CLOSEST)):
            one = start + found[0]
            other = next(at for at in other[found[0]] if at != one)
            return *sorted((int(atom[one]), int(atom[other]))), float(np.linalg.norm(points[one] - points[other]))
    return None


# --- one structure ---------------------------------------------------------------------------------------------


@cache
def number_of(symbol: str) -> int:
    """Atomic number of an element symbol (``O``, ``cl``) or of a number as text (``8``); else
    ``ValueError`` that says why."""
    text = str(symbol).strip()
    if text.isascii() and text.isdigit():
        number = int(text[:9])
    else:
        number = _NUMBER_OF.get(text.capitalize() if text.islower() else text, 0)
    if 1 <= number <= MAX_ATOMIC_NUMBER:
        return number
    if text.upper() in ("D", "T"):
        raise ValueError(f"unknown element {symbol!r}: heavy hydrogen is not told from H, "
                         "write H (the mass changes no energy and no force)")  # fmt: skip
    raise ValueError(f"unknown element {symbol!r} (a label, a dummy atom?); write a symbol, "
                     "as C or Cl, or an atomic number")


def hill(atomic_numbers) -> str:
    """Formula of atoms in Hill's order: C2H6O."""
    return Formula.from_list([chemical_symbols[number] for number in atomic_numbers]).format("hill")


DISORDERED = ("site {} is shared by several elements or partly empty, and a network needs one at "
              "each; give an ordered structure")


def numbers_of_sites(sites: Sequence[Mapping]) -> np.ndarray:
    """Atomic numbers int64 (N,) of the sites of a pymatgen structure in JSON (charges do not count); ``ValueError``
    names one that is shared, partly empty or of no element."""
    numbers = []
    for place, site in enumerate(sites):
        (species, *others), label = site.get("species") or [{"element": site["label"]}], site.get("label", "")
        if others or abs(species.get("occu", 1) - 1) > 1e-3:
            raise ValueError(DISORDERED.format(f"{place} ({label or species['element']})"))
        try:
            numbers.append(number_of(re.sub(r"[\d+\-.]+$", "", species["element"])))
        except ValueError as error:
            raise ValueError(f"site {place}: {error}") from None
    return np.array(numbers, dtype=np.int64)


def make_structure(pos, atomic_numbers, *, cell=None, forces=None, sid=None, group=None, **scalars) -> dict:
    """A structure dict of one molecule, or of one crystal when ``cell`` (3,3) Å is given; :func:`screened` checks it.

    pos (N,3) Å; atomic_numbers (N,); forces (N,3) eV/Å; scalars: labels in their task's unit, and ``id``; sid, group:
    names the source has. Every atom gets tag 2 and none is fixed.
    """
    numbers = np.asarray(atomic_numbers)
    made = {
        "pos": np.asarray(pos, dtype=np.float32),
        "atomic_numbers": numbers.astype(np.int64),
        "cell": np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64),
        "pbc": np.full(3, cell is not None),
        "tags": np.full(numbers.size, 2, dtype=np.int64),
        "fixed": np.zeros(numbers.size, dtype=bool),
    }
    if forces is not None:
        made["forces"] = np.asarray(forces, dtype=np.float32)
    made |= {key: int(value) if key == "id" else np.float64(value) for key, value in scalars.items()}
    made |= {key: str(value) for key, value in (("sid", sid), ("group", group)) if value is not None}
    return made


def check_structure(structure: Mapping, where: str) -> None:
    """Raise ``ValueError`` (one sentence: where, field, what is wrong) for a structure no training may see,
    as :func:`check`."""
    missing = [key for key in ("pos", "atomic_numbers") if key not in structure]
    if missing:
        raise ValueError(f"{where}: field {missing[0]!r} is missing")
    texts = ("id", "sid", "group")
    found = {key: np.asarray(structure[key]) for key in structure.keys()
             if key not in texts and not isinstance(structure[key], str)}
    columns = {key: array if key in PER_ATOM else array[None] for key, array in found.items()}
    check(where, {"natoms": np.array([found["atomic_numbers"].size]), **columns}, one=True)


def screened(items: Iterable[tuple[str, Callable[[], dict]]], where: str,
             rejected: list[str] | None = None) -> Iterator[dict]:
    """The sound structures among those that ``items``, pairs (name, function that makes the structure), give;
    numbered, where they have no id. The reason why one cannot be made or fails :func:`check_structure`, with
    ``where`` and the structure's name, goes to ``rejected``; without such a list it is a ``ValueError``."""
    row = 0
    for name, make in items:
        at = f"{where}: {name}"
        try:
            structure = make()
            check_structure(structure, at)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            said = str(error) if isinstance(error, ValueError) else f"it cannot be read ({error!r})"
            said = said if said.startswith(at) else f"{at}: {said}; leave it out or mend it"
            if rejected is None:
                raise ValueError(said) from None
            rejected.append(said)
        else:
            structure.setdefault("id", row)
            row += 1
            yield structure
