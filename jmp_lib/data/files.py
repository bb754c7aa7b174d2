"""Reading npz archives safely, and saying in one sentence what is wrong with a file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np


def check_head(path: str | Path, what: str, magic: bytes | tuple[bytes, ...] = b"", *, mend: str) -> Path:
    """The path of a file that begins as ``what`` (an npz archive, a gzip file, ...) does.

    magic: first bytes that such a file has, or several of which one. mend: how to get a good file, closes each
    message. Raises ``FileNotFoundError`` when there is no such file and ``ValueError`` when it is empty, a web page, a
    git-lfs pointer or something else; one sentence each.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {mend}")
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise ValueError(f"{path} is empty; {mend}")
    if head.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page (html), not {what}: the download was answered by a page; {mend}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a git-lfs pointer, not the file itself; {mend}")
    if not head.startswith(magic):
        raise ValueError(f"{path} is not {what}; {mend}")
    return path


def read_npz(path: str | Path, keys: list[str] | None = None, *, mend: str) -> dict[str, np.ndarray]:
    """Arrays of an npz archive, nothing in it executed (no pickle).

    keys: the arrays to read (None: all); each must be there. mend: how to get a good file, closes each message.
    Raises ``FileNotFoundError`` when there is no such file and ``ValueError`` when it is empty, a web page, cut
    short, altered (zip checksums), holds pickled objects, or lacks a key; one sentence each.
    """
    path = check_head(path, "an npz archive", b"PK", mend=mend)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys or [] if key not in archive.files]
            if not missing:
                return {key: archive[key] for key in (archive.files if keys is None else keys)}
            found = ", ".join(archive.files) or "nothing"
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, NotImplementedError):
        raise ValueError(f"{path} is damaged (cut short or altered); {mend}") from None
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise ValueError(f"{path} holds pickled Python objects, which are never loaded; {mend}") from None
        raise ValueError(f"{path} is damaged (an array in it cannot be read); {mend}") from None
    raise ValueError(f"{path} has no array {', '.join(map(repr, missing))} (it has {found}); {mend}")
