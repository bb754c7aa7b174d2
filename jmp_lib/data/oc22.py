"""OC22 S2EF total energies: adsorbates on oxides and other surfaces; LMDB files, or pickled lists of the same graphs.

y is the DFT total energy (eV), force the true forces (eV/Å); nothing is converted. As the official loader does,
``y_relaxed`` goes before y where a record has it (relaxation records; S2EF ones have none).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jmp_lib.data.formats import source_url
from jmp_lib.data.graph_records import ENERGIES, read_graphs

MEND = f"get it anew from {source_url('OC22', 'pre-training')} and unpack it"


def read(path: str | Path, *, rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of OC22 one at a time: energy eV (total), forces eV/Å, cell, tags, fixed; group "<sid>",
    sid "<sid>/<frame>".

    path: an .lmdb or .pkl file or a folder of them.
    """
    yield from read_graphs(path, "OC22", True, mend=MEND, rejected=rejected, energies=("y_relaxed", *ENERGIES))
