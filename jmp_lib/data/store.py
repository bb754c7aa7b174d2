"""Prepared sets: structures of any number in flat files, mapped into memory when they are asked for.

A prepared set is a folder: ``store.json`` (name, card of the source, counts, labels, hash of the contents) and one flat
``.npy`` file for each column of :class:`~jmp_lib.data.structures.Columns`; ``numpy.load`` opens each of them. It never
changes once it is there, so any number of processes may read it, and a subset of it is rows alone.

>>> data = open_store("data/stores/oc20-2m")
>>> data[0].pos.shape, data[:1000].natoms.mean()

:func:`write_store` makes one. The source is a list of parts (usually one original file each), whose structures are
appended to the columns chunk by chunk in ``<path>.building``. After each chunk ``state.json`` says how far the files and
the source are consumed, so a preparation that was killed goes on behind its last chunk. With several processes each turns
parts into chunk files, which are appended in the order of the parts. The finished folder takes its name in one step.
Same parts, same bytes, whatever the number of processes or interruptions.
"""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from jmp_lib.data.collect import Labels, check_structure, pack
from jmp_lib.data.structures import DEFAULTS, DTYPES, PER_ATOM, PER_STRUCTURE, Columns, StructureSet, Texts
from jmp_lib.files import locked, replacing, write_json

VERSION = 2
MANIFEST = "store.json"
CHUNK_BYTES = 64 << 20  # a process that writes needs a few times this much memory
REASONS = 50  # different reasons that are listed; further ones are counted together
_HEADER = 128  # bytes before the numbers of a .npy file
_MEND = "remove it and make it again with `python -m jmp_lib data prepare`"
_WANTED = {"name", "description", "structures", "atoms", "elements", "rejected", "labels", "files", "sha256", "card", "plan"}


# --- reading -----------------------------------------------------------------------------------------------


def open_store(path: str | Path, transform=None) -> StructureSet:
    """The prepared set in folder ``path``, which stays on disk.

    Raises ``FileNotFoundError`` when there is none and ``ValueError`` (one sentence) when it is damaged or not one of
    this version.
    """
    columns = mapped(Path(path))
    return StructureSet(columns.about["name"], columns.about["description"], columns, transform)


def extra(data: StructureSet, key: str) -> np.ndarray | None:
    """An array that was kept beside the columns of a prepared set, or None."""
    return np.load(data.path / _file(key), allow_pickle=False) if key in data.columns.about["files"] else None


def verify(data: StructureSet) -> None:
    """Read a prepared set as a whole and compare its hash; ``ValueError`` when it is not as it was written."""
    if data.contents_sha256() != data.columns.sha256:
        raise ValueError(f"{data.path} is damaged (altered); {_MEND}")


def is_store(path: str | Path) -> bool:
    """Whether there is a prepared set in folder ``path``."""
    return (Path(path) / MANIFEST).is_file()


class Mapped(Columns):
    """Columns mapped from the files of a prepared set; another process maps them anew."""

    travels = True

    def __reduce_ex__(self, protocol):
        return mapped, (self.path,)


def mapped(path: Path, about: dict | None = None) -> Mapped:
    """The columns of a prepared set, mapped from its files; about: what ``store.json`` says."""
    about = about or _manifest(path)
    arrays: dict[str, np.ndarray] = {}
    for key, size in about["files"].items():
        file = path / _file(key)
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing from its store; {_MEND}")
        if file.stat().st_size != size:
            raise ValueError(f"{file} is damaged (cut short or altered); {_MEND}")
        try:
            arrays[key] = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except (ValueError, EOFError):
            raise ValueError(f"{file} is damaged (cut short or altered); {_MEND}") from None
    total, atoms = about["structures"], about["atoms"]
    try:
        lengths = {**dict.fromkeys(DTYPES, total), **dict.fromkeys(PER_ATOM, atoms), "offsets": total + 1}
        if any(len(array) != lengths.get(key, len(array)) for key, array in arrays.items()):
            raise KeyError
        made = {key: arrays[key] for key in (*DTYPES, "offsets") if key in arrays}
        scalars = {name: arrays[f"scalar {name}"] for name in about["labels"]["scalars"]}
        texts = {name: Texts(arrays[f"ends {name}"], arrays[f"text {name}"]) for name in about["labels"]["texts"]}
        names = Texts(arrays["ends group_names"], arrays["text group_names"]) if "text group_names" in arrays else ()
        return Mapped(**made, scalars=scalars, texts=texts, group_names=names, sha256=about["sha256"], about=about, path=path)
    except (KeyError, TypeError):
        raise ValueError(f"{path / MANIFEST} is altered (its counts and files do not add up); {_MEND}") from None


