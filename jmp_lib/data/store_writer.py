"""Write a store from readers of any length: in bounded memory, on several processes, going on after being killed.

The source is a list of parts (usually one original file each). Every part is turned into shards of its own, which
are written one by one into ``<path>.building``; a shard that is listed there is never made again, so a preparation
that was killed goes on behind its last shard. The finished folder takes its final name in one step: there is no
half-written store. Same parts and settings, same bytes, whatever the number of processes or interruptions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from jmp_lib.data.shards import Layout, Shard
from jmp_lib.data.store import MANIFEST, VERSION, Store, contents_sha256
from jmp_lib.data.store_parts import Part, count_reason, listed, said_in_a_sentence, write_json, write_part
from jmp_lib.data.structures import StructureSet

SHARD_BYTES = 128 << 20  # a process that writes needs up to about 6 times this much memory


@dataclass(frozen=True)
class _Plan:
    name: str
    parts: list
    shard_bytes: int
    ids: str
    skip_bad: bool
    version: int = VERSION


def file_part(read: Callable[..., Iterator[dict]], path: str | Path, **options) -> Part:
    """The part that ``read(path, **options)`` yields; its version is the file's size and time of change."""
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; download it or name the right file") from None
    return Part(path.name, partial(read, path, **options), f"{found.st_size} {found.st_mtime_ns} {options}")


def set_part(data: StructureSet) -> Part:
    """The part that holds the structures of a set in memory, its group names as text column ``group``."""
    return Part(data.name, partial(_rows, data), data.sha256)


