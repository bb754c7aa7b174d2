"""Structures and sets of structures, in the terms of torch_geometric.

>>> data = StructureSet.from_arrays("two waters", natoms=[3, 3], pos=pos, atomic_numbers=[8, 1, 1, 8, 1, 1])
>>> data[1].pos.shape, len(data[1:])
(torch.Size([3, 3]), 1)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch_geometric.data import Data, Dataset

from jmp_lib.data.validate import check_contents, check_shapes

# dtype of every column of a set in memory; scalar columns are float64
DTYPES = {
    "natoms": np.int64, "pos": np.float32, "atomic_numbers": np.uint8, "cell": np.float64, "pbc": bool, "tags": np.uint8,
    "fixed": bool, "forces": np.float32, "group": np.int64, "ids": np.int64,
}  # fmt: skip
PER_ATOM = {"pos": (3,), "atomic_numbers": (), "tags": (), "fixed": (), "forces": (3,)}
PER_STRUCTURE = {"natoms": (), "cell": (3, 3), "pbc": (3,), "group": (), "ids": ()}
DEFAULTS = {"cell": 0.0, "pbc": False, "tags": 2, "fixed": False}  # of columns that a set may leave out
_CACHED = ("natoms", "sha256")


class Structure(Data):
    """One structure: a ``torch_geometric`` ``Data`` with tensors pos float32 (N,3) Å, atomic_numbers int64 (N,), cell
    float64 (3,3) Å in rows (zeros: none), pbc bool (3,), tags int64 (N,), fixed bool (N,), where there are labels forces
    float32 (N,3) eV/Å and scalars as float64 of no dimension, ``id`` int, ``sid`` text. ``z`` is atomic_numbers.
    """

    @classmethod
    def of(cls, fields: Mapping) -> Structure:
        """From numpy arrays and numbers (arrays are shared, not copied; numbers but ``id`` become float64 tensors)."""
        made = cls()
        mapping = made._store._mapping
        for key, value in fields.items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value)
            elif isinstance(value, float):
                value = torch.tensor(value, dtype=torch.float64)
            mapping[key] = value
        return made

    @property
    def z(self) -> torch.Tensor:
        """Atomic numbers under the name that networks of torch_geometric know them by."""
        return self.atomic_numbers

    def keys(self) -> list[str]:
        """Names of the fields, always in the same order."""
        return list(self._store._mapping)

    def __contains__(self, key: str) -> bool:
        return key in self._store._mapping

    def __cat_dim__(self, key: str, value, *args, **kwargs):
        return None if key in ("cell", "pbc") else super().__cat_dim__(key, value, *args, **kwargs)


@dataclass(eq=False)
class Columns:
    """The arrays of S structures with ΣN atoms that a set and its subsets share, in memory or mapped from files.

    Dtypes and shapes as of :class:`StructureSet`; cell, pbc, tags and fixed may be left out where every structure has
    the default. texts: name -> (offsets int64 (S+1,), bytes uint8 of all texts one after the other).
    """

    natoms: np.ndarray
    pos: np.ndarray
    atomic_numbers: np.ndarray
    cell: np.ndarray | None = None
    pbc: np.ndarray | None = None
    tags: np.ndarray | None = None
    fixed: np.ndarray | None = None
    forces: np.ndarray | None = None
    group: np.ndarray | None = None
    ids: np.ndarray | None = None
    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    offsets: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.offsets is None:
            self.offsets = np.concatenate([[0], np.cumsum(self.natoms)]).astype(np.int64)

    def structure(self, row: int) -> Structure:
        """Structure ``row`` with tensors of its own."""
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        natoms = atoms.stop - atoms.start
        fields = {
            "pos": self.pos[atoms].copy(),
            "atomic_numbers": self.atomic_numbers[atoms].astype(np.int64),
            "cell": np.zeros((3, 3)) if self.cell is None else self.cell[row].copy(),
            "pbc": np.zeros(3, dtype=bool) if self.pbc is None else self.pbc[row].copy(),
            "tags": np.full(natoms, 2) if self.tags is None else self.tags[atoms].astype(np.int64),
            "fixed": np.zeros(natoms, dtype=bool) if self.fixed is None else self.fixed[atoms].copy(),
            "id": row if self.ids is None else int(self.ids[row]),
        }
        if self.forces is not None:
            fields["forces"] = self.forces[atoms].copy()
        for key, values in self.scalars.items():
            fields[key] = float(values[row])
        for key, (offsets, text) in self.texts.items():
            fields[key] = text[offsets[row] : offsets[row + 1]].tobytes().decode()
        return Structure.of(fields)

    def take(self, key: str, rows: range | np.ndarray) -> np.ndarray | None:
        """Column ``key`` (``scalar NAME`` for a scalar) of the structures ``rows``, with its default where left out."""
        array = self.scalars[key.removeprefix("scalar ")] if key.startswith("scalar ") else getattr(self, key)
        if array is None and key in ("group", "ids"):
            return np.asarray(rows, dtype=np.int64)
        if array is None and key not in DEFAULTS:
            return None
        per_atom = key in PER_ATOM
        if array is None:
            count = int(self.take("natoms", rows).sum()) if per_atom else len(rows)
            return np.full((count, *(PER_ATOM | PER_STRUCTURE)[key]), DEFAULTS[key], DTYPES[key])
        if isinstance(rows, range) and rows.step == 1:
            start, stop = (self.offsets[rows.start], self.offsets[rows.stop]) if per_atom else (rows.start, rows.stop)
            return array[start:stop]
        rows = np.asarray(rows, dtype=np.int64)
        if not per_atom:
            return array[rows]
        natoms = self.natoms[rows]
        starts = np.concatenate([[0], np.cumsum(natoms)])[:-1]
        return array[np.repeat(self.offsets[rows] - starts, natoms) + np.arange(natoms.sum())]


def _column(key: str) -> property:
    return property(lambda self: self.columns.take(key, self.indices()), doc=f"Column {key}, see the class.")


class StructureSet(Dataset):
    """S structures with ΣN atoms in all, a ``torch_geometric`` ``Dataset`` of :class:`Structure`.

    ``data[i]`` is a structure (through ``data.transform``, where one is set), ``data[10:20]``, ``data[rows]`` and
    ``data.subset(rows)`` are sets that share its arrays. Columns of the structures of the set, each a numpy array: natoms
    int64 (S,); pos float32 (ΣN,3); atomic_numbers uint8 (ΣN,); cell float64 (S,3,3), zeros where none; pbc bool (S,3);
    tags uint8 (ΣN,); fixed bool (ΣN,); forces float32 (ΣN,3) or None; group int64 (S,) with group_names; ids int64 (S,),
    the row in the set the structures were read from; scalars: name -> float64 (S,) (``energy`` and the scalar targets).
    Units eV, Å, eV/Å; scalar targets in their task's label unit. Make one with :meth:`from_arrays`, or open a prepared
    one with :func:`jmp_lib.data.store.open_store`.

    Any network of torch_geometric trains on it, for instance SchNet on the dipole moments of QM9:

        network = torch_geometric.nn.SchNet(cutoff=6.0)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        for batch in torch_geometric.loader.DataLoader(load_task_data("qm9_mu").train, batch_size=32, shuffle=True):
            loss = (network(batch.z, batch.pos, batch.batch)[:, 0] - batch.mu.float()).abs().mean()
            optimizer.zero_grad(), loss.backward(), optimizer.step()
    """

    pos, atomic_numbers, cell, pbc = map(_column, ("pos", "atomic_numbers", "cell", "pbc"))
    tags, fixed, forces, group, ids = map(_column, ("tags", "fixed", "forces", "group", "ids"))

    def __init__(self, name: str, description: str, columns: Columns, group_names: Sequence[str] = (), transform=None):
        super().__init__(transform=transform)
        self.name, self.description, self.columns = name, description, columns
        self.group_names = tuple(map(str, group_names))

    @classmethod
    def from_arrays(
        cls,
        name,
        natoms,
        pos,
        atomic_numbers,
        *,
        description="",
        cell=None,
        pbc=None,
        tags=None,
        fixed=None,
        forces=None,
        scalars=None,
        group=None,
        group_names=None,
        ids=None,
        where="",
        transform=None,
    ) -> StructureSet:
        """Make a set from arrays (shapes as in the class; units already eV, Å, eV/Å) and validate it.

        Defaults: no cell; periodic in three directions where there is a cell; tags 2; nothing fixed; every
        structure a group of its own; ids 0, 1, ... ``where`` (a file's path) goes into error messages.
        Raises ``ValueError`` as :meth:`validate`.
        """
        natoms = np.asarray(natoms)
        pbc = np.full((len(natoms), 3), True) if pbc is None and cell is not None else pbc
        given = {
            "natoms": natoms, "pos": pos, "atomic_numbers": atomic_numbers, "cell": cell, "pbc": pbc, "tags": tags,
            "fixed": fixed, "forces": forces, "group": group, "ids": ids,
        }  # fmt: skip
        arrays = {key: np.asarray(value) for key, value in given.items() if value is not None}
        scalars = {key: np.asarray(value) for key, value in (scalars or {}).items()}
        check_shapes(where or name, arrays, scalars)
        made = cls(
            name,
            description,
            Columns(
                **{key: np.ascontiguousarray(array, DTYPES[key]) for key, array in arrays.items()},
                scalars={key: np.ascontiguousarray(array, np.float64) for key, array in scalars.items()},
            ),
            group_names if group_names is not None else (),
            transform,
        )
        made.validate(where)
        return made

    def len(self) -> int:
        """Structures of the whole set that this one may be a part of."""
        return len(self.columns.natoms)

    def get(self, idx: int) -> Structure:
        """Structure ``idx`` of the whole set."""
        return self.columns.structure(idx)

    def __getitem__(self, index) -> Structure | StructureSet:
        """A structure with tensors of its own for a number, a set for a slice, rows or a mask of bool (S,)."""
        if not isinstance(index, int | np.integer):
            return self.index_select(index)
        rows = self.indices()
        if not -len(rows) <= index < len(rows):
            raise IndexError(f"{self.name} has {len(rows)} structures, there is no row {index}")
        found = self.columns.structure(int(rows[index]))
        return found if self.transform is None else self.transform(found)

    def __iter__(self) -> Iterator[Structure]:
        return (self[row] for row in range(len(self)))

    def __copy__(self) -> StructureSet:
        made = type(self).__new__(type(self))
        made.__dict__ = {key: value for key, value in self.__dict__.items() if key not in _CACHED}
        return made

    def __getstate__(self) -> dict:
        """Of a part of a set in memory only its own structures travel to another process."""
        own = self if self._indices is None else self.compact()
        return {key: value for key, value in own.__dict__.items() if key not in _CACHED}

    def __repr__(self) -> str:
        return f"StructureSet({self.name!r}, {len(self)} structures, {int(self.natoms.sum())} atoms, {' '.join(self.labels)})"

    def index_select(self, idx) -> StructureSet:
        """The structures of a slice, rows or a mask of bool (S,)."""
        if isinstance(idx, slice):
            start, stop, step = (round(i * len(self)) if isinstance(i, float) else i for i in (idx.start, idx.stop, idx.step))
            return self.subset(range(*slice(start, stop, step).indices(len(self))))
        rows = np.asarray(idx)
        if rows.dtype == bool:
            return self.subset(np.flatnonzero(rows))
        rows = rows.astype(np.int64).ravel()
        return self.subset(np.where(rows < 0, rows + len(self), rows))

    def subset(self, indices: range | Sequence[int] | np.ndarray, name: str | None = None) -> StructureSet:
        """The structures ``indices`` (rows of this set) in that order, ids kept; ``IndexError`` beyond the end."""
        rows = indices if isinstance(indices, range) else np.asarray(indices, dtype=np.int64)
        if len(rows):
            low, high = (min(rows), max(rows)) if isinstance(rows, range) else (rows.min(), rows.max())
            if low < 0 or high >= len(self):
                raise IndexError(f"{self.name} has {len(self)} structures, the subset asks for rows {low} to {high}")
        made = self.__copy__()
        made.name = name or self.name
        own = self.indices()
        if isinstance(own, range) and isinstance(rows, range):
            made._indices = range(*(own.start + own.step * end for end in (rows.start, rows.stop)), own.step * rows.step)
        else:
            made._indices = own.start + own.step * rows if isinstance(own, range) else own[np.asarray(rows)]
        return made

    def renamed(self, name: str | None = None, description: str | None = None) -> StructureSet:
        """The same structures under another name or description."""
        made = self.__copy__()
        made.name = self.name if name is None else name
        made.description = self.description if description is None else description
        return made

    def compact(self) -> StructureSet:
        """The same set with arrays in memory of its own structures alone."""
        rows, c = self.indices(), self.columns
        keys = [key for key in DTYPES if getattr(c, key) is not None or key in ("group", "ids")]
        texts = {key: _take_texts(*table, rows) for key, table in c.texts.items()}
        made = self.__copy__()
        made.columns = Columns(**{key: np.array(c.take(key, rows)) for key in keys}, scalars=self.scalars, texts=texts)
        made._indices = None
        return made

    @cached_property
    def natoms(self) -> np.ndarray:
        """Atoms of every structure, int64 (S,)."""
        return self.columns.take("natoms", self.indices())

    @property
    def offsets(self) -> np.ndarray:
        """Where the atoms of every structure begin in the flat arrays, and where they end, int64 (S+1,)."""
        return np.concatenate([[0], np.cumsum(self.natoms)]).astype(np.int64)

    @property
    def scalars(self) -> dict[str, np.ndarray]:
        """Scalar labels: name -> float64 (S,)."""
        return {key: self.columns.take(f"scalar {key}", self.indices()) for key in self.columns.scalars}

    @property
    def labels(self) -> list[str]:
        """Names of the labels at hand: the scalars, and ``forces``."""
        return [*self.columns.scalars, *(["forces"] if self.columns.forces is not None else [])]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, sorted."""
        return np.unique(self.atomic_numbers).tolist()

    @property
    def periodic(self) -> bool:
        """Whether any structure repeats in any direction."""
        return bool(self.pbc.any())

    @cached_property
    def sha256(self) -> str:
        """Hash of the contents (all arrays with their names, types and shapes; not the set's name)."""
        digest = hashlib.sha256()
        for key in sorted([*DTYPES, *(f"scalar {name}" for name in self.columns.scalars)]):
            array = self.columns.take(key, self.indices())
            if array is not None:
                digest.update(f"{key} {array.dtype.str} {array.shape};".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def validate(self, where: str = "") -> None:
        """Raise ``ValueError`` (one sentence: set or file, row, field, what is wrong) for contents no training may see.

        Refused: zero-atom structures, element numbers outside 1..120, NaN or infinite positions or labels,
        singular cells of periodic structures, duplicate ids.
        """
        check_contents(where or self.name, self)


def _take_texts(offsets: np.ndarray, text: np.ndarray, rows) -> tuple[np.ndarray, np.ndarray]:
    """The table of texts of ``rows``."""
    rows = np.asarray(rows, dtype=np.int64)
    parts = [text[a:b] for a, b in zip(offsets[rows], offsets[rows + 1], strict=True)]
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64), np.concatenate([*parts, text[:0]])