def _manifest(path: Path) -> dict:
    file = path / MANIFEST
    if not file.is_file():
        unfinished = path.with_name(f"{path.name}.building").is_dir()
        hint = "its preparation is not finished; run it again" if unfinished else "prepare it"
        raise FileNotFoundError(f"there is no store in {path}: {hint} with `python -m jmp_lib data prepare`")
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        version, missing = about["version"], sorted(_WANTED - set(about))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not the list of a store (damaged or something else); {_MEND}") from None
    if version != VERSION:
        raise ValueError(f"{path} is a store of version {version!r}, this code reads version {VERSION}; {_MEND}")
    if missing:
        raise ValueError(f"{file} has no {missing[0]!r}; {_MEND}")
    return about


def _file(key: str) -> str:
    return f"{key.replace(' ', '.')}.npy"


# --- writing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the source: its name, a function that yields its structures from the first on, and its version.

    read must be a module-level function or a ``functools.partial`` of one when several processes are used;
    version is any text that changes when the part changes.
    """

    name: str
    read: Callable[[], Iterable[Mapping | LeftOut]]
    version: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Yielded by a part's reader in place of a structure that it leaves out itself, to be counted."""

    reason: str


def file_part(read: Callable[..., Iterator[Mapping]], path: str | Path, **options) -> Part:
    """The part that ``read(path, **options)`` yields; its version is the file's size and time of change."""
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; download it or name the right file") from None
    return Part(path.name, partial(read, path, **options), f"{found.st_size} {found.st_mtime_ns} {options}")


def set_part(data: StructureSet, version: str = "") -> Part:
    """The part that holds the structures of a set."""
    return Part(data.name, data.__iter__, version or data.sha256)


