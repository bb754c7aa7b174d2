"""Checks on one structure as a reader meets it; the streaming counterpart of :mod:`jmp_lib.data.validate`."""

from __future__ import annotations

import numpy as np

from jmp_lib.data.validate import MAX_ATOMIC_NUMBER, SMALLEST_CELL

_NAMES = ("id", "sid", "group")


def check_structure(structure: dict, where: str) -> None:
    """Raise ``ValueError`` (one sentence: where, field, what is wrong) for a structure no training may see.

    structure: keys of :mod:`jmp_lib.keys`. Refused: no atoms, unknown elements, arrays that do not fit the number
    of atoms, NaN or infinite positions, cells or labels, a periodic cell without volume.
    """
    numbers = np.asarray(structure["atomic_numbers"])
    n = numbers.size
    if n == 0 or numbers.ndim != 1:
        raise ValueError(f"{where}: field 'atomic_numbers': a structure with {n} atoms (shape {numbers.shape})")
    unknown = ~((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER))
    if unknown.any():
        raise ValueError(
            f"{where}: field 'atomic_numbers': {numbers[unknown][0]} is not an element (1 to {MAX_ATOMIC_NUMBER})"
        )
    shapes = {"atomic_numbers": (n,), "pos": (n, 3), "forces": (n, 3), "tags": (n,), "fixed": (n,)}
    shapes |= {"cell": (3, 3), "pbc": (3,)}
    for key, value in structure.items():
        if key in _NAMES:
            continue
        value = np.asarray(value)
        if value.shape != shapes.get(key, ()):
            needed = shapes.get(key, ())
            raise ValueError(f"{where}: field {key!r} has shape {value.shape} where {n} atoms need {needed}")
        if not np.isfinite(value).all():
            raise ValueError(
                f"{where}: field {key!r} holds NaN or infinity; leave this structure out or mend the label"
            )
    cell = np.asarray(structure["cell"])
    if np.any(structure["pbc"]) and abs(np.linalg.det(cell)) <= SMALLEST_CELL * np.prod(np.linalg.norm(cell, axis=1)):
        raise ValueError(f"{where}: field 'cell': periodic, but its lattice vectors span no volume")


def keep(structure: dict, where: str, rejected: list[str] | None) -> bool:
    """Whether ``structure`` is sound; when not, the reason goes into ``rejected``, or is raised without one."""
    try:
        check_structure(structure, where)
    except ValueError as error:
        refuse(str(error), rejected)
        return False
    return True


def refuse(reason: str, rejected: list[str] | None) -> None:
    """Note ``reason`` (with where it is from) in ``rejected``; without a list raise it as ``ValueError``."""
    if rejected is None:
        raise ValueError(reason) from None
    rejected.append(reason)
