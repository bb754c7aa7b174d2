"""OC22 S2EF total energies: adsorbates on oxides and other surfaces, as graph records
(:mod:`jmp_lib.data.graph_records`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jmp_lib.data.catalog import source_url
from jmp_lib.data.graph_records import read_graphs

MEND = f"get it anew from {source_url('OC22', 'pre-training')} and unpack it"


def read(path: str | Path, *, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of OC22 one at a time, of an .lmdb or .pkl file: energy eV (total), forces eV/Å, cell, tags, fixed;
    group "<sid>", sid "<sid>/<frame>"."""
    return read_graphs(path, "OC22", True, mend=MEND, rejected=rejected)