def write_store(
    path: str | Path,
    parts: list[Part],
    *,
    name: str,
    description: str = "",
    card: dict | None = None,
    processes: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
    ids: str | None = None,
    skip_bad: bool = False,
    extras: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> StructureSet:
    """Make the prepared set ``path`` of all structures of ``parts`` in order, or open it when it is there already.

    card: facts about the source, kept as they are. processes: parts are shared among so many. ids: ``source`` keeps the
    readers' ids (the default with one part; they must differ), ``row`` numbers the structures of the store.
    skip_bad: leave out structures that no training may see and count the reasons, else the first one is an error.
    extras: arrays that are kept beside the columns (see :func:`extra`). progress: called with the number of structures
    of each chunk written.
    Raises ``ValueError`` (one sentence) for bad structures, for another store or another begun preparation in the
    place, ``RuntimeError`` when somebody else is preparing it or the disk is full or read-only.
    """
    path = Path(path).resolve()
    if not parts:
        raise ValueError(f"there is nothing to make the store {path} of: no source file was found")
    ids = ids or ("source" if len(parts) == 1 else "row")
    if ids not in ("source", "row"):
        raise ValueError(f"ids must be 'source' or 'row', not {ids!r}")
    plan = {"name": name, "parts": [[p.name, p.version] for p in parts], "chunk_bytes": chunk_bytes, "ids": ids,
            "skip_bad": skip_bad, "version": VERSION}  # fmt: skip
    building = path.with_name(f"{path.name}.building")
    with _said_in_a_sentence(path), locked(f"{path}.lock", f"another process is preparing {path}; wait until it is done"):
        if not path.exists():
            if not (building / MANIFEST).is_file():
                _begin(building, plan)
                columns = _Files(building, plan)
                _append_parts(columns, parts, processes, progress)
                columns.finish(description, card or {}, extras or {})
            for leftover in ("plan.json", "labels.json", "state.json"):
                (building / leftover).unlink(missing_ok=True)
            os.replace(building, path)
        made = open_store(path)
        if made.columns.about["plan"] != plan:
            raise ValueError(f"{path} is a store made from other files or settings; remove it or choose another place")
        return made


def _begin(building: Path, plan: dict) -> None:
    """The folder of an unfinished store, new or begun from the same parts and settings."""
    file = building / "plan.json"
    building.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        write_json(file, plan)
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        begun = None
    if begun != plan:
        raise ValueError(f"{building} was begun from other files or settings; remove that folder to start anew")
    for stale in building.glob("*.tmp"):
        stale.unlink(missing_ok=True)


def _append_parts(columns: _Files, parts: list[Part], processes: int, progress) -> None:
    """Append what is not there yet, in the order of the parts."""
    todo = range(columns.state["part"], len(parts))
    if processes <= 1 or len(todo) <= 1:
        for number in todo:
            columns.append_chunks(number, progress)
            for chunk in chunks(columns.building, number, parts[number], columns.plan, columns.consumed(number)):
                columns.append(chunk)
                progress(chunk["structures"])
            columns.part_done(number)
        return
    context, finished = multiprocessing.get_context("spawn"), set()
    with ProcessPoolExecutor(processes, context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        running = {pool.submit(_write_chunks, columns.building, n, parts[n], columns.plan, columns.consumed(n)): n for n in todo}
        try:
            for done in as_completed(running):
                done.result()
                finished.add(running[done])
                while columns.state["part"] in finished:
                    columns.append_chunks(columns.state["part"], progress)
                    columns.part_done(columns.state["part"])
        except BrokenProcessPool:
            raise RuntimeError(
                f"a process that prepares {columns.building} was ended from outside (out of memory?); run the same command "
                "again, with fewer processes: finished chunks are kept"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with(parent: int) -> None:
    """Workers end when the process that started them is gone, so that nobody writes without the lock."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def chunks(building: Path, number: int, part: Part, plan: dict, consumed: int) -> Iterator[dict]:
    """Chunks of a part behind its first ``consumed`` structures: columns, and what they are (see :func:`_chunk`)."""
    labels, waiting, rejected, size = None, [], {}, 0
    for structure in islice(iter(part.read()), consumed, None):
        where, consumed = f"{part.name}, structure {consumed}", consumed + 1
        if isinstance(structure, LeftOut):
            _count(rejected, structure.reason)
            continue
        try:
            found = Labels.of(structure)
            labels = labels or _common_labels(building, found)
            check_structure(structure, where)
            if found != labels:
                raise ValueError(f"{where}: its labels are {found} where the first structure of the store has {labels}")
        except ValueError as error:
            reason = str(error).removeprefix(f"{where}: ")
            if not plan["skip_bad"]:
                raise ValueError(f"{where}: {reason} (--skip-bad leaves such structures out and counts them)") from None
            _count(rejected, reason)
            continue
        waiting.append(structure if "id" in structure else {**structure, "id": consumed - 1})
        size += 29 * len(structure["atomic_numbers"]) + 120
        if size >= plan["chunk_bytes"]:
            yield _chunk(waiting, labels, plan, consumed, rejected)
            waiting, rejected, size = [], {}, 0
    if waiting or rejected:
        yield _chunk(waiting, labels, plan, consumed, rejected)


def _chunk(structures: list, labels: Labels | None, plan: dict, consumed: int, rejected: dict[str, int]) -> dict:
    columns = pack(structures, labels) if structures else {}
    for key in [key for key in columns if key.startswith("text ")]:
        texts = Texts.of(columns.pop(key))
        columns |= {key: texts.bytes, f"ends {key[5:]}": texts.offsets[1:]}
    if structures and plan["ids"] == "source":
        columns["ids"] = np.array([int(s["id"]) for s in structures])
    return {"columns": columns, "structures": len(structures), "consumed": consumed, "rejected": rejected}


def _count(rejected: dict[str, int], reason: str, count: int = 1) -> None:
    """Add to the number of structures that were left out for a reason."""
    reason = reason if reason in rejected or len(rejected) < REASONS else "other reasons"
    rejected[reason] = rejected.get(reason, 0) + count


def _common_labels(building: Path, found: Labels) -> Labels:
    """The labels of the store, set by the first structure that any process reads."""
    file = building / "labels.json"
    if not file.is_file():
        own = building / f"labels.{os.getpid()}.tmp"
        own.write_text(json.dumps(found), encoding="utf-8")
        try:
            os.link(own, file)  # fails when another process was first
        except FileExistsError:
            pass
        finally:
            own.unlink()
    forces, scalars, texts = json.loads(file.read_text(encoding="utf-8"))
    return Labels(forces, tuple(scalars), tuple(texts))


def _write_chunks(building: Path, number: int, part: Part, plan: dict, consumed: int) -> None:
    """What one of several processes does: the chunks of a part that are not there yet, a file each."""
    consumed = max([consumed, *(int(file.suffixes[0][1:]) for file in _chunk_files(building, number))])
    for chunk in chunks(building, number, part, plan, consumed):
        with _said_in_a_sentence(building), replacing(building / f"chunk-{number:06d}.{chunk['consumed']:012d}.npz") as temporary:
            about = json.dumps({key: value for key, value in chunk.items() if key != "columns"})
            with open(temporary, "wb") as stream:
                np.savez(stream, about=np.array(about), **{f"column {key}": array for key, array in chunk["columns"].items()})


def _chunk_files(building: Path, number: int) -> list[Path]:
    return sorted(building.glob(f"chunk-{number:06d}.*.npz"))


class _Files:
    """The columns of an unfinished store, to which chunks are appended, and ``state.json``: what they hold for certain."""

    def __init__(self, building: Path, plan: dict):
        self.building, self.plan, self.file = building, plan, building / "state.json"
        self.state = {"part": 0, "consumed": 0, "structures": 0, "atoms": 0, "elements": [], "rejected": {},
                      "plain": dict.fromkeys(DEFAULTS, True), "counts": {}}  # fmt: skip
        if self.file.is_file():
            self.state = json.loads(self.file.read_text(encoding="utf-8"))
        for leftover in building.glob("chunk-*.npz"):
            number, consumed = int(leftover.name[6:12]), int(leftover.suffixes[0][1:])
            if number < self.state["part"] or consumed <= self.consumed(number):
                leftover.unlink()

    def consumed(self, number: int) -> int:
        """Structures of part ``number`` that the files hold or left out."""
        return self.state["consumed"] if number == self.state["part"] else 0

    def append_chunks(self, number: int, progress) -> None:
        """Append the chunk files of a part, and remove them."""
        for file in _chunk_files(self.building, number):
            with np.load(file, allow_pickle=False) as arrays:
                chunk = json.loads(str(arrays["about"]))
                chunk["columns"] = {key[7:]: arrays[key] for key in arrays.files if key.startswith("column ")}
            self.append(chunk)
            file.unlink()
            progress(chunk["structures"])

    def append(self, chunk: dict) -> None:
        """Append the columns of a chunk; it counts once ``state.json`` says so."""
        state, columns = json.loads(json.dumps(self.state)), dict(chunk["columns"])
        with _said_in_a_sentence(self.building):
            if columns:
                numbers, natoms = columns["atomic_numbers"], columns["natoms"]
                columns["natoms"] = natoms.astype(np.int32)
                columns["offsets"] = state["atoms"] + np.cumsum(natoms, dtype=np.int64)
                for key in [key for key in columns if key.startswith("ends ")]:
                    columns[key] = columns[key] + state["counts"].get(f"text {key[5:]}", 0)
                for key, array in columns.items():
                    self._append(key, np.ascontiguousarray(array), state["counts"])
                state["structures"] += len(natoms)
                state["atoms"] += len(numbers)
                state["elements"] = sorted({*state["elements"], *np.unique(numbers).tolist()})
                state["plain"] = {k: plain and bool((columns[k] == DEFAULTS[k]).all()) for k, plain in state["plain"].items()}
            for reason, count in chunk["rejected"].items():
                _count(state["rejected"], reason, count)
            self._commit({**state, "consumed": chunk["consumed"]})

    def part_done(self, number: int) -> None:
        """Part ``number`` is complete."""
        with _said_in_a_sentence(self.building):
            self._commit({**self.state, "part": number + 1, "consumed": 0})

    def _append(self, key: str, array: np.ndarray, counts: dict[str, int]) -> None:
        with open(self.building / _file(key), "ab") as stream:
            place = _HEADER + counts.get(key, 0) * array.dtype.itemsize * int(np.prod(array.shape[1:]))
            if key == "offsets" or key.startswith("ends "):
                place += 8  # they begin with 0
            if stream.tell() < place:
                stream.write(bytes(place - stream.tell()))
            stream.truncate(place)
            stream.write(array.data)
            stream.flush()
            os.fsync(stream.fileno())
        counts[key] = counts.get(key, 0) + len(array)

    def _commit(self, state: dict) -> None:
        write_json(self.file, state)
        self.state = state

    def finish(self, description: str, card: dict, extras: Mapping[str, np.ndarray]) -> None:
        """Headers of the columns, groups, extras and ``store.json``; then the folder is a store but for its name."""
        state, plan, building = self.state, self.plan, self.building
        total, atoms = state["structures"], state["atoms"]
        if not total:
            reasons = "; ".join(f"{count} times: {reason}" for reason, count in state["rejected"].items())
            raise ValueError(f"{plan['name']}: there is no structure in the source" + (f" that is good ({reasons})" if reasons else ""))
        forces, scalars, texts = json.loads((building / "labels.json").read_text(encoding="utf-8"))
        if not state["plain"]["pbc"]:
            state["plain"]["cell"] = False  # cells and their directions go together
        dropped = [key for key, plain in state["plain"].items() if plain]
        for key in dropped:
            (building / _file(key)).unlink(missing_ok=True)
        counts = {key: count for key, count in state["counts"].items() if key not in dropped}
        for key, count in counts.items():
            self._header(key, count)
        if "group" in texts:
            texts.remove("group")
            counts = {key: n for key, n in counts.items() if not key.endswith(" group")} | self._number_groups(total)
        for key, array in extras.items():
            np.save(building / _file(key), array)
            counts[key] = len(array)
        about = {
            "format": "jmp store", "version": VERSION, "name": plan["name"], "description": description, "structures": total,
            "atoms": atoms, "elements": state["elements"], "rejected": state["rejected"],
            "labels": {"forces": forces, "scalars": scalars, "texts": texts}, "sha256": None, "card": card, "plan": plan,
            "files": {key: (building / _file(key)).stat().st_size for key in counts},
        }  # fmt: skip
        columns = mapped(building, about)
        if plan["ids"] == "source":
            _check_ids(columns.ids, plan["name"])
        about["sha256"] = StructureSet(plan["name"], description, columns).contents_sha256()
        write_json(building / MANIFEST, about)

    def _header(self, key: str, count: int) -> None:
        """The first bytes of a .npy file, now that its length is known; what a killed process wrote beyond is cut off."""
        dtype, shape = _form(key)
        count += key == "offsets" or key.startswith("ends ")
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, *shape)}
        )
        if header.tell() != _HEADER:
            raise RuntimeError(f"numpy writes headers of {header.tell()} bytes, where this code expects {_HEADER}")
        with open(self.building / _file(key), "rb+") as stream:
            stream.write(header.getvalue())
            stream.truncate(_HEADER + count * dtype.itemsize * int(np.prod(shape)))

    def _number_groups(self, total: int) -> dict[str, int]:
        """Text ``group`` becomes numbers in the order of the sorted names, and the names."""
        texts = Texts(*(np.load(self.building / _file(f"{kind} group"), mmap_mode="r") for kind in ("ends", "text")))
        table: dict[str, int] = {}
        group = np.lib.format.open_memmap(self.building / _file("group"), mode="w+", dtype=np.int64, shape=(total,))
        for row in range(total):
            group[row] = table.setdefault(texts[row], len(table))
        names = sorted(table)
        rank = np.empty(len(names), np.int64)
        rank[[table[name] for name in names]] = np.arange(len(names))
        for start in range(0, total, 1 << 20):
            group[start : start + (1 << 20)] = rank[group[start : start + (1 << 20)]]
        group.flush()
        made = Texts.of(names)
        np.save(self.building / _file("ends group_names"), made.offsets)
        np.save(self.building / _file("text group_names"), made.bytes)
        for kind in ("ends", "text"):
            (self.building / _file(f"{kind} group")).unlink()
        return {"group": total, "ends group_names": len(names), "text group_names": len(made.bytes)}


def _form(key: str) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape of a row of a column on disk."""
    if key.startswith("text "):
        return np.dtype(np.uint8), ()
    if key == "offsets" or key.startswith("ends "):
        return np.dtype(np.int64), ()
    if key == "natoms":
        return np.dtype(np.int32), ()
    return np.dtype(DTYPES.get(key, np.float64)), (PER_ATOM | PER_STRUCTURE).get(key, ())


def _check_ids(ids: np.ndarray, name: str) -> None:
    """Ids differ over the whole store; rising ones need no sorting."""
    block = 1 << 20
    if all((np.diff(ids[start : start + block + 1]) > 0).all() for start in range(0, len(ids), block)):
        return
    found = np.sort(ids)
    twice = found[1:][found[1:] == found[:-1]]
    if twice.size:
        raise ValueError(f"{name}: id {twice[0]} occurs more than once; use ids='row' where ids of a source repeat")


@contextmanager
def _said_in_a_sentence(path: Path):
    """Errors of the disk as one sentence."""
    try:
        yield
    except OSError as error:
        words = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "it is read-only",
                 errno.EACCES: "writing there is not permitted", errno.EEXIST: "a file is in the way",
                 errno.ENOTDIR: "a file is in the way"}.get(error.errno)  # fmt: skip
        if words is None:
            raise  # a sentence of ours already, or nothing that a sentence would help
        place = Path(os.fsdecode(error.filename)) if error.filename else path
        if not (place.is_relative_to(path.parent) or place in path.parents):
            raise RuntimeError(f"cannot read {place}: {error.strerror}; mend its permissions and try again") from None
        raise RuntimeError(
            f"cannot write {path}: {words}; make room or choose another place, then run the same command again "
            "(finished chunks are kept)"
        ) from None
