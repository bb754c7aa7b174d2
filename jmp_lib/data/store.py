"""Prepared sets: structures of any number in flat files, mapped into memory when they are asked for.

A prepared set is a folder: ``store.json`` (name, card of the source, labels, hash of the contents, dtype and shape of
every column) and one file of plain numbers for each column of :class:`~jmp_lib.data.structures.Columns`. It never
changes once it is there, so any number of processes may read it, and a subset of it is rows alone.

>>> data = open_store("data/stores/oc20-2m")
>>> data[0].pos.shape, data[:1000].natoms.mean()

:func:`write_store` appends structures to the columns chunk by chunk in ``<path>.building``. After each chunk
``store.json`` says how far the files and the source are consumed, so a preparation that was killed goes on behind its
last chunk. The finished folder takes its name in one step. Same parts, same bytes, whatever the interruptions.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from jmp_lib.data.door import DTYPES, PER_ATOM, check_structure
from jmp_lib.data.structures import BLOCK, Columns, StructureSet, labels_of, pack
from jmp_lib.files import locked, write_json, writing

VERSION = 4
MANIFEST = "store.json"
CHUNK_BYTES = 64 << 20  # a process that writes needs a few times this much memory
REASONS = 50  # different reasons that are listed; further ones are counted together
_MEND = "remove it and make it again with `python -m jmp_lib data prepare`"


# --- reading -----------------------------------------------------------------------------------------------


def open_store(path: str | Path) -> StructureSet:
    """The prepared set in folder ``path``, which stays on disk; ``FileNotFoundError`` when there is none,
    ``ValueError`` (one sentence) when it is damaged or not one of this version."""
    columns = mapped(Path(path))
    return StructureSet(columns.about["plan"]["name"], columns.about["description"], columns)


def extra(data: StructureSet, key: str) -> np.ndarray | None:
    """An array that was kept beside the columns of a prepared set, or None."""
    form = data.columns.about["columns"].get(key)
    return form and np.array(_column(data.path, key, *form))


def verify(data: StructureSet) -> None:
    """Read a prepared set as a whole and compare its hash; ``ValueError`` when it is not as it was written."""
    if data.contents_sha256() != data.columns.sha256:
        raise ValueError(f"{data.path} is damaged (altered); {_MEND}")


def is_store(path: str | Path) -> bool:
    """Whether there is a prepared set in folder ``path``."""
    return (Path(path) / MANIFEST).is_file()


@dataclass(frozen=True)
class Texts(Sequence):
    """Texts one after the other: bytes uint8, and where each begins and ends, offsets int64 (S+1,)."""

    offsets: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.bytes[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()


class Mapped(Columns):
    """Columns mapped from the files of a prepared set; another process maps them anew."""

    def __reduce_ex__(self, protocol):
        return mapped, (self.path,)


def mapped(path: Path, about: dict | None = None) -> Mapped:
    """The columns of a prepared set, mapped from its files; about: what ``store.json`` says."""
    about = about or _manifest(path)
    try:
        arrays = {key: _column(path, key, *form) for key, form in about["columns"].items()}
        made = {key: arrays[key] for key in (*DTYPES, "offsets") if key in arrays}
        total, atoms = about["structures"], about["atoms"]
        if any(len(a) != (atoms if key in PER_ATOM else total + (key == "offsets")) for key, a in made.items()):
            raise KeyError
        scalars = {key.removeprefix("scalar "): arrays[key] for key in arrays if key.startswith("scalar ")}
        names = [key.removeprefix("text ") for key in arrays if key.startswith("text ")]
        texts = {name: Texts(arrays[f"ends {name}"], arrays[f"text {name}"]) for name in names}
        group_names = texts.pop("group_names", ())
        return Mapped(**made, scalars=scalars, texts=texts, group_names=group_names,
                      sha256=about["sha256"], about=about, path=path)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path / MANIFEST} is altered (its counts and files do not add up); {_MEND}") from None


def _manifest(path: Path) -> dict:
    file = path / MANIFEST
    if not file.is_file():
        unfinished = path.with_name(f"{path.name}.building").is_dir()
        hint = "its preparation is not finished; run it again" if unfinished else "prepare it"
        raise FileNotFoundError(f"there is no store in {path}: {hint} with `python -m jmp_lib data prepare`")
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        version = about["version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not the list of a store (damaged or something else); {_MEND}") from None
    if version != VERSION:
        raise ValueError(f"{path} is a store of version {version!r}, this code reads version {VERSION}; {_MEND}")
    return about


def _file(key: str) -> str:
    return f"{key.replace(' ', '.')}.bin"


def _size(dtype: str, shape: list[int]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _column(path: Path, key: str, dtype: str, shape: list[int]) -> np.ndarray:
    file, size = path / _file(key), _size(dtype, shape)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing from its store; {_MEND}")
    if file.stat().st_size != size:
        raise ValueError(f"{file} is damaged (cut short or altered); {_MEND}")
    return np.memmap(file, dtype, "r", shape=tuple(shape)).view(np.ndarray) if size else np.empty(shape, dtype)


# --- writing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the source: its name, a function that yields its structures from the first on, its version,
    any text that changes when the part changes, and a list in which the function says why it leaves out
    others ("place: reason")."""

    name: str
    read: Callable[[], Iterable[Mapping]]
    version: str = ""
    rejected: list[str] = field(default_factory=list)


