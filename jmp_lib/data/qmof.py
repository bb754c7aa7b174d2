"""The published QMOF frameworks with their PBE band gap (label ``y``, eV), in two forms.

Looked for in ``data_root``, ``data_root/qmof`` and their ``qmof_database`` folders, in this order:

* ``qmof.json`` with ``qmof_structure_data.json``, of the official script: two parallel lists, read entry by entry.
* an npz of flat arrays (``qmof*.npz``: qmof_id, natoms, cellpar (a b c in Å, three angles in degrees), Z, frac,
  bandgap_pbe).

Nothing is converted: Å and eV. ``id`` is the place in the file, ``sid`` the qmof_id. Split: seed-42 shuffle of the
file's order, 80/10/10, so the official split needs the official pair of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from jmp_lib.data import formats, splits
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, numbers_of_sites, screened
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS


def mend(name: str = "", root: str | Path = "DATA_ROOT") -> str:
    """Where QMOF comes from and where to put it."""
    folder = formats.folder_of("qmof", root)
    return f"unpack qmof.json and qmof_structure_data.json from {source_url('QMOF')} into {folder}"


def find(name: str, root: str | Path) -> list[Path]:
    """The best form of QMOF at hand."""
    folders = formats.folders_of("qmof", root, ("", "qmof_database", "qmof_database/qmof_database"))
    return [formats.first_file(("qmof.json", "qmof*.npz"), folders, f"no QMOF file in {root}; {mend(root=root)}")]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All frameworks at hand with label ``y``, and their split."""
    (path,), total = find(name, root), TASKS["qmof_bandgap"].n_total
    description = f"published QMOF (PBE), {{n}} of {total} frameworks, from {path.name}"
    data = formats.whole_set("QMOF", read(path), total, description, path)
    return data, splits.eighty_ten_ten(len(data))


def read(path: Path) -> Iterator[dict]:
    """Frameworks of one file with label ``y`` (eV), ``id`` and ``sid``."""
    return screened((_npz if path.suffix == ".npz" else _json)(path, mend(root=path.parent)), str(path))


def _json(path: Path, advice: str) -> Iterator:
    gaps, structures = path.with_name("qmof.json"), path.with_name("qmof_structure_data.json")

    def make(row: int, about: dict, entry: dict) -> dict:
        sites = entry["structure"]["sites"]
        said, gap = about.get("info", {}).get("natoms", len(sites)), about["outputs"]["pbe"]["bandgap"]
        if said != len(sites):
            raise ValueError(f"qmof.json says {said} atoms, its structure has {len(sites)}")
        if gap is None:
            raise ValueError("its PBE band gap is missing")
        cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64)
        pos = np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
        return make_structure(pos, numbers_of_sites(sites), id=row, cell=cell, sid=about["qmof_id"], y=gap)

    formats.check_head(structures, "a JSON list", b"[", mend=advice)
    with formats.opened(gaps, "a JSON list", b"[", mend=advice), open(gaps, "rb") as a, open(structures, "rb") as b:
        entries = zip_longest(formats.json_items(a, "item"), formats.json_items(b, "item"))
        for row, (about, entry) in enumerate(entries):
            if about is None or entry is None:
                raise ValueError(f"one of the two lists ends after {row} frameworks")
            if about["qmof_id"] != entry["qmof_id"]:
                raise ValueError(f"entry {row} is {about['qmof_id']} in one list, {entry['qmof_id']} in the other")
            yield about["qmof_id"], partial(make, row, about, entry)


def _npz(path: Path, advice: str) -> Iterator:
    shapes = dict.fromkeys(("qmof_id", "natoms", "bandgap_pbe"), ("n",)) | {"cellpar": ("n", 6)}
    raw = formats.read_npz(path, shapes | {"Z": ("atoms",), "frac": ("atoms", 3)}, counts="natoms", mend=advice)

    def make(row: int, atoms: slice) -> dict:
        cellpar = raw["cellpar"][row]
        if not np.isfinite(cellpar).all() or (cellpar <= 0).any():
            raise ValueError("field 'cell': its lengths and angles must be positive")
        cell = np.array(cellpar_to_cell(cellpar))  # rows, the first along x, the second in the xy plane
        pos = raw["frac"][atoms].astype(np.float64) @ cell
        return make_structure(pos, raw["Z"][atoms], id=row, cell=cell,
                              sid=raw["qmof_id"][row], y=raw["bandgap_pbe"][row])

    for row, atoms in enumerate(formats.slices(raw["natoms"])):
        yield str(raw["qmof_id"][row]), partial(make, row, atoms)
