"""HDF5 and LMDB files, read in a process of their own: their C libraries end the process that opens some damaged ones.

    with reads("h5", "ani1x-release.h5") as process:                 # open_h5 and open_lmdb of jmp_lib.data.formats
        Hdf5(process).arrays("C1H4", ("coordinates", "atomic_numbers"))

The process (this file, run as a script) is asked for one thing at a time over a pipe and sends numbers as they are. Nothing is
believed of a size: an array must be held by what is stored of it, and lie in the file itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

DENSEST = 1100  # bytes that one stored byte can become: deflate makes 1,032 at most
_MEMORY = 4 << 30  # bytes of addresses that the process may use, and eight times the file
_PATIENCE = 60.0  # seconds for one answer, and one more for each megabyte of the file
_BROKEN = "it is damaged: the library that reads it broke down over it"


@contextmanager
def reads(form: str, path: str | Path) -> Iterator[subprocess.Popen]:
    """The process that reads a file of ``form`` (h5, lmdb); it ends with the block, or with this process."""
    command = [sys.executable, "-P", __file__, form, str(path)]  # -P: no module beside this file hides one of Python's
    few = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL, env=few) as process:
        process.patience = _PATIENCE + Path(path).stat().st_size / 1e6
        try:
            yield process
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.stdin.close()


class _Asked:
    """An open file. Every method raises ``ValueError`` for what is not there or damaged."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def _ask(self, *question):
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], self._process.patience)[0]:  # a library can go round in circles
                raise ValueError(f"it is damaged: the library that reads it found no end in {self._process.patience:.0f} s")
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = b""
        if not said.endswith(b"\n"):
            raise ValueError(_BROKEN)
        answer = json.loads(said)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["answer"]

    def _arrays(self, *question) -> dict[str, np.ndarray]:
        found = {}
        for key, (shape, dtype) in self._ask(*question).items():
            found[key] = np.empty(shape, dtype)
            if self._process.stdout.readinto(found[key].reshape(-1).view(np.uint8)) != found[key].nbytes:
                raise ValueError(_BROKEN)
        return found


