"""Transition-1x: frames of reaction paths of H, C, N, O molecules; ``Transition1x.h5``, or graph records of it.

Top groups ``data`` (all), ``train``, ``val``, ``test``; below formula, below ``rxnNNNN``: ``positions`` (F,N,3) Å,
``atomic_numbers`` (N,), ``wB97x_6-31G(d).energy`` (F,) eV and ``wB97x_6-31G(d).forces`` (F,N,3) eV/Å, true forces;
nothing is converted. The groups reactant, product and transition_state of a reaction repeat frames and are not read,
as in the official script. Graph records (LMDB, pickled lists) name the energy y or energy, the forces force or forces.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, screened
from jmp_lib.data.formats import frames_of, open_h5
from jmp_lib.data.graph_records import read_graphs

MEND = f"get Transition1x.h5 from {source_url('Transition-1x', 'pre-training')}"
ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"


def read(path: str | Path, *, part: str = "data", rejected: list[str] | None = None) -> Iterator[dict]:
    """Structures of Transition-1x one at a time: energy eV (total), forces eV/Å; group "formula/rxnNNNN",
    sid "group/frame".

    path: the HDF5 file, or an .lmdb or .pkl of graph records (which have no parts). part: the top group,
    data, train, val, test.
    """
    path = Path(path)
    if path.suffix in (".lmdb", ".pkl"):
        if part != "data":
            raise ValueError(f"{path} holds graph records, which have no part {part!r}; read the file of that part")
        return read_graphs(path, "Transition-1x", False, mend=MEND, rejected=rejected)
    return screened(_frames(path, part), str(path), rejected)


def _frames(path: Path, part: str) -> Iterator:
    def make(group: str, fid: int, numbers, pos, energy, forces) -> dict:
        energy = np.asarray(energy).item()
        return make_structure(pos, numbers, forces=forces, sid=f"{group}/{fid}", group=group, energy=energy)

    with open_h5(path, mend=MEND) as file:
        if part not in (there := file.names("")):
            raise ValueError(f"{path} has no group {part!r} (it has {', '.join(there[:8])}); {MEND}")
        for formula in file.names(part):
            for reaction in file.names(f"{part}/{formula}"):
                where = f"{part}/{formula}/{reaction}"
                for fid, values in enumerate(frames_of(file, where, ("positions", ENERGY, FORCES))):
                    yield f"{where}, frame {fid}", partial(make, f"{formula}/{reaction}", fid, *values)
