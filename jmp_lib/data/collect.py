"""From what a file holds to structures and sets: one structure dict, what is wrong with it, many into a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ase.data import atomic_numbers as _NUMBER_OF

from jmp_lib.data.check_structure import keep, refuse
from jmp_lib.data.structures import StructureSet

# fields of a structure that are not scalar labels
_FIELDS = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces", "id", "sid", "fid", "group", "name")


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


def screened(
    items: Iterable[tuple[str, Callable[[], dict]]], where: str, rejected: list[str] | None = None
) -> Iterator[dict]:
    """The sound structures among those that ``items``, pairs (name, function that makes the structure), give.

    The reason why one cannot be made or fails :func:`~jmp_lib.data.check_structure.check_structure` goes to
    ``rejected``; without such a list it is a ``ValueError``. It names ``where`` and the structure.
    """
    for name, make in items:
        at = f"{where}: {name}"
        try:
            structure = make()
        except ValueError as error:
            refuse(f"{at}: {error}; leave it out or mend it", rejected)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            refuse(f"{at}: it cannot be read ({error!r}); leave it out or mend it", rejected)
        else:
            if keep(structure, at, rejected):
                yield structure


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
            columns.setdefault(key, []).append(value if isinstance(value, str) else np.asarray(value))
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
