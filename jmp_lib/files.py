"""Small things with files, once: whole files only, hashes, locks, and a library's error as one sentence.

    with write_atomically(path) as stream:          # text; "wb" for bytes
        stream.write(...)
    with replacing(path) as temporary:              # for libraries that want a path
        figure.savefig(temporary, format="png")
    with reading(path, "download it again"):        # an error inside names the file and the mend
        table = pd.read_csv(path)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; what was written there is forced to disk and takes its place at the end.

    The folder is made where it is missing. A kill at any moment leaves the old file or the new one; when the block
    raises, the old one stays and the temporary file goes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _force_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_atomically(path: str | Path, mode: str = "w"):
    """A stream into a temporary file that takes the place of ``path`` when the block ends well; mode: "w" (UTF-8, line
    ends as written) or "wb"."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with replacing(path) as temporary, open(temporary, mode, **text) as stream:
        yield stream


def write_json(path: str | Path, value) -> None:
    """Atomically write readable JSON; NaN and infinity become null (JSON has no such numbers)."""
    contents = json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with write_atomically(path) as stream:
        stream.write(contents)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: str | Path, busy: str | None = None):
    """Nobody else holds the lock file ``path`` meanwhile; the system frees it when its holder is killed.

    Waits for it, or, with a sentence ``busy``, raises ``RuntimeError(busy)`` at once.
    """
    from filelock import FileLock, Timeout

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path, timeout=-1 if busy is None else 0).acquire()
    except Timeout:
        raise RuntimeError(busy) from None
    with held:
        yield


@contextmanager
def reading(path: str | Path, mend: str):
    """Turns whatever a library raises while it reads ``path`` into one sentence with the file and the mend.

    ``FileNotFoundError`` for a missing file, else ``ValueError``. A ``ValueError``, ``FileNotFoundError`` or
    ``RuntimeError`` that names the file already passes unchanged; so do errors of memory.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, (ValueError, FileNotFoundError, RuntimeError)) and str(error).startswith(str(path)):
            raise
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} is missing; {mend}") from None
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read ({said}); {mend}") from error


def _plain(value):
    """Numpy numbers to Python's, tuples to lists, non-finite numbers to None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 0):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _force_folder(folder: Path) -> None:
    """Forces the new names in ``folder`` to disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
