"""Structures and sets of structures, in the terms of torch_geometric.

>>> data = StructureSet.from_arrays("two waters", natoms=[3, 3], pos=pos, atomic_numbers=[8, 1, 1, 8, 1, 1])
>>> data[1].pos.shape, len(data[1:])
(torch.Size([3, 3]), 1)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data, Dataset

from jmp_lib.data.door import DEFAULTS, DTYPES, MAX_ATOMIC_NUMBER, PER_ATOM, SHAPES, check

BLOCK = 1 << 16  # structures of a large set that are looked at together


class Structure(Data):
    """One structure: a ``torch_geometric`` ``Data`` of tensors, N atoms. ``z`` is atomic_numbers.

    pos             (N,3) float32 Å   Cartesian positions
    atomic_numbers  (N,) int64        1 to 118
    cell            (3,3) float64 Å   lattice vectors in rows; zeros where there is no cell
    pbc             (3,) bool         periodic along each lattice vector
    tags            (N,) int64        0 below the surface, 1 surface, 2 adsorbate and every atom of other data
    fixed           (N,) bool         held still in the relaxation that made the frame
    id              int               row of the structure in the set it was read from (a subset keeps it)
    sid, group      text, where the source has them: name; molecule, trajectory or composition, for leak-free splits
    forces          (N,3) float32 eV/Å   minus the energy gradient, where there are such labels
    energy, mu, y … () float64        scalar labels where there are any: energies in eV (pre-training sets: of the
                                      stated reference), targets in the label_unit of their ``Task``, formation_energy
                                      (SPICE) in eV
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

    def __cat_dim__(self, key: str, value, *args, **kwargs):
        return None if key in ("cell", "pbc") else super().__cat_dim__(key, value, *args, **kwargs)


@dataclass(eq=False)
class Columns:
    """The arrays of S structures with ΣN atoms that a set and its subsets share, in memory or mapped from files.

    Dtypes and shapes as of :class:`StructureSet`; ids may be left out where they are the rows, group where every
    structure is one of its own. texts: name -> a text for each structure.
    """

    natoms: np.ndarray
    pos: np.ndarray
    atomic_numbers: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    tags: np.ndarray
    fixed: np.ndarray
    forces: np.ndarray | None = None
    group: np.ndarray | None = None
    ids: np.ndarray | None = None
    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, Sequence[str]] = field(default_factory=dict)
    group_names: Sequence[str] = ()
    offsets: np.ndarray | None = None
    sha256: str | None = None  # of the contents, where it is known
    about: dict = field(default_factory=dict)  # of a prepared set on disk: what its store.json says
    path: Path | None = None  # of the folder that the arrays are mapped from

    def __post_init__(self) -> None:
        if self.offsets is None:
            self.offsets = np.concatenate([[0], np.cumsum(self.natoms)]).astype(np.int64)

    def fields(self, row: int) -> dict:
        """Fields of structure ``row``: numpy arrays of its own, numbers and texts."""
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        fields = {
            "pos": self.pos[atoms].copy(),
            "atomic_numbers": self.atomic_numbers[atoms].astype(np.int64),
            "cell": self.cell[row].copy(),
            "pbc": self.pbc[row].copy(),
            "tags": self.tags[atoms].astype(np.int64),
            "fixed": self.fixed[atoms].copy(),
            "id": row if self.ids is None else int(self.ids[row]),
        }
        if self.forces is not None:
            fields["forces"] = self.forces[atoms].copy()
        for key, values in self.scalars.items():
            fields[key] = float(values[row])
        for key, texts in self.texts.items():
            fields[key] = texts[row]
        if len(self.group_names):
            fields["group"] = self.group_names[self.group[row]]
        return fields

    def take(self, key: str, rows: range | np.ndarray) -> np.ndarray | None:
        """Column ``key`` (``scalar NAME`` for a scalar) of the structures ``rows``; None where there are no forces."""
        array = self.scalars[key.removeprefix("scalar ")] if key.startswith("scalar ") else getattr(self, key)
        if array is None:
            return None if key == "forces" else np.asarray(rows, dtype=np.int64)
        if isinstance(rows, range) and rows.step == 1:
            start, stop = ((self.offsets[rows.start], self.offsets[rows.stop])
                           if key in PER_ATOM else (rows.start, rows.stop))
            return array[start:stop]
        rows = np.asarray(rows, dtype=np.int64)
        if key not in PER_ATOM:
            return array[rows]
        natoms = self.natoms[rows]
        starts = np.concatenate([[0], np.cumsum(natoms)])[:-1]
        return array[np.repeat(self.offsets[rows] - starts, natoms) + np.arange(natoms.sum())]