class Hdf5(_Asked):
    """An open HDF5 file."""

    def names(self, group: str) -> list[str]:
        """Entries of a group; of the whole file for ""."""
        return self._ask("names", group)

    def arrays(self, group: str, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Arrays of a group by name, texts as ``str``; optional: others, where they are there."""
        return self._arrays("arrays", group, list(keys), list(optional))

    def frames(self, group: str, keys: Iterable[str]) -> Iterator[tuple]:
        """(atomic numbers, row of array ``keys[0]``, ...) for each frame of a group; ``ValueError`` where numbers of frames differ."""
        *arrays, numbers = self.arrays(group, (*keys, "atomic_numbers")).values()
        if numbers.dtype.kind not in "iu" or not numbers.shape:
            raise ValueError(f"group {group}: 'atomic_numbers' does not hold whole numbers")
        if len({array.shape[:1] for array in arrays}) > 1 or not arrays[0].shape:
            shapes = ", ".join(f"{key} {array.shape}" for key, array in zip(keys, arrays, strict=True))
            raise ValueError(f"group {group}: the numbers of frames differ ({shapes})")
        return ((numbers, *row) for row in zip(*arrays, strict=True))

    def attribute(self, node: str, name: str) -> str | None:
        """An attribute as text; None where there is none."""
        return self._ask("attribute", node, name)


class Lmdb(_Asked):
    """An open LMDB."""

    def entries(self) -> int:
        """How many keys there are."""
        return self._ask("entries")

    def numbered(self) -> int:
        """How many of the keys are whole numbers."""
        return self._ask("numbered")

    def values(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Values by key; keys that are not there are missing."""
        return {key: array.tobytes() for key, array in self._arrays("values", list(keys)).items()}


# --- in the process of its own -------------------------------------------------------------------------------


class _ServesH5:
    def __init__(self, path: str):
        import h5py

        self.external, self.file = h5py.ExternalLink, h5py.File(path, "r")

    def node(self, name: str):
        node = self.file
        for part in filter(None, name.split("/")):
            if isinstance(node.get(part, getlink=True), self.external):
                raise ValueError(f"{name!r} lies in another file")
            node = node[part]
        return node

    def names(self, group: str) -> list[str]:
        found = self.node(group)
        if not hasattr(found, "keys"):
            raise ValueError(f"{group!r} is no group, so this is another kind of file")
        return list(found)

    def arrays(self, group: str, keys: list[str], optional: list[str]) -> dict[str, np.ndarray]:
        there = self.names(group)
        if missing := [key for key in keys if key not in there]:
            some = ", ".join(there[:8]) or "nothing"
            raise ValueError(f"group {group} has no {missing[0]!r} (it has {some}), so this is another kind of file")
        return {key: self.array(f"{group}/{key}") for key in [*keys, *(key for key in optional if key in there)]}

    def array(self, name: str) -> np.ndarray:
        found = self.node(name)
        if not hasattr(found, "dtype") or found.shape is None:
            raise ValueError(f"{name!r} is no array")
        if found.external or found.is_virtual:
            raise ValueError(f"the numbers of {name!r} lie in another file")
        stored = found.id.get_storage_size()
        chunk = int(np.prod(found.chunks or (0,), dtype=object)) * found.dtype.itemsize
        if max(found.size * found.dtype.itemsize, chunk) > max(stored * (DENSEST if found.chunks else 1), 1 << 20):
            raise ValueError(f"{name!r} says that it has shape {found.shape}, which the {stored} bytes that are stored of it cannot hold")
        array = np.asarray(found[()])
        if array.dtype.kind in "OS":
            array = np.array([_text(item) for item in array.ravel()], dtype=str).reshape(array.shape)
        return np.ascontiguousarray(array).reshape(array.shape)

    def attribute(self, node: str, name: str) -> str | None:
        found = self.node(node).attrs
        return _text(found[name]) if name in found else None


class _ServesLmdb:
    def __init__(self, path: str):
        import lmdb

        folder = os.path.isdir(path)
        size = os.path.getsize(os.path.join(path, "data.mdb") if folder else path)
        if size < 8192:  # two pages of LMDB's own come first
            raise ValueError(f"it is not an LMDB: it has {size} bytes")
        self.base = lmdb.open(path, subdir=folder, readonly=True, lock=False, readahead=False, max_readers=1)
        if (self.base.info()["last_pgno"] + 1) * self.base.stat()["psize"] > size:
            raise ValueError("it is cut short")
        self.transaction = self.base.begin()

    def entries(self) -> int:
        return self.base.stat()["entries"]

    def numbered(self) -> int:
        return sum(key.isdigit() for key, _ in self.transaction.cursor())

    def values(self, keys: list[str]) -> dict[str, np.ndarray]:
        found = {key: self.transaction.get(key.encode()) for key in keys}
        return {key: np.frombuffer(value, np.uint8) for key, value in found.items() if value is not None}


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _serve(form: str, path: str) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        limit, hard = _MEMORY + 8 * os.path.getsize(path), resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left to read for
    out, serves = sys.stdout.buffer, None
    for question in sys.stdin:
        what, *arguments = json.loads(question)
        arrays: dict[str, np.ndarray] = {}
        try:
            serves = serves or {"h5": _ServesH5, "lmdb": _ServesLmdb}[form](path)
            answer = getattr(serves, what)(*arguments)
            if what in ("arrays", "values"):
                arrays, answer = answer, {key: (array.shape, array.dtype.str) for key, array in answer.items()}
            said = {"answer": answer}
        except MemoryError:
            said = {"error": "it asks for more memory than a file of its size can need, so it is damaged"}
        except Exception as error:
            said = {"error": " ".join(str(error).removeprefix(f"{path}: ").split()) or type(error).__name__}
        out.write(json.dumps(said).encode() + b"\n")
        for array in arrays.values():
            out.write(array.reshape(-1).view(np.uint8).data)
        out.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
