"""Small things with files, once: whole files only, hashes, locks, and a library's error as one sentence.

    with write_atomically(path) as stream:          # text; "wb" for bytes
        stream.write(...)
    with replacing(path) as temporary:              # for libraries that want a path
        figure.savefig(temporary, format="png")
    with reading(path, "download it again"):        # an error inside names the file and the mend
        table = pd.read_csv(path)
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "it is read-only",
        errno.EACCES: "writing there is not permitted", errno.EPERM: "writing there is not permitted",
        errno.EEXIST: "a file is in the way", errno.ENOTDIR: "a file is in the way",
        errno.EISDIR: "a folder is in the way", errno.EFBIG: "the file becomes larger than is allowed here",
        errno.EIO: "the disk has an error"}  # fmt: skip


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` (made where it is missing); what was written there is forced to disk
    and takes its place at the end.

    A kill at any moment leaves the old file or the new one, and at most ``<name>.tmp``, which the next writer
    takes over; when the block raises, the old file stays. Two who write the same file take turns. Errors of the
    disk as of :func:`writing`.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    with writing(path), locked(temporary):
        if path.is_dir():  # known before anything is computed for it
            raise IsADirectoryError(errno.EISDIR, "", str(path))
        os.truncate(temporary, 0)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)


@contextmanager
def write_atomically(path: str | Path, mode: str = "w"):
    """A stream into a temporary file that takes the place of ``path`` when the block ends well; mode: "w" (UTF-8, line
    ends as written) or "wb"."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with replacing(path) as temporary, open(temporary, mode, **text) as stream:
        yield stream


@contextmanager
def writing(path: str | Path):
    """Turns an error of the disk while ``path`` is written into ``RuntimeError`` with the file,
    the reason and the mend.

    Also one that a library hides behind its own: torch says "unexpected pos 64 vs 0" where the disk is full.
    """
    try:
        yield
    except Exception as error:
        if reason := _of_disk(error, str(path)):
            raise RuntimeError(f"cannot write {path}: {reason}; make room or choose another place, "
                               "then run the same command again (what is finished is kept)") from None
        raise


def _of_disk(error: BaseException | None, path: str) -> str | None:
    """In words, what the disk had against ``path``, where ``error`` or one before it says so."""
    while error is not None:
        hidden = re.search(r"\(os error (\d+)\)", str(error))  # of a library in Rust
        number, name = ((error.errno, error.filename) if isinstance(error, OSError)
                        else (hidden and int(hidden[1]), None))
        if number in DISK and (name is None or str(name).startswith(path) or path.startswith(str(name))):
            return DISK[number]
        error = None if error.__suppress_context__ else error.__context__
    return None


def write_json(path: str | Path, value) -> None:
    """Atomically write readable JSON of plain values and numpy's numbers; NaN and infinity become null,
    as JSON has neither."""
    plain = json.loads(json.dumps(value, default=lambda number: number.item()), parse_constant=lambda _: None)
    contents = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    with write_atomically(path) as stream:
        stream.write(contents)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: str | Path, busy: str | None = None, wait: bool = False):
    """Nobody else holds the lock file ``path`` meanwhile; afterwards it is gone. The system frees
    that of a killed holder.

    Waits for it; with a sentence ``busy``, raises ``RuntimeError(busy)`` at once, or says it and waits (``wait``).
    """
    path, held = Path(path), None
    while held is None or not _is_at(held, path):  # else the one who held it has removed it
        with writing(str(path).removesuffix(".tmp")):
            path.parent.mkdir(parents=True, exist_ok=True)
            held = open(path, "ab")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy and not wait:
                raise RuntimeError(busy) from None
            if busy:
                print(busy, file=sys.stderr, flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
    with held:
        try:
            yield
        finally:
            if _is_at(held, path):
                path.unlink()


def _is_at(held, path: Path) -> bool:
    """Whether the file at ``path`` is the open one."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(held.fileno()), os.stat(path))
    return False


@contextmanager
def reading(path: str | Path, mend: str):
    """Turns whatever a library raises while it reads ``path`` into one sentence with the file and the mend.

    ``FileNotFoundError`` for a missing file, else ``ValueError``. A ``ValueError``, ``FileNotFoundError`` or
    ``RuntimeError`` that names the file already passes unchanged.
    """
    try:
        yield
    except MemoryError:
        raise ValueError(f"{path} asks for more memory than there is: it is damaged, "
                         f"or too large for this machine; {mend}") from None
    except Exception as error:
        # said already
        if isinstance(error, (ValueError, FileNotFoundError, RuntimeError)) and str(error).startswith(str(path)):
            raise
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} is missing; {mend}") from None
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read ({said}); {mend}") from error
