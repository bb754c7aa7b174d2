"""A store: structures of any number in memory-mapped flat arrays, for training from disk.

A store is a folder: ``store.json`` (name, card of the source, counts, layout, hash of every shard), ``natoms.npy``
(int32 (S,), for batches of even size) and shards (:mod:`jmp_lib.data.shards`). It is made by
:func:`jmp_lib.data.store_writer.write_store` and never changes afterwards, so any number of processes may read it.

>>> store = Store("data/stores/spice-dipeptides")
>>> store[0]["pos"].shape
(32, 3)
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jmp_lib.data.shards import Layout, Shard
from jmp_lib.data.structures import StructureSet
from jmp_lib.files import file_sha256

VERSION = 1
MANIFEST = "store.json"
_MEND = "make it again with `python -m jmp_lib data prepare`"


def _shards_at_once(wanted: int = 8192) -> int:
    """How many shards a process may map: each holds a file descriptor, so the soft limit is raised where it may be."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 2 * wanted if hard == resource.RLIM_INFINITY else min(2 * wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft // 2)


class Store:
    """A store opened for reading; a sequence of structure dicts, which workers may copy, fork or pickle.

    ``name``, ``description``, ``card`` (of the source), ``sha256`` (of the contents), ``layout``, ``elements``,
    ``rejected`` (reason -> number of structures left out), ``natoms`` int32 (S,).
    """

    def __init__(self, path: str | Path):
        """Raises ``FileNotFoundError`` when there is no store and ``ValueError`` when it is not one of this version."""
        self.path = Path(path)
        manifest = read_manifest(self.path)
        self.name, self.description = manifest["name"], manifest["description"]
        self.card, self.sha256 = manifest["card"], manifest["sha256"]
        self.layout = layout_from(manifest["layout"])
        self.elements, self.rejected = manifest["elements"], manifest["rejected"]
        self.ids_are_rows = manifest["ids"] == "row"
        self.shards = manifest["shards"]
        self._starts = np.concatenate([[0], np.cumsum([shard["structures"] for shard in self.shards])]).tolist()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._max_open = _shards_at_once()
        if self._starts[-1] != manifest["structures"]:
            raise ValueError(f"{self.path / MANIFEST} is altered (its counts do not add up); {_MEND}")

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> dict:
        """Structure ``index`` as a dict of arrays of its own (see :mod:`jmp_lib.keys`)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} structures, there is no row {index}")
        row = int(index) % len(self)
        number = bisect.bisect_right(self._starts, row) - 1
        return self._shard(number).row(row - self._starts[number])

    def __iter__(self) -> Iterator[dict]:
        for shard in self.each_shard():
            yield from (shard.row(row) for row in range(len(shard)))

    def __repr__(self) -> str:
        return f"Store({self.name!r}, {len(self)} structures, {' '.join(self.labels)})"

    @property
    def labels(self) -> list[str]:
        """Names of the labels at hand: the scalars, and ``forces``."""
        return [*self.layout.scalars, *(["forces"] if self.layout.forces else [])]

    @property
    def natoms(self) -> np.ndarray:
        """Atoms of every structure, int32 (S,), memory-mapped."""
        return np.load(self.path / "natoms.npy", mmap_mode="r", allow_pickle=False)

    @property
    def bytes(self) -> int:
        """Size of the shards on disk."""
        return sum(shard["bytes"] for shard in self.shards)

    def each_shard(self) -> Iterator[Shard]:
        """The shards in the order of their rows, for work on whole columns."""
        return (self._shard(number) for number in range(len(self.shards)))

    def load(self, rows: Sequence[int] | np.ndarray | None = None) -> StructureSet:
        """The structures ``rows`` (None: all) in memory, ids kept; text column ``group`` becomes the group."""
        rows = range(len(self)) if rows is None else rows
        found = [self[int(row)] for row in rows]
        if not found:
            raise ValueError(f"no rows of {self.name} were asked for")
        groups: dict[str, int] = {}
        numbers = [groups.setdefault(s["group"], len(groups)) for s in found] if "group" in self.layout.strings else None
        return StructureSet.from_arrays(
            self.name,
            [len(s["pos"]) for s in found],
            np.concatenate([s["pos"] for s in found]),
            np.concatenate([s["atomic_numbers"] for s in found]),
            description=self.description,
            cell=np.array([s["cell"] for s in found]),
            pbc=np.array([s["pbc"] for s in found]),
            tags=np.concatenate([s["tags"] for s in found]),
            fixed=np.concatenate([s["fixed"] for s in found]),
            forces=np.concatenate([s["forces"] for s in found]) if self.layout.forces else None,
            scalars={key: np.array([s[key] for s in found]) for key in self.layout.scalars},
            group=numbers,
            group_names=list(groups) if numbers is not None else None,
            ids=[s["id"] for s in found],
        )

    def verify(self) -> None:
        """Read everything and compare with the hashes; ``ValueError`` names the first shard that is not as written."""
        for shard in self.shards:
            path = self.path / shard["file"]
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing from its store; {_MEND}")
            if path.stat().st_size != shard["bytes"] or file_sha256(path) != shard["sha256"]:
                raise ValueError(f"{path} is damaged (cut short or altered); {_MEND}")
        if contents_sha256(self.layout, self.shards) != self.sha256:
            raise ValueError(f"{self.path / MANIFEST} is altered (the hash of the contents differs); {_MEND}")

    def _shard(self, number: int) -> Shard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        start = self._starts[number] if self.ids_are_rows else None
        shard = Shard(self.path / self.shards[number]["file"], self.layout, start)
        if len(shard) != self.shards[number]["structures"]:
            raise ValueError(f"{self.path / self.shards[number]['file']} is not the shard store.json lists; {_MEND}")
        self._open[number] = shard
        if len(self._open) > self._max_open:
            self._open.popitem(last=False)
        return shard


def read_manifest(path: Path) -> dict:
    """``store.json`` of the store in folder ``path``, checked to be one of this version."""
    file = path / MANIFEST
    if not file.is_file():
        unfinished = path.with_name(f"{path.name}.building").is_dir()
        hint = "its preparation is not finished; run it again" if unfinished else "prepare it"
        raise FileNotFoundError(f"there is no store in {path}: {hint} with `python -m jmp_lib data prepare`")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["version"]
        missing = {"name", "description", "card", "sha256", "layout", "elements", "rejected", "ids", "shards"} - set(manifest)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not the list of a store (damaged or something else); {_MEND}") from None
    if version != VERSION:
        raise ValueError(f"{path} is a store of version {version!r}, this code reads version {VERSION}; {_MEND}")
    if missing:
        raise ValueError(f"{file} has no {sorted(missing)[0]!r}; {_MEND}")
    return manifest


def layout_from(values: dict) -> Layout:
    """A layout from its JSON form."""
    return Layout(values["forces"], tuple(values["scalars"]), tuple(values["strings"]))


def contents_sha256(layout: Layout, shards: list[dict]) -> str:
    """Hash of a store's contents: its layout and the hashes of its shards in order."""
    text = json.dumps([[layout.forces, layout.scalars, layout.strings], [shard["sha256"] for shard in shards]])
    return hashlib.sha256(text.encode()).hexdigest()