def _column(key: str) -> property:
    return property(lambda self: self.columns.take(key, self.indices()), doc=f"Column {key}, see the class.")


class StructureSet(Dataset):
    """S structures with ΣN atoms in all, a ``torch_geometric`` ``Dataset`` of :class:`Structure`, on which any
    network of torch_geometric trains (docs/examples.md: SchNet on dipole moments).

    ``data[i]`` is a structure (through ``data.transform``, where one is set), ``data[10:20]``, ``data[rows]`` and
    ``data.subset(rows)`` are sets that share its arrays. Columns are numpy arrays of the fields of all
    structures: natoms int64 (S,); pos float32 (ΣN,3); atomic_numbers, tags uint8 (ΣN,); cell float64 (S,3,3);
    pbc bool (S,3); fixed bool (ΣN,); forces float32 (ΣN,3) or None; group int64 (S,) with group_names; ids
    int64 (S,); scalars: name -> float64 (S,). Make one with :meth:`from_arrays`, or open a prepared one with
    :func:`jmp_lib.data.store.open_store`.
    """

    pos, atomic_numbers, cell, pbc = map(_column, ("pos", "atomic_numbers", "cell", "pbc"))
    tags, fixed, forces, group, ids = map(_column, ("tags", "fixed", "forces", "group", "ids"))

    def __init__(self, name: str, description: str, columns: Columns, transform=None):
        super().__init__(transform=transform)
        self.name, self.description, self.columns = name, description, columns

    @classmethod
    def from_arrays(cls, name, natoms, pos, atomic_numbers, *, description="", cell=None, pbc=None, tags=None,
                    fixed=None, forces=None, scalars=None, group=None, group_names=None, ids=None, texts=None,
                    where="") -> StructureSet:
        """Make a set from arrays (shapes as in the class; units already eV, Å, eV/Å) and validate it as :func:`check`.

        Defaults: no cell; periodic in three directions where there is a cell; tags 2; nothing fixed; every structure
        a group of its own; ids 0, 1, ... texts: name -> a text for each structure (``sid``). ``where`` (a file's
        path) goes into error messages.
        """
        natoms = np.asarray(natoms)
        pbc = np.full((len(natoms), 3), True) if pbc is None and cell is not None else pbc
        given = {"natoms": natoms, "pos": pos, "atomic_numbers": atomic_numbers, "cell": cell, "pbc": pbc, "tags": tags,
                 "fixed": fixed, "forces": forces, "group": group, "ids": ids}
        arrays = {key: np.asarray(value) for key, value in given.items() if value is not None}
        scalars = {key: np.asarray(value) for key, value in (scalars or {}).items()}
        check(where or name, arrays | scalars)
        atoms = int(natoms.sum())
        for key in DEFAULTS.keys() - arrays.keys():
            arrays[key] = np.full((atoms if key in PER_ATOM else len(natoms), *SHAPES[key]), DEFAULTS[key])
        names = tuple(map(str, group_names if group_names is not None else ()))
        if names and (stray := np.flatnonzero((arrays["group"] < 0) | (arrays["group"] >= len(names)))).size:
            number = arrays["group"][stray[0]]
            raise ValueError(f"{where or name}: row {stray[0]}, field 'group': "
                             f"{number} has no name among the {len(names)}")
        return cls(name, description,
                   Columns(**{key: np.ascontiguousarray(array, DTYPES[key]) for key, array in arrays.items()},
                           scalars={key: np.ascontiguousarray(array, np.float64) for key, array in scalars.items()},
                           texts=dict(texts or {}), group_names=names))

    def len(self) -> int:
        """Structures of the whole set that this one may be a part of."""
        return len(self.columns.natoms)

    def get(self, idx: int) -> Structure:
        """Structure ``idx`` of the whole set."""
        return Structure.of(self.columns.fields(idx))

    def arrays(self, index: int) -> dict:
        """Fields of structure ``index`` as numpy arrays: what the training reads, at a third of the cost of tensors."""
        rows = self.indices()
        if not -len(rows) <= index < len(rows):
            raise IndexError(f"{self.name} has {len(rows)} structures, there is no row {index}")
        return self.columns.fields(int(rows[index]))

    def __getitem__(self, index) -> Structure | StructureSet:
        """A structure with tensors of its own for a number, a set for a slice, rows or a mask of bool (S,)."""
        if not isinstance(index, int | np.integer):
            return self.subset(index)
        found = Structure.of(self.arrays(index))
        return found if self.transform is None else self.transform(found)

    def __copy__(self) -> StructureSet:
        made = type(self).__new__(type(self))
        # which it keeps
        made.__dict__ = {key: value for key, value in self.__dict__.items() if key not in ("natoms", "sha256")}
        return made

    def __getstate__(self) -> dict:
        """Of a part of a set in memory its own structures travel to another process, of one on disk only the rows."""
        made, rows, c = self.__copy__(), self.indices(), self.columns
        if self._indices is not None and c.path is None:
            texts = {key: [column[row] for row in rows] for key, column in c.texts.items()}
            made.columns = Columns(**{key: c.take(key, rows) for key in DTYPES}, scalars=self.scalars,
                                   texts=texts, group_names=c.group_names)
            made._indices = None
        return made.__dict__

    def __repr__(self) -> str:
        return (f"StructureSet({self.name!r}, {len(self)} structures, "
                f"{int(self.natoms.sum())} atoms, {' '.join(self.labels)})")

    def subset(self, indices: slice | range | Sequence[int] | np.ndarray) -> StructureSet:
        """The structures of a slice, rows or a mask of bool (S,), in that order, ids kept;
        ``IndexError`` beyond the end."""
        rows = range(len(self))[indices] if isinstance(indices, slice) else indices
        if not isinstance(rows, range):
            rows = np.asarray(rows)
            rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64).ravel()
            rows = np.where(rows < 0, rows + len(self), rows)
        if len(rows):
            low, high = sorted((rows[0], rows[-1])) if isinstance(rows, range) else (rows.min(), rows.max())
            if low < 0 or high >= len(self):
                raise IndexError(f"{self.name} has {len(self)} structures, the subset asks for rows {low} to {high}")
        made = self.__copy__()
        own = self.indices()
        if isinstance(own, range) and isinstance(rows, range):
            made._indices = range(*(own.start + own.step * end for end in (rows.start, rows.stop)),
                                  own.step * rows.step)
        else:
            made._indices = (own.start + own.step * rows if isinstance(own, range)
                             else own[np.asarray(rows, dtype=np.int64)])
        return made

    index_select = subset  # its name in torch_geometric

    @cached_property
    def natoms(self) -> np.ndarray:
        """Atoms of every structure, int64 (S,); int32 and mapped from a file for a set on disk."""
        return self.columns.take("natoms", self.indices())

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups that ``group`` numbers; empty where every structure is a group of its own."""
        return self.columns.group_names

    @property
    def path(self) -> Path | None:
        """Folder of a prepared set on disk."""
        return self.columns.path

    @property
    def about(self) -> dict:
        """What ``store.json`` of a prepared set says: card (facts about its source),
        rejected (reason -> how many), ..."""
        return self.columns.about

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
        """Atomic numbers that occur, sorted. Of millions of structures on disk some are in memory at a time,
        in their order."""
        if self._indices is None and "elements" in self.columns.about:
            return self.columns.about["elements"]
        rows, found = self.indices(), np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=bool)
        rows = rows if isinstance(rows, range) else np.sort(rows)
        for start in range(0, len(rows), BLOCK):
            found[self.columns.take("atomic_numbers", rows[start : start + BLOCK])] = True
        return np.flatnonzero(found).tolist()

    @property
    def periodic(self) -> bool:
        """Whether any structure repeats in any direction."""
        return bool(self.pbc.any())

    @cached_property
    def sha256(self) -> str:
        """Hash of the contents (all arrays with their names, types and shapes; not the set's name).

        A part of a prepared set on disk is not read for it: its hash is that of the whole set's hash and of the rows.
        """
        rows, known = self.indices(), self.columns.sha256
        if known is None:
            return self.contents_sha256()
        if isinstance(rows, range) and rows == range(self.len()):
            return known
        digest = hashlib.sha256(known.encode())
        digest.update(repr(rows).encode() if isinstance(rows, range) else np.ascontiguousarray(rows, "<i8").data)
        return digest.hexdigest()

    def contents_sha256(self) -> str:
        """Hash of the contents, read block by block."""
        digest = hashlib.sha256()
        for key in sorted([*DTYPES, *(f"scalar {name}" for name in self.columns.scalars)]):
            if key == "forces" and self.columns.forces is None:
                continue
            dtype = np.dtype(DTYPES.get(key, np.float64))
            count = int(self.natoms.sum()) if key in PER_ATOM else len(self)
            digest.update(f"{key} {dtype.str} {(count, *SHAPES.get(key, ()))};".encode())
            for start in range(0, len(self), BLOCK):
                block = self.columns.take(key, self.indices()[start : start + BLOCK])
                digest.update(np.ascontiguousarray(block, dtype).data)
        return digest.hexdigest()


# --- sets of structures one by one ------------------------------------------------------------------------------------


def labels_of(structure: Mapping) -> list[str]:
    """What a structure has beside its geometry, as names of columns, sorted: ``forces``, ``scalar NAME``,
    ``text NAME``; ``ValueError`` for a field that no column can hold."""
    found = ["forces"] if "forces" in structure else []
    for key in structure.keys():
        value = structure[key]
        if isinstance(value, str):
            found.append(f"text {key}")
        elif key not in (*DTYPES, "id", "fid", "name"):
            if np.ndim(value) or np.asarray(value).dtype.kind not in "iufb":
                raise ValueError(f"field {key!r} is neither a number nor a text")
            found.append(f"scalar {key}")
    return sorted(found)


def pack(structures: Sequence[Mapping], labels: list[str]) -> dict[str, np.ndarray | list[str]]:
    """Columns (as of :class:`Columns`, without group and ids) of sound structures that all have ``labels``,
    which name columns too."""
    natoms = np.array([len(s["atomic_numbers"]) for s in structures])

    def column(key: str) -> np.ndarray | list[str]:
        kind, _, name = key.partition(" ")
        if name:
            return [s[name] for s in structures] if kind == "text" else np.array([float(s[name]) for s in structures])
        values = [np.asarray(s[key]) if key in s else default(key, s) for s in structures]
        return (np.concatenate if key in PER_ATOM else np.stack)(values).astype(DTYPES[key], copy=False)

    def default(key: str, s: Mapping) -> np.ndarray:
        value = bool(np.any(s["cell"])) if key == "pbc" and "cell" in s else DEFAULTS[key]
        return np.full((len(s["atomic_numbers"]),) if key in PER_ATOM else SHAPES[key], value)

    return {"natoms": natoms} | {key: column(key)
                                 for key in ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", *labels)}


def to_set(name: str, structures: Iterable[Mapping], description: str = "", where: str = "") -> StructureSet:
    """A set in memory of the structures, all with the same labels; text ``group`` becomes the group.

    Raises ``ValueError`` when there are none, when labels differ, and as :func:`check`.
    """
    found = list(structures)
    if not found:
        raise ValueError(f"{where or name}: there is no structure in it")
    for structure in found:
        if differing := sorted(set(structure.keys()) ^ set(found[0].keys())):
            raise ValueError(f"{where or name}: structure {structure['id']} differs in {', '.join(differing)}")
    columns = pack(found, labels_of(found[0]))
    texts = {key.removeprefix("text "): columns.pop(key) for key in list(columns) if key.startswith("text ")}
    scalars = {key.removeprefix("scalar "): columns.pop(key) for key in list(columns) if key.startswith("scalar ")}
    if not columns["pbc"].any():
        del columns["cell"]
    group_names, group = np.unique(texts.pop("group"), return_inverse=True) if "group" in texts else (None, None)
    ids = np.array([int(s["id"]) for s in found])
    return StructureSet.from_arrays(name, **columns, description=description, scalars=scalars, group=group,
                                    group_names=group_names, ids=ids, texts=texts, where=where)
