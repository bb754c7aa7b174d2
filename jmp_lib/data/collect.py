"""From what a file holds to structures and sets: one structure dict, what is wrong with it, many into a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ase.data import atomic_numbers as _NUMBER_OF

from jmp_lib.data.structures import StructureSet
from jmp_lib.data.validate import MAX_ATOMIC_NUMBER, SMALLEST_CELL

# fields of a structure that are not scalar labels
_FIELDS = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces", "id", "sid", "fid", "group", "name")
# fields that hold no measured number
_NOT_MEASURED = ("atomic_numbers", "pbc", "tags", "fixed", "id", "sid", "fid", "group", "name")


def numbers_of(symbols: Iterable[str]) -> np.ndarray:
    """Atomic numbers int64 (N,) of element symbols; raises ``ValueError`` for one that is not an element."""
    numbers = [_NUMBER_OF.get(str(symbol), 0) for symbol in symbols]
    if 0 in numbers:
        raise ValueError(f"unknown element {list(symbols)[numbers.index(0)]!r}")
    return np.array(numbers, dtype=np.int64)


def make_structure(pos, atomic_numbers, id, *, cell=None, forces=None, sid=None, group=None, **scalars) -> dict:
    """A structure dict (keys: :mod:`jmp_lib.keys`) of one molecule, or of one crystal when ``cell`` (3,3) Å is given.

    pos (N,3) Å; atomic_numbers (N,); forces (N,3) eV/Å; scalars: labels in their task's unit; sid, group: names the
    source has. Every atom gets tag 2 and none is fixed. :func:`screened` checks what is made.
    """
    numbers = np.asarray(atomic_numbers)
    made = {
        "pos": np.asarray(pos, dtype=np.float32),
        "atomic_numbers": numbers.astype(np.int64),
        "cell": np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64),
        "pbc": np.full(3, cell is not None),
        "tags": np.full(numbers.size, 2, dtype=np.int64),
        "fixed": np.zeros(numbers.size, dtype=bool),
        "id": int(id),
    }
    if forces is not None:
        made["forces"] = np.asarray(forces, dtype=np.float32)
    made |= {key: np.float64(value) for key, value in scalars.items()}
    made |= {key: str(value) for key, value in (("sid", sid), ("group", group)) if value is not None}
    return made


def problem(structure: dict) -> str | None:
    """What makes a structure unfit for training, in words, or None when it is sound."""
    numbers, pos, cell = structure["atomic_numbers"], structure["pos"], structure["cell"]
    if numbers.ndim != 1 or numbers.size == 0:
        return f"atomic_numbers have shape {numbers.shape}: a structure has at least one atom"
    for key in ("pos", "forces"):
        if key in structure and structure[key].shape != (numbers.size, 3):
            return f"{key} has shape {structure[key].shape} where {numbers.size} atoms need ({numbers.size}, 3)"
    if not ((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all():
        return f"unknown element: atomic numbers are {numbers.min()} to {numbers.max()} (1 to {MAX_ATOMIC_NUMBER})"
    for key, value in structure.items():
        if key not in _NOT_MEASURED and not np.isfinite(value).all():
            return f"{key} holds NaN or infinity"
    if structure["pbc"].any():
        edges = np.linalg.norm(cell, axis=1)
        if cell.shape != (3, 3) or abs(np.linalg.det(cell)) <= SMALLEST_CELL * np.prod(edges):
            return "singular cell: its lattice vectors span no volume"
    return None


def screened(
    items: Iterable[tuple[str, Callable[[], dict]]], where: str, rejected: list[tuple[str, str]] | None = None
) -> Iterator[dict]:
    """The sound structures among those that ``items``, pairs (name, function that makes the structure), give.

    One that cannot be made, or has a :func:`problem`, goes to ``rejected`` as (name, reason); without such a list it is
    a ``ValueError`` that names ``where`` and the structure.
    """
    for name, make in items:
        try:
            structure = make()
            reason = problem(structure)
        except ValueError as error:
            reason = str(error)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"it cannot be read ({error!r})"
        if reason is None:
            yield structure
        elif rejected is None:
            raise ValueError(f"{where}: {name}: {reason}; leave it out or mend it")
        else:
            rejected.append((name, reason))


def to_set(name: str, structures: Iterable[dict], description: str = "", where: str = "") -> StructureSet:
    """A set of the structures, all with the same labels; periodic when the first is.

    Raises ``ValueError`` when there are none, when labels differ, and as
    :meth:`~jmp_lib.data.structures.StructureSet.validate`.
    """
    columns: dict[str, list] = {}
    n_structures = 0
    for structure in structures:
        if n_structures and structure.keys() != columns.keys():
            differing = sorted(structure.keys() ^ columns.keys())
            raise ValueError(f"{where or name}: structure {structure['id']} differs in {', '.join(differing)}")
        for key, value in structure.items():
            columns.setdefault(key, []).append(value)
        n_structures += 1
    if not n_structures:
        raise ValueError(f"{where or name}: there is no structure in it")
    group, group_names = None, None
    if "group" in columns:
        group_names, group = np.unique(columns["group"], return_inverse=True)
    periodic = any(pbc.any() for pbc in columns["pbc"])
    return StructureSet.from_arrays(
        name,
        [len(numbers) for numbers in columns["atomic_numbers"]],
        np.concatenate(columns["pos"]),
        np.concatenate(columns["atomic_numbers"]),
        description=description,
        cell=np.stack(columns["cell"]) if periodic else None,
        pbc=np.stack(columns["pbc"]),
        tags=np.concatenate(columns["tags"]),
        fixed=np.concatenate(columns["fixed"]),
        forces=np.concatenate(columns["forces"]) if "forces" in columns else None,
        scalars={key: np.array(values) for key, values in columns.items() if key not in _FIELDS},
        group=group,
        group_names=group_names,
        ids=np.array(columns["id"]),
        where=where,
    )


def part_name(name: str, n: int, n_total: int) -> str:
    """``name``, with how many of how many structures when only a part of the set is at hand."""
    return name if n == n_total else f"{name}, {n} of {n_total}"