def write_store(path: str | Path, parts: list[Part], *, name: str, description: str = "", card: dict | None = None,
                chunk_bytes: int = CHUNK_BYTES, extras: Mapping[str, np.ndarray] | None = None,
                progress: Callable[[int], None] = lambda count: None) -> StructureSet:
    """Make the prepared set ``path`` of all structures of ``parts`` in order, or open it when it is there already.

    Structures that no training may see are left out and their reasons counted. The ids of a single part are kept
    and must differ; structures of several parts are numbered. card: facts about the source, kept as they are.
    extras: arrays that are kept beside the columns (see :func:`extra`). progress: called with the number of
    structures of each chunk written. Raises ``ValueError`` (one sentence) where no structure is good, for another
    store or another begun preparation in the place, ``RuntimeError`` when somebody else is preparing it or the disk
    is full or read-only.
    """
    path = Path(path).resolve()
    if not parts:
        raise ValueError(f"there is nothing to make the store {path} of: no source file was found")
    plan = {"name": name, "parts": [[part.name, part.version] for part in parts]}
    with writing(path), locked(f"{path}.lock", f"another process is preparing {path}; wait until it is done"):
        if not path.exists():
            store = _Unfinished(path.with_name(f"{path.name}.building"), plan)
            if store.about["sha256"] is None:
                first, consumed = store.about["position"]
                for number, part in enumerate(parts[first:], first):
                    store.add(part, number, consumed if number == first else 0, chunk_bytes, progress)
                store.finish(description, card or {}, extras or {})
            store.tidy()
            os.replace(store.folder, path)
        made = open_store(path)
        if made.columns.about["plan"] != plan:
            raise ValueError(f"{path} is a store made from other files or settings; remove it or choose another place")
        return made


