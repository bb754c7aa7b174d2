"""The published SPICE conformations: solvated amino acids and dipeptides, from the official or the upstream HDF5.

One group per molecule: ``atomic_numbers`` (N,), ``conformations`` (F,N,3) bohr, ``dft_total_energy`` and
``formation_energy`` (F,) Hartree, ``dft_total_gradient`` (F,N,3) Hartree/bohr, ``smiles``, ``subset``. The file holds
the gradient: force = - gradient. Converted here, once, with the official factors (:mod:`jmp_lib.units`) to Å, eV and
eV/Å. Labels: ``energy`` (total), ``formation_energy`` (the official loader's target) and ``forces``; ``sid`` is
molecule/conformer, ``group`` the molecule. Order: molecules by name, conformers as stored, which the split counts on:
all of them shuffled (seed 42), 80/10/10. Level: ωB97M-D3BJ/def2-TZVPPD.

Looked for in ``data_root``, its ``spice`` and ``spice_...``: ``solvated_amino_acids.h5`` or ``dipeptides.h5``
(official), then ``SPICE_<subset>*.hdf5``, then ``SPICE-1.1.4.hdf5`` (upstream, of which no other molecule is read).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib import units
from jmp_lib.data import splits
from jmp_lib.data.apart import Asked
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, screened
from jmp_lib.data.formats import check_shapes, first_file, folder_of, folders_of, known, open_h5, whole_set
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS

UPSTREAM = "SPICE-1.1.4.hdf5"
# part of SPICE -> how its subset field begins (a version follows: v1.1; dipeptides v1.2, in releases 2.x v1.3;
# "(subset)" of a sample)
SUBSETS = {"solvated_amino_acids": "SPICE Solvated Amino Acids Single Points Dataset",
           "dipeptides": "SPICE Dipeptides Single Points Dataset"}
_SHAPES = {"atomic_numbers": ("atoms",), "conformations": ("conformations", "atoms", 3),
           "dft_total_energy": ("conformations",), "formation_energy": ("conformations",),
           "dft_total_gradient": ("conformations", "atoms", 3)}  # fmt: skip


def mend(subset: str, root: str | Path = "DATA_ROOT") -> str:
    """Where SPICE comes from and where to put it."""
    url = source_url("SPICE", file=UPSTREAM)
    return f"get {UPSTREAM} from {url}, of which only {subset} is read, and put it in {folder_of('spice', root)}"


def find(subset: str, root: str | Path) -> list[Path]:
    """The file that has ``subset``."""
    known("SPICE has no part", subset, SUBSETS)
    forms = (f"{subset}.h*5", f"SPICE_{subset}*.h*5", UPSTREAM)
    return [first_file(forms, folders_of("spice", root),
                       f"no SPICE file with {subset} in {root}; {mend(subset, root)}")]


def load(subset: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All conformations of ``subset`` and their split."""
    (path,), total = find(subset, root), TASKS[f"spice_{subset}"].n_total
    description = f"published SPICE {subset} (wB97M-D3BJ/def2-TZVPPD), {{n}} of {total} conformations, from {path.name}"
    data = whole_set(f"SPICE {subset}", read(path, subset), total, description, path)
    return data, splits.eighty_ten_ten(len(data))


def read(path: Path, subset: str) -> Iterator[dict]:
    """Conformations of ``subset``, molecule by molecule, with energy, formation_energy (eV) and forces (eV/Å)."""
    return screened(_conformations(path, subset), str(path))


def _molecules(file: Asked, subset: str, by_name: bool) -> Iterator[str]:
    """Names, in order, of the molecules of ``subset``; by_name: those that do not say theirs are of it."""
    for name in sorted(file.names("")):
        said = file.arrays(name, (), ("subset",)).get("subset")
        if said is None and not by_name:
            raise ValueError(f"molecule {name} does not say which subset it is of")
        if said is None or re.fullmatch(re.escape(SUBSETS[subset]) + r"( v[\d.]+)?( \(subset\))?",
                                        str(said.ravel()[0])):
            yield name


def _conformations(path: Path, subset: str) -> Iterator:
    row, advice = 0, mend(subset, path.parent)
    with open_h5(path, mend=advice) as file:
        for name in _molecules(file, subset, subset in path.name):
            raw = file.arrays(name, _SHAPES)
            said = file.attribute(f"{name}/conformations", "units") or "bohr"
            if said != "bohr":
                raise ValueError(f"molecule {name} has its conformations in {said!r}, where SPICE has bohr")
            check_shapes(raw, _SHAPES)
            for i in range(len(raw["conformations"])):
                yield f"{name}/{i}", partial(_conformation, name, raw, i, row)
                row += 1
    if not row:
        raise ValueError(f"{path} has no conformation of {subset}; {advice}")


def _conformation(name: str, raw: dict[str, np.ndarray], i: int, row: int) -> dict:
    return make_structure(raw["conformations"][i].astype(np.float64) * units.BOHR, raw["atomic_numbers"], id=row,
                          forces=-raw["dft_total_gradient"][i].astype(np.float64) * units.HARTREE_PER_BOHR,
                          energy=raw["dft_total_energy"][i] * units.HARTREE,
                          formation_energy=raw["formation_energy"][i] * units.HARTREE, sid=f"{name}/{i}", group=name)
