"""Where the published files come from (facts/downloads.csv)."""

from __future__ import annotations

import csv

from jmp_lib.paths import FACTS_DIR


def source_url(dataset: str, use: str = "official JMP") -> str:
    """First URL of ``dataset`` (as spelled in downloads.csv) with that use; raises ``KeyError`` when there is none."""
    with open(FACTS_DIR / "downloads.csv", newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["dataset"] == dataset and row["use"] == use:
                return row["url"]
    raise KeyError(f"downloads.csv has no row of {dataset!r} with use {use!r}")
