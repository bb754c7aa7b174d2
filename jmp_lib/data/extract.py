"""Unpack tar and zip archives of strangers: nothing leaves the target folder, nothing half unpacked stays."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEND = "remove it and download it again"


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of a tar or zip archive."""
    return Path(path).name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"))


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack ``archive`` (tar, plain or compressed; zip) into ``folder``; returns the files, in the archive's order.

    Files are unpacked beside their place and moved when the whole archive was read, each in one step. Refused with
    ``ValueError`` (one sentence, nothing left behind): a damaged archive, a web page, a member whose path leaves the
    folder, a link or a device; ``RuntimeError`` when the disk has too little room for the next member.
    """
    archive, folder = Path(archive), Path(folder)
    unpacking = folder / f".{archive.name}.unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)  # of a run that was killed
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} is missing; download it")
    members = []
    try:
        unpacking.mkdir(parents=True)
        for name, size, stream in _members(archive):
            target = unpacking / _inside(name, archive)
            free = shutil.disk_usage(folder).free
            if size > free:
                raise RuntimeError(
                    f"unpacking {archive.name} needs {size / 1e9:.1f} GB for {name}, {folder} has {free / 1e9:.1f} GB "
                    "free; make room or choose another data root"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
            if target.stat().st_size != size:
                raise ValueError(f"{archive} is damaged ({name} is cut short); {_MEND}")
            members.append(PurePosixPath(name))
        if not members:
            raise ValueError(f"{archive} holds no files; {_MEND}")
        for name in members:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unpacking / name, folder / name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError):
        raise ValueError(f"{archive} is damaged (cut short or altered); {_MEND}") from None
    except OSError as error:
        if error.errno is None:  # bz2 and gzip say so of broken streams
            raise ValueError(f"{archive} is damaged (cut short or altered); {_MEND}") from None
        raise
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    return [folder / name for name in members]


def _members(archive: Path) -> Iterator[tuple[str, int, object]]:
    """Name, size and open stream of each file of the archive."""
    with open(archive, "rb") as stream:
        head = stream.read(512)
        if head.lstrip()[:1] == b"<":
            raise ValueError(f"{archive} is a web page (html), not an archive; {_MEND}")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for item in opened.infolist():
                if item.external_attr >> 16 & 0o170000 == 0o120000:
                    raise ValueError(f"{archive}: {item.filename!r} is a link, which is not unpacked; {_MEND}")
                if item.flag_bits & 1:
                    raise ValueError(f"{archive}: {item.filename!r} needs a password; {_MEND}")
                _inside(item.filename, archive)
                if not item.is_dir():
                    with opened.open(item) as stream:
                        yield item.filename, item.file_size, stream
        return
    if archive.name.endswith(".zip"):
        raise ValueError(f"{archive} is damaged (not a whole zip archive); {_MEND}")
    # decompressed by the standard modules, which check the sums that tarfile's own streams ignore; read once
    openers = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with openers.get(head[:2], open)(archive, "rb") as plain, tarfile.open(fileobj=plain, mode="r|") as opened:
        for item in opened:
            _inside(item.name, archive)
            if item.isdir():
                continue
            if not item.isreg():
                raise ValueError(f"{archive}: {item.name!r} is a link or a device, which is not unpacked; {_MEND}")
            yield item.name, item.size, opened.extractfile(item)
        while plain.read(1 << 20):  # to the end, where the sums are
            pass


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The member's path, or ``ValueError`` for one that climbs out of the folder it is unpacked into."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise ValueError(f"{archive}: the path {name!r} leads out of the folder, so nothing was unpacked; do not use it")
    return path
