"""Some rows of a store as a set of structures: nothing is read before it is asked for.

>>> view = StoreView(Store("data/stores/oc22"), range(1000))
>>> len(view), view.sha256
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from jmp_lib.data.store import Store


class StoreView:
    """A sequence of structure dicts, as :class:`~jmp_lib.data.structures.StructureSet` is one, that stays on disk.

    rows: a range, or row numbers int (S,) in the order wanted. ``name``, ``description``, ``labels`` are the store's.
    """

    def __init__(self, store: Store, rows: range | np.ndarray, name: str | None = None):
        """Raises ``IndexError`` for rows beyond the end of the store."""
        self.store, self.name, self.description = store, name or store.name, store.description
        self.rows = rows if isinstance(rows, range) else np.asarray(rows)
        if len(rows):
            first, last = (min(rows), max(rows)) if isinstance(rows, range) else (self.rows.min(), self.rows.max())
            if first < 0 or last >= len(store):
                raise IndexError(f"{store.name} has {len(store)} structures, the view asks for rows {first} to {last}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        """Structure ``index`` of the view as a dict of arrays of its own (see :mod:`jmp_lib.keys`)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} structures, there is no row {index}")
        return self.store[int(self.rows[index])]

    def __iter__(self) -> Iterator[dict]:
        return (self.store[int(row)] for row in self.rows)

    def __repr__(self) -> str:
        return f"StoreView({self.name!r}, {len(self)} of {len(self.store)} structures)"

    @property
    def labels(self) -> list[str]:
        """Names of the labels at hand."""
        return self.store.labels

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur in the store."""
        return self.store.elements

    @property
    def natoms(self) -> np.ndarray:
        """Atoms of every structure, int32 (S,)."""
        natoms = self.store.natoms
        rows = self.rows
        return natoms[rows.start : rows.stop : rows.step] if isinstance(rows, range) else natoms[rows]

    def subset(self, indices: range | np.ndarray) -> StoreView:
        """The structures ``indices`` (rows of this view) in that order, still on disk."""
        if isinstance(self.rows, range) and isinstance(indices, range):
            return StoreView(self.store, self.rows[indices.start : indices.stop : indices.step], self.name)
        rows, chosen = self.rows, np.asarray(indices)
        rows = rows.start + rows.step * chosen if isinstance(rows, range) else rows[chosen]
        return StoreView(self.store, rows, self.name)

    @property
    def sha256(self) -> str:
        """Hash of the store's own hash and of the rows; no structure is read for it."""
        digest = hashlib.sha256(self.store.sha256.encode())
        rows = self.rows
        digest.update(repr(rows).encode() if isinstance(rows, range) else np.ascontiguousarray(rows, "<i8").data)
        return digest.hexdigest()