def write_store(
    path: str | Path,
    parts: list[Part],
    *,
    name: str,
    description: str = "",
    card: dict | None = None,
    processes: int = 1,
    shard_bytes: int = SHARD_BYTES,
    ids: str | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Store:
    """Make the store ``path`` of all structures of ``parts`` in order, or return it when it is there already.

    card: facts about the source, kept as they are. processes: parts are shared among so many. ids: ``source`` keeps the
    readers' ids (the default with one part; they must differ), ``row`` numbers the structures of the store.
    skip_bad: leave out structures that no training may see and count the reasons, else the first one is an error.
    progress: called with the number of structures of each shard written.
    Raises ``ValueError`` (one sentence) for bad structures, for another store or another begun preparation in the
    place, ``RuntimeError`` when somebody else is preparing it or the disk is full or read-only.
    """
    path = Path(path).resolve()
    if not parts:
        raise ValueError(f"there is nothing to make the store {path} of: no source file was found")
    ids = ids or ("source" if len(parts) == 1 else "row")
    if ids not in ("source", "row"):
        raise ValueError(f"ids must be 'source' or 'row', not {ids!r}")
    plan = json.loads(json.dumps(asdict(_Plan(name, [[p.name, p.version] for p in parts], shard_bytes, ids, skip_bad))))
    with said_in_a_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(f"{path}.lock", timeout=0).acquire()
        except Timeout:
            raise RuntimeError(f"another process is preparing {path}; wait until it is done") from None
        with held:
            if path.exists():
                return _same_or_refuse(path, plan)
            building = path.with_name(f"{path.name}.building")
            if not (building / MANIFEST).is_file():
                _begin(building, plan)
                _write_parts(building, parts, plan, processes, progress or (lambda count: None))
                _finish(building, plan, description, card or {})
            _tidy(building)
            os.replace(building, path)
            return _same_or_refuse(path, plan)


def _rows(data: StructureSet) -> Iterator[dict]:
    for row, structure in enumerate(data):
        if data.group_names:
            structure["group"] = data.group_names[data.group[row]]
        yield structure


def _same_or_refuse(path: Path, plan: dict) -> Store:
    found = Store(path)
    if json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("plan") != plan:
        raise ValueError(f"{path} is a store made from other files or settings; remove it or choose another place")
    return found


def _begin(building: Path, plan: dict) -> None:
    """The folder of an unfinished store, new or begun from the same parts and settings."""
    file = building / "plan.json"
    building.mkdir(exist_ok=True)
    if not file.is_file():
        write_json(file, plan)
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        begun = None
    if begun != plan:
        raise ValueError(f"{building} was begun from other files or settings; remove that folder to start anew")


def _write_parts(building: Path, parts: list[Part], plan: dict, processes: int, progress) -> None:
    for stale in building.glob("*.tmp"):
        stale.unlink(missing_ok=True)
    tasks = [(building, number, part, plan) for number, part in enumerate(parts)]
    if processes <= 1 or len(parts) == 1:
        for task in tasks:
            write_part(*task, progress)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        running = [pool.submit(write_part, *task) for task in tasks]
        try:
            for done in as_completed(running):
                progress(done.result())
        except BrokenProcessPool:
            raise RuntimeError(
                f"a process that prepares {building} was ended from outside (out of memory?); run the same command again, "
                "with fewer processes: finished shards are kept"
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


def _finish(building: Path, plan: dict, description: str, card: dict) -> None:
    """natoms.npy and store.json; then the folder is a store but for its name."""
    entries = [shard for number in range(len(plan["parts"])) for shard in listed(building, number)]
    shards = [shard for shard in entries if shard["structures"]]
    total = sum(shard["structures"] for shard in shards)
    rejected: dict[str, int] = {}
    for shard in entries:
        for reason, count in shard["rejected"].items():
            count_reason(rejected, reason, count)
    if not total:
        reasons = "; ".join(f"{count} times: {reason}" for reason, count in rejected.items())
        raise ValueError(f"{plan['name']}: there is no structure in the source" + (f" that is good ({reasons})" if reasons else ""))
    values = json.loads((building / "layout.json").read_text(encoding="utf-8"))
    layout = Layout(values["forces"], tuple(values["scalars"]), tuple(values["strings"]))
    manifest = {
        "format": "jmp store", "version": VERSION, "name": plan["name"], "description": description,
        "structures": total, "atoms": sum(shard["atoms"] for shard in shards),
        "elements": sorted({z for shard in shards for z in shard["elements"]}), "rejected": rejected,
        "layout": values, "ids": plan["ids"], "sha256": contents_sha256(layout, shards), "card": card, "plan": plan,
        "shards": [{key: shard[key] for key in ("file", "structures", "atoms", "bytes", "sha256")} for shard in shards],
    }  # fmt: skip
    natoms = np.lib.format.open_memmap(building / "natoms.npy", mode="w+", dtype=np.int32, shape=(total,))
    start = 0
    for shard in shards:
        natoms[start : start + shard["structures"]] = np.diff(Shard(building / shard["file"], layout, 0).offsets)
        start += shard["structures"]
    natoms.flush()
    if plan["ids"] == "source":
        _check_ids(building, layout, shards, plan["name"])
    write_json(building / MANIFEST, manifest)


def _tidy(building: Path) -> None:
    """Remove what only an unfinished store needs."""
    unneeded = ("p[0-9]*.json", "p*.done", "plan.json", "layout.json")
    for leftover in [file for pattern in unneeded for file in building.glob(pattern)]:
        leftover.unlink()


def _check_ids(building: Path, layout: Layout, shards: list[dict], name: str) -> None:
    """Ids differ over the whole store; shards whose ranges of ids do not overlap need no reading."""
    ordered = sorted(shards, key=lambda shard: shard["ids"][0])
    if all(low["ids"][1] < high["ids"][0] for low, high in zip(ordered, ordered[1:], strict=False)):
        return
    found = np.concatenate([np.array(Shard(building / shard["file"], layout, None).id) for shard in shards])
    found.sort()
    twice = found[1:][found[1:] == found[:-1]]
    if twice.size:
        raise ValueError(f"{name}: id {twice[0]} occurs more than once; use ids='row' where ids of a source repeat")
