"""Fetch files (go on where a download stopped, try mirrors, check sums) and unpack them; nothing half done stays.

What has come of a file lies in ``<file>.partial``; beside it, in ``<file>.partial.json``, its address, version (ETag) and size
when it is whole.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from jmp_lib.data.formats import check_head, opened
from jmp_lib.files import locked, writing

CHUNK = 1 << 16  # what is lost of the transfer when a connection breaks
SPARE = 200 << 20  # bytes to be left free on the disk
TRIES = 5  # in a row without any progress
_WAIT = 1.0  # seconds before the second try; doubles
_BROKEN = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.exceptions.Timeout)


@dataclass(frozen=True)
class Source:
    """One address of a file. checksum: "md5:..." or "sha256:...", or None; size in bytes, or None."""

    url: str
    checksum: str | None = None
    size: int | None = None


def fetch(path: str | Path, sources: list[Source], *, progress: bool = True) -> Path:
    """The file ``path``, downloaded from the first of ``sources`` that works, or as it is when it is there and good.

    Raises ``RuntimeError`` when no source works (what each said, and where to put the file by hand), when somebody
    else is downloading it or the disk is too small; ``ValueError`` when the file that is there has another checksum.
    """
    path = Path(path).resolve()
    with locked(f"{path}.lock", f"another process is downloading {path}; wait until it is done"):
        if path.is_file():
            _check(path, "the file", [source.checksum for source in sources if source.checksum], "move it away and run the same command again")
            return path
        failures = []
        for source in sources:
            try:
                return _fetch_from(path, source, progress)
            except requests.exceptions.ConnectionError:
                failures.append(f"{source.url} (no connection)")
            except (ValueError, requests.exceptions.RequestException) as error:
                failures.append(f"{source.url} ({str(error)[:300]})")
        raise RuntimeError(f"{path.name} could not be downloaded from {' nor from '.join(failures)}; get it by other means and put "
                           f"it at {path}")


def _check(path: Path, what: str, checksums: list[str], mend: str) -> None:
    """Raise ``ValueError`` for a page, an empty file, or one that has none of ``checksums`` (where there are any)."""
    check_head(path, what, mend=mend)
    for kind, _, wanted in (checksum.partition(":") for checksum in checksums):
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, kind).hexdigest() == wanted.lower():
                return
    if checksums:
        raise ValueError(f"{path} has not the published checksum {' or '.join(checksums)}: it is damaged or another version; {mend}")


def _beside(path: Path) -> tuple[Path, Path]:
    """What has come of a file, and what is known of it."""
    return path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.partial.json")


def _have(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _forget(path: Path) -> None:
    for file in _beside(path):
        file.unlink(missing_ok=True)


def _fetch_from(path: Path, source: Source, progress: bool) -> Path:
    """The whole file from one source, over any number of broken connections and runs."""
    (part, about), tries, whole = _beside(path), 0, False
    while not whole:
        before = _have(part)
        try:
            _ask(path, source, progress)
            whole = True
        except _BROKEN:
            tries = 0 if _have(part) > before else tries + 1
            if tries >= TRIES:
                raise
            time.sleep(_WAIT * 2**tries)
    try:
        _check(part, path.name, [source.checksum] if source.checksum else [], "it was thrown away")
    except ValueError:
        _forget(path)
        raise
    os.replace(part, path)
    about.unlink(missing_ok=True)
    return path


def _ask(path: Path, source: Source, progress: bool) -> None:
    """One request for what is missing. An answer is looked at before any of it is written; a whole file writes over the part."""
    part, about = _beside(path)
    try:
        known = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("url") != source.url:  # a part from another address is thrown away
        _forget(path)
        known = {}
    have, etag = _have(part), known.get("etag") or ""
    if have and have == known.get("total"):
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "jmp-workbook"}  # bytes as stored, else a position means nothing
    if have:  # weak versions (W/) cannot vouch for bytes
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag.startswith('"') else {})
    with requests.get(source.url, headers=headers, stream=True, timeout=(30, 120)) as answer:
        goes_on = answer.status_code == 206
        if answer.status_code == 416 or goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _forget(path)
            raise requests.exceptions.ConnectionError("the part at hand does not fit the file on the server")
        if answer.status_code not in (200, 206):
            raise ValueError(f"the server answers {answer.status_code} {answer.reason}")
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise ValueError("the server answers with a web page (html) instead of the file")
        have, length = have if goes_on else 0, answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _check_room(path, (total or source.size or 0) - have, path.parent)
        with writing(part):
            about.write_text(json.dumps({"url": source.url, "etag": answer.headers.get("ETag"), "total": total}), encoding="utf-8")
            with tqdm(total=total, initial=have, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar, \
                    open(part, "ab" if goes_on else "wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of a tar or zip archive."""
    return Path(path).name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"))


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack ``archive`` (tar, plain or compressed; zip) into ``folder``; returns the files, sorted.

    Files are unpacked beside their place and moved when the whole archive was read, each in one step. Nothing is written outside
    the folder. Refused with ``ValueError`` (one sentence, nothing left behind): a damaged archive, a web page, a tar with a
    link, a device or a path that leaves the folder; ``RuntimeError`` when the disk has too little room.
    """
    archive, folder = Path(archive), Path(folder)
    unpacking = folder / f".{archive.name}.unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)  # of a run that was killed
    try:
        with opened(archive, "an archive", mend="remove it and download it again"):
            unpacking.mkdir(parents=True)
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as zipped:
                    _check_room(archive, sum(item.file_size for item in zipped.infolist()), folder)
                    zipped.extractall(unpacking)  # checks the sums, and leaves out what of a name leads elsewhere
            else:
                _untar(archive, unpacking)
            files = sorted(path.relative_to(unpacking) for path in unpacking.rglob("*") if path.is_file())
            if not files:
                raise ValueError("it holds no files")
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unpacking / file, folder / file)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    return [folder / file for file in files]


def _untar(archive: Path, folder: Path) -> None:
    def files_only(item: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        if not item.isreg() and not item.isdir():
            raise ValueError(f"{item.name!r} is a link or a device, which is not unpacked")
        _check_room(archive, item.size, folder)
        return tarfile.data_filter(item, path)

    # decompressed by the standard modules, which check the sums that tarfile's own streams ignore; read once
    with open(archive, "rb") as stream:
        opener = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(stream.read(2), open)
    with opener(archive, "rb") as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        tar.extractall(folder, filter=files_only)
        while plain.read(1 << 20):  # to the end, where the sums are
            pass


def _check_room(file: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise RuntimeError(f"{file} needs {needed / 1e9:.2f} GB more, {folder} has {free / 1e9:.2f} GB free (of which "
                           f"{SPARE / 1e9:.1f} GB stay free); make room or choose another data root")
