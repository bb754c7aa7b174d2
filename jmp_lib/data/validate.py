"""Checks on the arrays of a structure set; each failure is one ``ValueError`` sentence naming set, row and field."""

from __future__ import annotations

import numpy as np

MAX_ATOMIC_NUMBER = 120
# smallest volume of a cell, as a part of the product of its edge lengths, that counts as a cell at all
SMALLEST_CELL = 1e-6

_PER_STRUCTURE = {"cell": (3, 3), "pbc": (3,), "group": (), "ids": ()}
_PER_ATOM = {"pos": (3,), "atomic_numbers": (), "tags": (), "fixed": (), "forces": (3,)}


def check_shapes(where: str, arrays: dict[str, np.ndarray | None], scalars: dict[str, np.ndarray]) -> None:
    """Check that every array has numbers in it and one row for each structure or for each atom.

    arrays: as in :class:`~jmp_lib.data.structures.StructureSet`, before conversion; scalars: (S,) each.
    """
    natoms = arrays["natoms"]
    if natoms.ndim != 1 or natoms.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: field 'natoms' must be whole numbers in one row, not {natoms.dtype} of shape {natoms.shape}"
        )
    if len(natoms) == 0:
        raise ValueError(f"{where}: there is no structure in it")
    empty = np.flatnonzero(natoms < 1)
    if empty.size:
        raise ValueError(f"{where}: row {empty[0]}, field 'natoms': a structure with {natoms[empty[0]]} atoms")
    expected = {key: (len(natoms), *shape) for key, shape in _PER_STRUCTURE.items()}
    expected |= {key: (int(natoms.sum()), *shape) for key, shape in _PER_ATOM.items()}
    expected |= {key: (len(natoms),) for key in scalars}
    for key, array in {**arrays, **scalars}.items():
        if key == "natoms" or array is None:
            continue
        if array.dtype.kind not in "iufb":
            raise ValueError(f"{where}: field {key!r} holds {array.dtype}, not numbers")
        if array.shape != expected[key]:
            raise ValueError(
                f"{where}: field {key!r} has shape {array.shape} where the {len(natoms)} structures with "
                f"{int(natoms.sum())} atoms need {expected[key]}"
            )
    numbers = arrays["atomic_numbers"]
    unknown = np.flatnonzero(~((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)))
    if unknown.size:
        raise ValueError(
            f"{where}: row {_row(natoms, unknown[0])}, field 'atomic_numbers': {numbers[unknown[0]]} is not an "
            f"element (1 to {MAX_ATOMIC_NUMBER})"
        )


def check_contents(where: str, data) -> None:
    """Check values of a :class:`~jmp_lib.data.structures.StructureSet`: finite, with a proper cell, unique ids."""
    fields = {"pos": data.pos, "forces": data.forces, "cell": data.cell, **data.scalars}
    for key, array in fields.items():
        if array is None or np.isfinite(array).all():
            continue
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0]
        row = _row(data.natoms, bad) if key in _PER_ATOM else bad
        raise ValueError(
            f"{where}: row {row}, field {key!r} holds NaN or infinity; leave this structure out or mend the label"
        )
    edges = np.linalg.norm(data.cell, axis=2)
    flat = np.abs(np.linalg.det(data.cell)) <= SMALLEST_CELL * np.prod(edges, axis=1)
    singular = np.flatnonzero(flat & data.pbc.any(axis=1))
    if singular.size:
        raise ValueError(f"{where}: row {singular[0]}, field 'cell': periodic, but its lattice vectors span no volume")
    names = len(data.group_names)
    stray = np.flatnonzero((data.group < 0) | (data.group >= names)) if names else np.empty(0, int)
    if stray.size:
        raise ValueError(
            f"{where}: row {stray[0]}, field 'group': {data.group[stray[0]]} has no name among the {names}"
        )
    unique, first, counts = np.unique(data.ids, return_index=True, return_counts=True)
    if (counts > 1).any():
        twice = unique[counts > 1][0]
        raise ValueError(
            f"{where}: row {first[counts > 1][0]}, field 'ids': id {twice} occurs {counts[counts > 1][0]} times"
        )


def _row(natoms: np.ndarray, atom: int) -> int:
    """Row of the structure that atom ``atom`` of the flat arrays belongs to."""
    return int(np.searchsorted(np.cumsum(natoms), atom, side="right"))
