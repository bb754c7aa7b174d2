"""One shard of a store: some thousand structures as flat arrays in one safetensors file.

A shard is an ordinary safetensors file (any safetensors library opens it); here it is memory-mapped, so that a row
costs a few slices and many worker processes share one copy in memory. Arrays, S structures with ΣN atoms:

``offsets`` int64 (S+1,), the atoms of row i are offsets[i]:offsets[i+1]; ``pos`` float32 (ΣN,3) Å; ``atomic_numbers``
uint8 (ΣN,); ``forces`` float32 (ΣN,3) eV/Å; ``id`` int64 (S,); ``scalar/<name>`` float64 (S,); text columns
``string/<name>`` int32 (S,), the number of the text in a table ``string/<name>/bytes`` uint8 with its ``/offsets``
int64. Left out where every structure has the default: ``cell`` float64 (S,3,3) Å and ``pbc`` bool (S,3) (no cell),
``tags`` uint8 (ΣN,) (2), ``fixed`` bool (ΣN,) (False).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jmp_lib.data.structures import StructureSet

ARRAYS = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces")
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
_MEND = "make the store again with `python -m jmp_lib data prepare`"


@dataclass(frozen=True)
class Layout:
    """The labels that every structure of a store has: forces or not, names of number columns and text columns."""

    forces: bool
    scalars: tuple[str, ...]
    strings: tuple[str, ...]

    @classmethod
    def of(cls, structure: dict) -> Layout:
        """The layout of one structure; raises ``ValueError`` for a field that no column can hold."""
        scalars, strings = [], []
        for key, value in structure.items():
            if key in ARRAYS or key == "id":
                continue
            if isinstance(value, str):
                strings.append(key)
            elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iufb":
                scalars.append(key)
            else:
                raise ValueError(f"field {key!r} is neither a number nor a text")
        return cls(structure.get("forces") is not None, tuple(sorted(scalars)), tuple(sorted(strings)))


def check_structure(structure: dict, layout: Layout) -> int:
    """Number of atoms; raises ``ValueError`` when shapes of a structure do not fit each other or the layout differs."""
    missing = [key for key in ("pos", "atomic_numbers") if key not in structure]
    if missing:
        raise ValueError(f"field {missing[0]!r} is missing")
    natoms = len(np.atleast_1d(structure["atomic_numbers"]))
    for key in ("pos", "forces"):
        if structure.get(key) is not None and np.shape(structure[key]) != (natoms, 3):
            raise ValueError(f"field {key!r} has shape {np.shape(structure[key])} where {natoms} atoms need ({natoms}, 3)")
    for key in ("tags", "fixed"):
        if key in structure and np.shape(structure[key]) != (natoms,):
            raise ValueError(f"field {key!r} has shape {np.shape(structure[key])} where {natoms} atoms need ({natoms},)")
    for key, shape in (("cell", (3, 3)), ("pbc", (3,))):
        if key in structure and np.shape(structure[key]) != shape:
            raise ValueError(f"field {key!r} has shape {np.shape(structure[key])}, not {shape}")
    found = Layout.of(structure)
    if found != layout:
        raise ValueError(
            f"its labels are {_words(found)} where the first structure of the store has {_words(layout)}"
        )
    return natoms


def pack(structures: list[dict], layout: Layout, ids: list[int] | None, where: str) -> dict[str, np.ndarray]:
    """The arrays of a shard from structures that passed :func:`check_structure`.

    ids: the column ``id``, or None for a store whose ids are its rows. Raises ``ValueError`` (``where``, row, field,
    what is wrong) for contents that no training may see, as :meth:`StructureSet.validate`.
    """
    natoms = [len(s["atomic_numbers"]) for s in structures]
    total = sum(natoms)

    def per_atom(key, default):
        if any(key in s for s in structures):
            return np.concatenate([s[key] if key in s else np.full(n, default) for s, n in zip(structures, natoms, strict=True)])
        return np.full(total, default)

    no_cell, no_pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    cells = np.array([s.get("cell", no_cell) for s in structures], dtype=np.float64)
    pbc = [s.get("pbc", no_pbc if not np.any(c) else ~no_pbc) for s, c in zip(structures, cells, strict=True)]
    checked = StructureSet.from_arrays(
        where,
        np.array(natoms),
        np.concatenate([s["pos"] for s in structures]),
        np.concatenate([s["atomic_numbers"] for s in structures]),
        cell=cells,
        pbc=np.array(pbc),
        tags=per_atom("tags", 2),
        fixed=per_atom("fixed", False),
        forces=np.concatenate([s["forces"] for s in structures]) if layout.forces else None,
        scalars={key: np.array([s[key] for s in structures], dtype=np.float64) for key in layout.scalars},
        ids=ids,
    )
    arrays = {"offsets": checked.offsets, "pos": checked.pos, "atomic_numbers": checked.atomic_numbers}
    if checked.cell.any() or checked.pbc.any():
        arrays |= {"cell": checked.cell, "pbc": checked.pbc}
    if (checked.tags != 2).any():
        arrays["tags"] = checked.tags
    if checked.fixed.any():
        arrays["fixed"] = checked.fixed
    if layout.forces:
        arrays["forces"] = checked.forces
    if ids is not None:
        arrays["id"] = checked.ids
    arrays |= {f"scalar/{key}": values for key, values in checked.scalars.items()}
    for key in layout.strings:
        arrays |= _text_column(f"string/{key}", [s[key] for s in structures])
    return arrays


def write_shard(path: Path, arrays: dict[str, np.ndarray], layout: Layout) -> str:
    """Write a shard under its final name in one step (a temporary file, then a rename); returns its SHA-256."""
    from safetensors.numpy import save

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    about = {"forces": layout.forces, "scalars": layout.scalars, "strings": layout.strings}
    try:
        # one metadata entry: safetensors does not promise an order of several, and equal shards must hash alike
        contents = save(arrays, metadata={"jmp_store_shard": json.dumps(about)})
        with open(temporary, "wb") as stream:
            stream.write(contents)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        return hashlib.sha256(contents).hexdigest()
    finally:
        temporary.unlink(missing_ok=True)


class Shard:
    """A shard opened for reading; its arrays are read-only views of the mapped file."""

    def __init__(self, path: Path, layout: Layout, id_start: int | None):
        """id_start: id of the first row where ids are rows. Raises ``ValueError`` for a missing or damaged file."""
        try:
            with open(path, "rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing from its store; {_MEND}") from None
        except ValueError:
            raise ValueError(f"{path} is empty; {_MEND}") from None
        try:
            length = int.from_bytes(mapped[:8], "little")
            header = json.loads(mapped[8 : 8 + length])
            header.pop("__metadata__", None)
            arrays = {
                key: np.ndarray(item["shape"], _DTYPES[item["dtype"]], mapped, 8 + length + item["data_offsets"][0])
                for key, item in header.items()
            }
            if 8 + length + max(item["data_offsets"][1] for item in header.values()) != len(mapped):
                raise ValueError
            self.offsets = arrays["offsets"]
            self.pos, self.atomic_numbers = arrays["pos"], arrays["atomic_numbers"]
            self.forces = arrays["forces"] if layout.forces else None
            self.scalars = [(key, arrays[f"scalar/{key}"]) for key in layout.scalars]
            self.strings = [(key, arrays[f"string/{key}"], *self._table(arrays, key)) for key in layout.strings]
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ValueError(f"{path} is damaged (cut short or altered); {_MEND}") from None
        self.cell, self.pbc = arrays.get("cell"), arrays.get("pbc")
        self.tags, self.fixed = arrays.get("tags"), arrays.get("fixed")
        self.id, self.id_start = arrays.get("id"), id_start

    @staticmethod
    def _table(arrays: dict, key: str) -> tuple[np.ndarray, np.ndarray]:
        return arrays[f"string/{key}/offsets"], arrays[f"string/{key}/bytes"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def texts(self, key: str) -> tuple[np.ndarray, list[str]]:
        """Text column ``key``: the number of each row's text, int32 (S,), and the texts. ``KeyError``: no such column."""
        for name, numbers, offsets, text in self.strings:
            if name == key:
                ends = offsets.tolist()
                return numbers, [text[a:b].tobytes().decode() for a, b in zip(ends, ends[1:], strict=False)]
        raise KeyError(key)

    def row(self, index: int) -> dict:
        """Structure ``index`` of the shard as a dict of arrays of its own (see :mod:`jmp_lib.keys`)."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        natoms = int(stop - start)
        structure = {
            "pos": self.pos[start:stop].copy(),
            "atomic_numbers": self.atomic_numbers[start:stop].astype(np.int64),
            "cell": np.zeros((3, 3)) if self.cell is None else self.cell[index].copy(),
            "pbc": np.zeros(3, dtype=bool) if self.pbc is None else self.pbc[index].copy(),
            "tags": np.full(natoms, 2) if self.tags is None else self.tags[start:stop].astype(np.int64),
            "fixed": np.zeros(natoms, dtype=bool) if self.fixed is None else self.fixed[start:stop].copy(),
            "id": index + self.id_start if self.id is None else int(self.id[index]),
        }
        if self.forces is not None:
            structure["forces"] = self.forces[start:stop].copy()
        for key, values in self.scalars:
            structure[key] = values[index]
        for key, numbers, offsets, text in self.strings:
            number = numbers[index]
            structure[key] = text[offsets[number] : offsets[number + 1]].tobytes().decode()
        return structure


def _text_column(key: str, texts: list[str]) -> dict[str, np.ndarray]:
    """The three arrays of a text column: each different text is kept once."""
    table: dict[str, int] = {}
    numbers = [table.setdefault(text, len(table)) for text in texts]
    encoded = [text.encode() for text in table]
    return {
        key: np.array(numbers, dtype=np.int32),
        f"{key}/offsets": np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64),
        f"{key}/bytes": np.frombuffer(b"".join(encoded) + b"\0", dtype=np.uint8),  # never empty
    }


def _words(layout: Layout) -> str:
    names = [*layout.scalars, *layout.strings, *(["forces"] if layout.forces else [])]
    return ", ".join(names) or "none"
