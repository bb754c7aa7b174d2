"""HDF5 and LMDB files, read in a process of their own: their C libraries end the process that opens some damaged ones.

    with reads("h5", "ani1x-release.h5") as file:                    # open_h5 and open_lmdb of jmp_lib.data.formats
        file.arrays("C1H4", ("coordinates", "atomic_numbers"))

The process (this file, run as a script) is asked for one thing at a time over a pipe and sends numbers as they are.
No size is believed: an array must be held by what is stored of it, and lie in the file itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

DENSEST = 1100  # bytes that one stored byte can become: deflate makes 1,032 at most
_MEMORY = 4 << 30  # bytes of addresses that the process may use, and eight times the file
_PATIENCE = 60.0  # seconds for one answer, and one more for each megabyte of the file
_BROKEN = "it is damaged: the library that reads it broke down over it"


class Asked:
    """An open file in a process of its own: ``file.names(group)`` asks :class:`_ServesH5` or
    :class:`_ServesLmdb` there.

    Raises ``ValueError`` for what is not there or damaged.
    """

    def __init__(self, process: subprocess.Popen, patience: float):
        self._process, self._patience = process, patience

    def __getattr__(self, what: str):
        return partial(self._ask, what)

    def _ask(self, *question):
        """The answer: plain values, or arrays by name."""
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            # a library can go round in circles
            if not select.select([self._process.stdout], [], [], self._patience)[0]:
                raise ValueError(f"it is damaged: the library that reads it found no end in {self._patience:.0f} s")
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = b""
        if not said.endswith(b"\n"):
            raise ValueError(_BROKEN)
        answer = json.loads(said)
        if "error" in answer:
            raise ValueError(answer["error"])
        if "answer" in answer:
            return answer["answer"]
        found = {key: np.empty(shape, dtype) for key, (shape, dtype) in answer["arrays"].items()}
        for array in found.values():
            if self._process.stdout.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:
                raise ValueError(_BROKEN)
        return found


@contextmanager
def reads(form: str, path: str | Path) -> Iterator[Asked]:
    """A file of ``form`` (h5, lmdb), open in a process that ends with the block, or with this process."""
    command = [sys.executable, "-P", __file__, form, str(path)]  # -P: no module beside this file hides one of Python's
    few = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL, env=few) as process:
        try:
            yield Asked(process, _PATIENCE + Path(path).stat().st_size / 1e6)
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.stdin.close()


# --- in the process of its own -------------------------------------------------------------------------------


class _ServesH5:
    """An HDF5 file."""

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
        """Entries of a group; of the whole file for ""."""
        found = self.node(group)
        if not hasattr(found, "keys"):
            raise ValueError(f"{group!r} is no group, so this is another kind of file")
        return list(found)

    def arrays(self, group: str, keys: list[str], optional: list[str] = ()) -> dict[str, np.ndarray]:
        """Arrays of a group by name, texts as ``str``; optional: others, where they are there."""
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
            raise ValueError(f"{name!r} says that it has shape {found.shape}, "
                             f"which the {stored} bytes that are stored of it cannot hold")
        array = np.asarray(found[()])
        if array.dtype.kind in "OS":
            array = np.array([_text(item) for item in array.ravel()], dtype=str).reshape(array.shape)
        return np.ascontiguousarray(array).reshape(array.shape)

    def attribute(self, node: str, name: str) -> str | None:
        """An attribute as text; None where there is none."""
        found = self.node(node).attrs
        return _text(found[name]) if name in found else None


class _ServesLmdb:
    """An LMDB."""

    def __init__(self, path: str):
        import lmdb

        size = os.path.getsize(path)
        if size < 8192:  # two pages of LMDB's own come first
            raise ValueError(f"it is not an LMDB: it has {size} bytes")
        self.base = lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False, max_readers=1)
        if (self.base.info()["last_pgno"] + 1) * self.base.stat()["psize"] > size:
            raise ValueError("it is cut short")
        self.transaction = self.base.begin()

    def entries(self) -> int:
        """How many keys there are."""
        return self.base.stat()["entries"]

    def numbered(self) -> int:
        """How many of the keys are whole numbers."""
        return sum(key.isdigit() for key, _ in self.transaction.cursor())

    def values(self, keys: list[str]) -> dict[str, np.ndarray]:
        """Values by key, uint8; keys that are not there are missing."""
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
            if isinstance(answer, dict):
                arrays, said = answer, {"arrays": {key: (array.shape, array.dtype.str)
                                                   for key, array in answer.items()}}
            else:
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
