"""The official checkpoints by name: downloaded once, verified, imported, kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock

from jmp_lib import facts, paths
from jmp_lib.data.download import Source, fetch
from jmp_lib.official.importing import NAMES, default_folder, import_checkpoint

SIZES = {name: size for size, name in NAMES.items()}
# No plain checksum is published. What the storage service states for jmp-l.pt (a public log of a download): the MD5 of
# the MD5s of parts of 8 MiB, and their number.
MULTIPART = {"jmp-l": "81f27687ded066a05b58e75665d58675-447"}
PART = 8 << 20


def official_folder(name: str, progress: bool = True) -> Path:
    """Folder of the imported checkpoint ``jmp-s`` or ``jmp-l``; downloads and imports it when it is not there.

    Raises ``RuntimeError`` when the download fails (with the place to put the file by hand), ``ValueError`` when the
    file is not the one that is published.
    """
    folder = default_folder(SIZES[name])
    if (folder / "model.json").is_file() and (folder / "model.safetensors").is_file():
        return folder
    row = facts.downloads().set_index("file").loc[f"{name}.pt"]
    size = None if row.isna()["size_bytes"] else int(row["size_bytes"])
    file = fetch(paths.data_dir() / "checkpoints" / f"{name}.pt", [Source(row["url"], None, size)], progress=progress)
    with FileLock(f"{folder}.lock"):
        if not (folder / "model.json").is_file():
            verify(file, size, MULTIPART.get(name))
            import_checkpoint(file, folder, SIZES[name])
    return folder


def verify(file: Path, size: int | None, etag: str | None) -> None:
    """Raise ``ValueError`` when a file has not the published size or checksum of parts (None: not published)."""
    mend = "it is damaged or another version: move it away to download it again, or import it by import-checkpoint"
    if size is not None and file.stat().st_size != size:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, the published one {size}; {mend}")
    if etag is not None and multipart_etag(file) != etag:
        raise ValueError(f"{file} has not the published checksum of parts {etag}; {mend}")


def multipart_etag(file: Path, part: int = PART) -> str:
    """MD5 of the MD5s of consecutive parts, and their number: how S3 names a file that was uploaded in parts."""
    whole, count = hashlib.md5(), 0
    with open(file, "rb") as stream:
        while block := stream.read(part):
            whole.update(hashlib.md5(block).digest())
            count += 1
    return f"{whole.hexdigest()}-{count}"
