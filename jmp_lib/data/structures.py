"""A set of structures as flat arrays with offsets.

>>> data = StructureSet.from_arrays("two waters", natoms=[3, 3], pos=pos, atomic_numbers=[8, 1, 1, 8, 1, 1])
>>> data[1]["pos"].shape
(3, 3)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from jmp_lib.data.validate import check_contents, check_shapes


@dataclass(frozen=True, eq=False)
class StructureSet:
    """S structures with ΣN atoms in all. Units eV, Å, eV/Å; scalar targets in their task's label unit.

    natoms int64 (S,); pos float32 (ΣN,3); atomic_numbers uint8 (ΣN,); cell float64 (S,3,3), zeros where none;
    pbc bool (S,3); tags uint8 (ΣN,); fixed bool (ΣN,); forces float32 (ΣN,3) or None; scalars: name ->
    float64 (S,) (``energy`` and the scalar targets); group int64 (S,) with group_names; ids int64 (S,), the row
    in the set the structures were read from. Make one with :meth:`from_arrays`.
    """

    name: str
    description: str
    natoms: np.ndarray
    pos: np.ndarray
    atomic_numbers: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    tags: np.ndarray
    fixed: np.ndarray
    forces: np.ndarray | None
    scalars: dict[str, np.ndarray]
    group: np.ndarray
    group_names: tuple[str, ...]
    ids: np.ndarray
    offsets: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", np.concatenate([[0], np.cumsum(self.natoms)]).astype(np.int64))

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
    ) -> StructureSet:
        """Make a set from arrays (shapes as in the class; units already eV, Å, eV/Å) and validate it.

        Defaults: no cell; periodic in three directions where there is a cell; tags 2; nothing fixed; every
        structure a group of its own; ids 0, 1, ... ``where`` (a file's path) goes into error messages.
        Raises ``ValueError`` as :meth:`validate`.
        """
        natoms = np.asarray(natoms)
        n_structures, n_atoms = len(natoms), int(np.sum(natoms))
        arrays = {"natoms": natoms, "pos": np.asarray(pos), "atomic_numbers": np.asarray(atomic_numbers)}
        has_cell = cell is not None
        arrays["cell"] = np.asarray(cell) if has_cell else np.zeros((n_structures, 3, 3))
        arrays["pbc"] = np.full((n_structures, 3), has_cell) if pbc is None else np.asarray(pbc)
        arrays["tags"] = np.full(n_atoms, 2) if tags is None else np.asarray(tags)
        arrays["fixed"] = np.zeros(n_atoms) if fixed is None else np.asarray(fixed)
        arrays["forces"] = None if forces is None else np.asarray(forces)
        arrays["group"] = np.arange(n_structures) if group is None else np.asarray(group)
        arrays["ids"] = np.arange(n_structures) if ids is None else np.asarray(ids)
        scalars = {key: np.asarray(value) for key, value in (scalars or {}).items()}
        check_shapes(where or name, arrays, scalars)
        types = {
            "pos": np.float32,
            "atomic_numbers": np.uint8,
            "cell": np.float64,
            "pbc": bool,
            "tags": np.uint8,
            "fixed": bool,
            "forces": np.float32,
        }
        arrays = {
            key: None if a is None else np.ascontiguousarray(a, types.get(key, np.int64)) for key, a in arrays.items()
        }
        made = cls(
            name=name,
            description=description,
            group_names=tuple(map(str, group_names if group_names is not None else ())),
            scalars={key: np.ascontiguousarray(a, np.float64) for key, a in scalars.items()},
            **arrays,
        )
        made.validate(where)
        return made

    def __len__(self) -> int:
        return len(self.natoms)

    def __getitem__(self, index: int) -> dict:
        """Structure ``index`` as a dict of arrays of its own (see :mod:`jmp_lib.keys`)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} structures, there is no row {index}")
        row = int(index) % len(self)
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        structure = {
            "pos": self.pos[atoms].copy(),
            "atomic_numbers": self.atomic_numbers[atoms].astype(np.int64),
            "cell": self.cell[row].copy(),
            "pbc": self.pbc[row].copy(),
            "tags": self.tags[atoms].astype(np.int64),
            "fixed": self.fixed[atoms].copy(),
            "id": int(self.ids[row]),
        }
        if self.forces is not None:
            structure["forces"] = self.forces[atoms].copy()
        for key, values in self.scalars.items():
            structure[key] = values[row]
        return structure

    def __iter__(self) -> Iterator[dict]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"StructureSet({self.name!r}, {len(self)} structures, {len(self.pos)} atoms, {' '.join(self.labels)})"

    @property
    def labels(self) -> list[str]:
        """Names of the labels at hand: the scalars, and ``forces``."""
        return [*self.scalars, *(["forces"] if self.forces is not None else [])]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, sorted."""
        return np.unique(self.atomic_numbers).tolist()

    @property
    def periodic(self) -> bool:
        """Whether any structure repeats in any direction."""
        return bool(self.pbc.any())

    def subset(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> StructureSet:
        """The structures ``indices`` (rows of this set) in that order, ids kept; ``IndexError`` beyond the end."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(
                f"{self.name} has {len(self)} structures, the subset asks for rows {rows.min()} to {rows.max()}"
            )
        natoms = self.natoms[rows]
        starts = np.concatenate([[0], np.cumsum(natoms)])[:-1]
        atoms = np.repeat(self.offsets[rows] - starts, natoms) + np.arange(natoms.sum())
        return StructureSet(
            name=name or self.name,
            description=self.description,
            natoms=natoms,
            pos=self.pos[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
            cell=self.cell[rows],
            pbc=self.pbc[rows],
            tags=self.tags[atoms],
            fixed=self.fixed[atoms],
            forces=None if self.forces is None else self.forces[atoms],
            scalars={key: values[rows] for key, values in self.scalars.items()},
            group=self.group[rows],
            group_names=self.group_names,
            ids=self.ids[rows],
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the contents (all arrays with their names, types and shapes; not the set's name)."""
        digest = hashlib.sha256()
        arrays = {
            key: getattr(self, key)
            for key in ("natoms", "pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces", "group", "ids")
        }
        for key, array in sorted({**arrays, **{f"scalar {k}": v for k, v in self.scalars.items()}}.items()):
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