class _Unfinished:
    """The folder of an unfinished store; what counts of it is what ``store.json`` says (``about``)."""

    def __init__(self, folder: Path, plan: dict):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).is_file():
            write_json(folder / MANIFEST, {"format": "jmp store", "version": VERSION, "plan": plan, "position": [0, 0],
                                           "structures": 0, "atoms": 0, "elements": [], "labels": None, "rejected": {},
                                           "columns": {}, "sha256": None})
        try:
            self.about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except ValueError:
            self.about = {}
        if (self.about.get("plan"), self.about.get("version")) != (plan, VERSION):
            raise ValueError(f"{folder} was begun from other files or settings; remove that folder to start anew")
        self.tidy()
        columns = self.about["columns"]
        names = Texts(*(self._column(f"{kind} names") for kind in ("ends", "text"))) if "text names" in columns else ()
        self.groups = {name: number for number, name in enumerate(names)}

    def tidy(self) -> None:
        """Remove what a killed process left: other files, and of the columns what does not count."""
        sizes = {_file(key): _size(*form) for key, form in self.about["columns"].items()}
        for file in self.folder.iterdir():
            if file.name in sizes:
                os.truncate(file, sizes[file.name])
            elif file.name != MANIFEST:
                file.unlink()

    def add(self, part: Part, number: int, consumed: int, chunk_bytes: int, progress: Callable[[int], None]) -> None:
        """Append what is sound of part ``number`` behind its first ``consumed`` structures, chunk by chunk."""
        waiting, size, structures = [], 0, iter(part.read())
        for _ in islice(structures, consumed):
            part.rejected.clear()
        for structure in structures:
            self._left_out(part)
            where, consumed = f"{part.name}, structure {consumed}", consumed + 1
            try:
                found, known = labels_of(structure), self.about["labels"]
                check_structure(structure, where)
                if known is not None and found != known:
                    words = [", ".join(names) or "none" for names in (found, known)]
                    raise ValueError(f"its labels are {words[0]} where the first structure of the store has {words[1]}")
            except ValueError as error:
                self._count(str(error).removeprefix(f"{where}: "))
                continue
            self.about["labels"] = found
            waiting.append(structure if "id" in structure else {**structure, "id": consumed - 1})
            size += 29 * len(structure["atomic_numbers"]) + 120
            if size >= chunk_bytes:
                self._append(waiting, [number, consumed])
                progress(len(waiting))
                waiting, size = [], 0
        self._left_out(part)
        self._append(waiting, [number + 1, 0])
        progress(len(waiting))

    def _left_out(self, part: Part) -> None:
        for text in part.rejected:
            self._count(text.rpartition(": ")[2])  # without the place
        part.rejected.clear()

    def _count(self, reason: str) -> None:
        rejected = self.about["rejected"]
        reason = reason if reason in rejected or len(rejected) < REASONS else "other reasons"
        rejected[reason] = rejected.get(reason, 0) + 1

    def _append(self, structures: list[Mapping], position: list[int]) -> None:
        """Append the columns of sound structures, behind which the source is at ``position`` (part, structures
        consumed of it); they count once ``store.json`` says so."""
        about = self.about
        if structures:
            columns = pack(structures, about["labels"])
            if len(about["plan"]["parts"]) == 1:
                columns["ids"] = np.array([int(s["id"]) for s in structures])
            self._extend_ends("offsets", about["atoms"], columns["natoms"])
            if groups := columns.pop("text group", None):  # numbered as they come
                known = len(self.groups)
                self._extend("numbers", np.array([self.groups.setdefault(group, len(self.groups)) for group in groups]))
                self._extend_texts("names", list(self.groups)[known:])
            for key, column in columns.items():
                if key.startswith("text "):
                    self._extend_texts(key.removeprefix("text "), column)
                else:
                    self._extend(key, column)
            about["structures"] += len(structures)
            about["atoms"] += int(columns["natoms"].sum())
            about["elements"] = sorted({*about["elements"], *np.unique(columns["atomic_numbers"]).tolist()})
        about["position"] = position
        write_json(self.folder / MANIFEST, about)

    def finish(self, description: str, card: dict, extras: Mapping[str, np.ndarray]) -> None:
        """Groups in the order of their names, extras, hash; then the folder is a store but for its name."""
        about, columns, name = self.about, self.about["columns"], self.about["plan"]["name"]
        if not about["structures"]:
            reasons = "; ".join(f"{number} times: {reason}" for reason, number in about["rejected"].items())
            raise ValueError(f"{name}: there is no structure in the source"
                             + (f" that is good ({reasons})" if reasons else ""))
        if self.groups:
            names, numbers = sorted(self.groups), self._column("numbers")
            rank = np.empty(len(names), np.int64)
            rank[[self.groups[name] for name in names]] = np.arange(len(names))
            for start in range(0, len(numbers), BLOCK):
                self._extend("group", rank[numbers[start : start + BLOCK]])
            self._extend_texts("group_names", names)
            for key in ("numbers", "ends names", "text names"):
                del columns[key]
        for key, array in extras.items():
            self._extend(key, array)
        found = mapped(self.folder, about)
        if found.ids is not None and (np.diff(found.ids) <= 0).any():  # rising ones need no sorting
            ids = np.sort(found.ids)
            if (twice := ids[1:][ids[1:] == ids[:-1]]).size:
                raise ValueError(f"{name}: id {twice[0]} occurs more than once")
        del about["position"]
        about |= {"description": description, "card": card,
                  "sha256": StructureSet(name, description, found).contents_sha256()}
        write_json(self.folder / MANIFEST, about)

    def _column(self, key: str) -> np.ndarray:
        return _column(self.folder, key, *self.about["columns"][key])

    def _extend(self, key: str, array: np.ndarray) -> None:
        form = self.about["columns"].setdefault(key, [array.dtype.str, [0, *array.shape[1:]]])
        with open(self.folder / _file(key), "ab") as stream:
            stream.write(np.ascontiguousarray(array, form[0]).data)
            stream.flush()
            os.fsync(stream.fileno())
        form[1][0] += len(array)

    def _extend_ends(self, key: str, before: int, lengths: Sequence[int]) -> None:
        ends = before + np.cumsum(lengths, dtype=np.int64)
        self._extend(key, ends if key in self.about["columns"] else np.concatenate([[0], ends]).astype(np.int64))

    def _extend_texts(self, name: str, texts: list[str]) -> None:
        encoded, (_, (before,)) = ([text.encode() for text in texts],
                                   self.about["columns"].get(f"text {name}", [None, [0]]))
        self._extend_ends(f"ends {name}", before, list(map(len, encoded)))
        self._extend(f"text {name}", np.frombuffer(b"".join(encoded), np.uint8))
