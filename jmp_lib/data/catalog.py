"""What can be downloaded: every published data set and part, its files, where they go and how they are read.

What goes together is in ``facts/catalog.yaml``; addresses, sizes, checksums and licences are in ``facts/downloads.csv``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from jmp_lib.data.fetch import Source
from jmp_lib.data.formats import matching
from jmp_lib.paths import FACTS_DIR, data_dirs, data_place
from jmp_lib.strict import nearest


@cache
def downloads() -> list[dict[str, str]]:
    """Rows of facts/downloads.csv, without pandas: readers say where their files come from as soon as they are imported."""
    with open(FACTS_DIR / "downloads.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def source_url(dataset: str, use: str | None = None, **more: str) -> str:
    """First URL of ``dataset`` in facts/downloads.csv with that use and other columns; ``KeyError`` when it has none."""
    wanted = {"dataset": dataset, **({"use": use} if use else {}), **more}
    for row in downloads():
        if all(row[key] == value for key, value in wanted.items()):
            return row["url"]
    raise KeyError(f"downloads.csv has no row with {wanted}")


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
        return [_source(row) for row in self.rows(file)]

    @property
    def size(self) -> str:
        """Size to download, and on disk where both are published, in words."""
        rows = [self.rows(file)[0] for file in self.files]
        known = [row["size_text"] or f"{int(row['size_bytes']) / 1e9:.2g}G" for row in rows if row["size_text"] or row["size_bytes"]]
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


def _source(row: dict) -> Source:
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
