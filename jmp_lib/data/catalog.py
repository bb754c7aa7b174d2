"""What can be downloaded: every published data set and part, its files, where they go and how they are read; and
fetching them (go on where a download stopped, try mirrors, check sums) and unpacking them, so that nothing half
done stays.

What goes together is in ``facts/catalog.yaml``; addresses, sizes, checksums and licences are in
``facts/downloads.csv``. What has come of a file lies in ``<file>.partial``; beside it, in ``<file>.partial.json``,
its address, version (ETag) and size when it is whole.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import json
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import requests
import yaml
from tqdm import tqdm

from jmp_lib.data.formats import check_head, matching, opened
from jmp_lib.files import locked, writing
from jmp_lib.parameters import nearest
from jmp_lib.paths import FACTS_DIR, data_dirs, data_place

CHUNK = 1 << 16  # what is lost of the transfer when a connection breaks
SPARE = 200 << 20  # bytes to be left free on the disk
TRIES = 5  # in a row without any progress
_WAIT = 1.0  # seconds before the second try; doubles


class _Misfit(requests.exceptions.RequestException):
    """The server has another file than the one of which a part is at hand."""


_BROKEN = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError,
           requests.exceptions.Timeout, _Misfit)


@cache
def downloads() -> list[dict[str, str]]:
    """Rows of facts/downloads.csv, without pandas: readers say where their files come from as soon
    as they are imported."""
    with open(FACTS_DIR / "downloads.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def source_url(dataset: str, use: str | None = None, **more: str) -> str:
    """First URL of ``dataset`` in facts/downloads.csv with that use and other columns;
    ``KeyError`` when it has none."""
    wanted = {"dataset": dataset, **({"use": use} if use else {}), **more}
    for row in downloads():
        if all(row[key] == value for key, value in wanted.items()):
            return row["url"]
    raise KeyError(f"downloads.csv has no row with {wanted}")


@dataclass(frozen=True)
class Source:
    """One address of a file. checksum: "md5:..." or "sha256:...", or None; size in bytes, or None."""

    url: str
    checksum: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Entry:
    """A data set or a part of one.

    files: names of the needed files; folder: where they go under the data root; unpack: names of archives inside the
    archive to unpack too; reader, options: module of ``jmp_lib.data`` and its options;
    originals: patterns of what the reader takes, under the folder, of which the first with a match is taken; citation:
    the publication to cite.
    """

    name: str
    dataset: str
    what: str
    files: list[str]
    folder: str
    reader: str
    originals: list[str]
    citation: str
    options: dict[str, str] = field(default_factory=dict)
    unpack: tuple[str, ...] = ()

    def rows(self, file: str) -> list[dict]:
        """Rows of downloads.csv for one file: its addresses, without those of an older version."""
        found = [row for row in downloads() if (row["dataset"], row["file"]) == (self.dataset, file)]
        return [row for row in found if row["use"] != "single file of version 1"]

    def sources(self, file: str) -> list[Source]:
        """Addresses of one file in the order of downloads.csv."""
        return [source_of(row) for row in self.rows(file)]

    @property
    def size(self) -> str:
        """Size to download, and on disk where both are published, in words."""
        rows = [self.rows(file)[0] for file in self.files]
        known = [row["size_text"] or f"{int(row['size_bytes']) / 1e9:.2g}G" for row in rows
                 if row["size_text"] or row["size_bytes"]]
        return " + ".join(known) or "not published"

    @property
    def licence(self) -> str:
        """The licence as stated for its files."""
        found = {row["licence"] for file in self.files for row in self.rows(file) if row["licence"]}
        return ", ".join(sorted(found)) or "not stated"

    def find(self, data_root: str | Path) -> list[Path]:
        """The original files that are there, under the first pattern that has any."""
        folders = [folder / self.folder for folder in data_dirs(data_root)]
        for pattern in self.originals:
            if found := [path for path in matching(pattern, folders) if not path.name.endswith(".partial")]:
                return found
        return []

    def store(self, data_root: str | Path) -> Path:
        """Where its store lies once prepared."""
        return data_place(data_root, "stores", self.name)


def source_of(row: dict) -> Source:
    """Address, checksum and size of a row of downloads.csv."""
    url = row["url"]
    if "zenodo.org/record" in url:  # the row names the page of the record; its files lie below
        url = f"{url.replace('/record/', '/records/')}/files/{row['file']}?download=1"
    checksum = f"sha256:{row['sha256']}" if row["sha256"] else f"md5:{row['md5']}" if row["md5"] else None
    return Source(url, checksum, int(row["size_bytes"]) if row["size_bytes"] else None)


@cache
def entries() -> dict[str, Entry]:
    """All data sets by name, in the order of the paper."""
    about = yaml.safe_load((FACTS_DIR / "catalog.yaml").read_text(encoding="utf-8"))
    made = {}
    for name, values in about["entries"].items():
        reader = values["dataset"].lower().replace("-", "")
        filled = {"folder": reader, "reader": reader, "citation": about["citations"][values["dataset"]]} | values
        made[name] = Entry(name=name, **filled)
    return made


def entry(name: str) -> Entry:
    """One data set; ``ValueError`` that names the nearest for a name that is none."""
    found = entries()
    if name not in found:
        raise ValueError(f"there is no data set {name!r}; {nearest(name, found).replace('key', 'name')}")
    return found[name]


# --- fetching --------------------------------------------------------------------------------------------------


def fetch(path: str | Path, sources: list[Source], *, progress: bool = True) -> Path:
    """The file ``path``, downloaded from the first of ``sources`` that works, or as it is when it is there and good.

    Raises ``RuntimeError`` when no source works (what each said, and where to put the file by hand), when somebody
    else is downloading it or the disk is too small; ``ValueError`` when the file that is there has another checksum.
    """
    path = Path(path).resolve()
    with locked(f"{path}.lock", f"another process is downloading {path}; wait until it is done"):
        if path.is_file():
            _check(path, "the file", [source.checksum for source in sources if source.checksum],
                   "move it away and run the same command again")
            return path
        failures = []
        for source in sources:
            try:
                return _fetch_from(path, source, progress)
            except (ValueError, requests.exceptions.RequestException) as error:
                lost = (isinstance(error, requests.exceptions.ConnectionError)
                        and not isinstance(error, requests.exceptions.SSLError))
                said = "no connection" if lost else " ".join(str(error).split())[:300] or type(error).__name__
                failures.append(f"{source.url} ({said})")
        raise RuntimeError(f"{path.name} could not be downloaded from {' nor from '.join(failures)}; "
                           f"get it by other means and put it at {path}")


def _check(path: Path, what: str, checksums: list[str], mend: str) -> None:
    """Raise ``ValueError`` for a page, an empty file, or one that has none of ``checksums`` (where there are any)."""
    check_head(path, what, mend=mend)
    for kind, _, wanted in (checksum.partition(":") for checksum in checksums):
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, kind).hexdigest() == wanted.lower():
                return
    if checksums:
        raise ValueError(f"{path} has not the published checksum {' or '.join(checksums)}: "
                         f"it is damaged or another version; {mend}")


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
    """One request for what is missing. An answer is looked at before any of it is written; a whole file
    writes over the part."""
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
    # bytes as stored, else a position means nothing
    headers = {"Accept-Encoding": "identity", "User-Agent": "jmp-workbook"}
    if have:  # weak versions (W/) cannot vouch for bytes
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag.startswith('"') else {})
    with requests.get(source.url, headers=headers, stream=True, timeout=(30, 120)) as answer:
        goes_on = answer.status_code == 206
        if (answer.status_code == 416
                or goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            _forget(path)
            raise _Misfit("the part at hand does not fit the file on the server")
        if answer.status_code not in (200, 206):
            raise ValueError(f"the server answers {answer.status_code} {answer.reason}")
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise ValueError("the server answers with a web page (html) instead of the file")
        have, length = have if goes_on else 0, answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _check_room(path, (total or source.size or 0) - have, path.parent)
        with writing(part):
            about.write_text(json.dumps({"url": source.url, "etag": answer.headers.get("ETag"), "total": total}),
                             encoding="utf-8")
            with tqdm(total=total, initial=have, desc=path.name, unit="B",
                      unit_scale=True, disable=not progress) as bar, \
                    open(part, "ab" if goes_on else "wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of a tar or zip archive."""
    return Path(path).name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"))


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack ``archive`` (tar, plain or compressed; zip) into ``folder``; returns the files, sorted.

    Files are unpacked beside their place and moved when the whole archive was read, each in one step. Nothing is
    written outside the folder. Refused with ``ValueError`` (one sentence, nothing left behind): a damaged archive,
    a web page, a tar with a link, a device or a path that leaves the folder; ``RuntimeError`` when the disk has too
    little room.
    """
    archive, folder = Path(archive), Path(folder)
    unpacking = folder / f".{archive.name}.unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)  # of a run that was killed
    with writing(unpacking):
        unpacking.mkdir(parents=True)
    try:
        with opened(archive, "an archive", mend="remove it and download it again"):
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
