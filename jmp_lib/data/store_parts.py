"""One part of a store's source turned into shards, going on behind the last shard that is there.

Beside each shard ``pNNNNNN-NNNNNN.safetensors`` lies its entry ``.json`` (counts, hash, how far the source is consumed,
what was left out); ``pNNNNNN.done`` says that the part is complete.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from jmp_lib.data.shards import Layout, check_structure, pack, write_shard

_BYTES_PER_ATOM, _BYTES_PER_STRUCTURE = 29, 120  # pos, forces, number, tag, fixed; cell, offset, id, labels


@dataclass(frozen=True)
class Part:
    """A part of the source: its name, a function that yields its structures from the first on, and its version.

    read must be a module-level function or a ``functools.partial`` of one when several processes are used;
    version is any text that changes when the part changes.
    """

    name: str
    read: Callable[[], Iterable[dict | LeftOut]]
    version: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Yielded by a part's reader in place of a structure that it leaves out itself, to be counted."""

    reason: str


REASONS = 50  # different reasons that are listed; further ones are counted together


def count_reason(rejected: dict[str, int], reason: str, count: int = 1) -> None:
    """Add to the number of structures that were left out for a reason."""
    reason = reason if reason in rejected or len(rejected) < REASONS else "other reasons"
    rejected[reason] = rejected.get(reason, 0) + count


def write_part(building: Path, number: int, part: Part, plan: dict, progress=None) -> int:
    """All shards of one part that are not there yet; returns the number of structures they hold."""
    if (building / f"p{number:06d}.done").is_file():
        return 0
    shards = listed(building, number)
    consumed, written = (shards[-1]["consumed"] if shards else 0), 0
    structures: list[tuple[int, dict]] = []
    rejected: dict[str, int] = {}
    size, layout = 0, None
    keep_ids = plan["ids"] == "source"

    def flush():
        nonlocal structures, rejected, size, written
        with said_in_a_sentence(building):
            good = _write_one(building, f"p{number:06d}-{len(shards):06d}", structures, layout, part.name, plan, rejected)
            shards.append({**good, "consumed": consumed, "rejected": rejected})
            write_json(building / f"p{number:06d}-{len(shards) - 1:06d}.json", shards[-1])
        written += good["structures"]
        if progress:
            progress(good["structures"])
        structures, rejected, size = [], {}, 0

    for structure in islice(iter(part.read()), consumed, None):
        if isinstance(structure, LeftOut):
            count_reason(rejected, structure.reason)
            consumed += 1
            continue
        try:
            layout = layout or _common_layout(building, structure)
            natoms = check_structure(structure, layout)
            structures.append((consumed, structure if "id" in structure or not keep_ids else {**structure, "id": consumed}))
            size += natoms * _BYTES_PER_ATOM + _BYTES_PER_STRUCTURE
        except ValueError as error:
            _reject(rejected, f"{part.name}, structure {consumed}", str(error), plan)
        consumed += 1
        if size >= plan["shard_bytes"]:
            flush()
    if structures or rejected:
        flush()
    write_json(building / f"p{number:06d}.done", {"consumed": consumed})
    return written


def _write_one(building, name, structures, layout, where, plan, rejected) -> dict:
    """One shard; bad structures are named or counted. Returns its entry of the list."""
    empty = {"file": f"{name}.safetensors", "structures": 0, "atoms": 0, "bytes": 0, "sha256": "", "elements": []}
    ids = plan["ids"] == "source"

    def packed(some):
        return pack([s for _, s in some], layout, [s["id"] for _, s in some] if ids else None, where)

    try:
        arrays = packed(structures) if structures else None
    except ValueError as error:
        good = []
        for position, structure in structures:
            try:
                packed([(position, structure)])
                good.append((position, structure))
            except ValueError as reason:
                _reject(rejected, f"{where}, structure {position}", _plain(str(reason), where), plan)
        if len(good) == len(structures):  # each is good by itself: their ids are not
            raise error
        arrays = packed(good) if good else None
    if arrays is None:
        return empty
    path = building / empty["file"]
    digest = write_shard(path, arrays, layout)
    entry = {
        **empty,
        "structures": len(arrays["offsets"]) - 1,
        "atoms": len(arrays["pos"]),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "elements": np.unique(arrays["atomic_numbers"]).tolist(),
    }
    return entry | ({"ids": [int(arrays["id"].min()), int(arrays["id"].max())]} if ids else {})


def _reject(rejected: dict[str, int], where: str, reason: str, plan: dict) -> None:
    if not plan["skip_bad"]:
        raise ValueError(f"{where}: {reason} (--skip-bad leaves such structures out and counts them)")
    count_reason(rejected, reason)


def _plain(message: str, where: str) -> str:
    return message.removeprefix(f"{where}: ").replace("row 0, ", "", 1)


def _common_layout(building: Path, structure: dict) -> Layout:
    """The layout of the store, set by the first structure that any process reads."""
    found = asdict(Layout.of(structure))
    file = building / "layout.json"
    if not file.is_file():
        own = building / f"layout.{os.getpid()}.tmp"
        own.write_text(json.dumps(found), encoding="utf-8")
        try:
            os.link(own, file)  # fails when another process was first
        except FileExistsError:
            pass
        finally:
            own.unlink()
    first = json.loads(file.read_text(encoding="utf-8"))
    return Layout(first["forces"], tuple(first["scalars"]), tuple(first["strings"]))


def listed(building: Path, number: int) -> list[dict]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(building.glob(f"p{number:06d}-*.json"))]


def write_json(path: Path, value) -> None:
    """Write JSON under its final name in one step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def said_in_a_sentence(path: Path):
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
            "(finished shards are kept)"
        ) from None
