"""Transition-1x: frames of reaction paths of H, C, N, O molecules; ``Transition1x.h5``, or graph records of it.

Top groups ``data`` (all), ``train``, ``val``, ``test``; below formula, below ``rxnNNNN``: ``positions`` (F,N,3) Å,
``atomic_numbers`` (N,), ``wB97x_6-31G(d).energy`` (F,) eV and ``wB97x_6-31G(d).forces`` (F,N,3) eV/Å, true forces;
nothing is converted. The groups reactant, product and transition_state of a reaction repeat frames and are not read,
as in the official script. Graph records (LMDB, pickled lists) name the energy y or energy, the forces force or forces.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jmp_lib.data import graph_records
from jmp_lib.data.ani1x import molecule
from jmp_lib.data.check_structure import keep
from jmp_lib.data.hdf5_files import dataset, open_h5, read_rows, whole
from jmp_lib.data.sources import source_url

MEND = f"get Transition1x.h5 from {source_url('Transition-1x', 'pre-training')}"
PARTS = ("data", "train", "val", "test")
ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"


def read(
    path: str | Path, *, part: str = "data", rejected: list[str] | None = None
) -> Iterator[dict]:
    """Structures of Transition-1x one at a time: energy eV (total), forces eV/Å; group "formula/rxnNNNN",
    sid "group/frame".

    path: the HDF5 file, or an .lmdb or .pkl of graph records (which have no parts). part: the top group. rejected:
    a list that takes the reasons of the frames left out; without it the first unsound frame raises ``ValueError``,
    as a damaged or wrong file always does. ``FileNotFoundError`` when nothing is there.
    """
    path = Path(path)
    if part not in PARTS:
        raise ValueError(f"Transition-1x has the parts {', '.join(PARTS)}, not {part!r}")
    if path.suffix in (".lmdb", ".pkl") or path.is_dir():
        if part != "data":
            raise ValueError(f"{path} holds graph records, which have no part {part!r}; read the file of that part")
        for where, structure in graph_records.read_structures(path, mend=MEND, rejected=rejected):
            if structure["pbc"].any():
                raise ValueError(f"{where} has a cell, so it is not of Transition-1x; {MEND}")
            yield structure
        return
    row = 0
    with open_h5(path, mend=MEND) as file:
        if part not in file:
            raise ValueError(f"{path} has no group {part!r} (it has {', '.join(list(file)[:8])}); {MEND}")
        for formula in file[part]:
            for reaction in file[part][formula]:
                where = f"{path}: {part}/{formula}/{reaction}"
                group = file[part][formula][reaction]
                arrays = [dataset(group, key, where, MEND) for key in ("positions", ENERGY, FORCES)]
                numbers = whole(dataset(group, "atomic_numbers", where, MEND), where, MEND).astype(np.int64)
                for fid, (pos, energy, forces) in read_rows(arrays, where, MEND):
                    structure = {
                        **molecule(numbers, pos),
                        "energy": np.float64(np.asarray(energy).item()),
                        "forces": np.asarray(forces, np.float32),
                        "id": row,
                        "group": f"{formula}/{reaction}",
                        "sid": f"{formula}/{reaction}/{fid}",
                    }
                    if keep(structure, f"{where}, frame {fid}", rejected):
                        yield structure
                        row += 1
