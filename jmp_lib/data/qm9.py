"""The published QM9 molecules with the 12 targets of the paper, in two forms.

Looked for in ``data_root`` and ``data_root/qm9`` (also in their ``raw``, where torch_geometric's ``QM9`` keeps what it
fetched), in this order:

* ``qm9_v3.pt``, of the official script and of torch_geometric: a list of 130,831 dictionaries, already in eV. Read with
  torch's restricted ``weights_only`` unpickler, which makes tensors and containers and nothing else.
* an npz of flat arrays (``qm9*.npz``: id, N, Z, R, mu, alpha, HOMO, LUMO, gap, R2, ZPVE, U0, U, H, G, Cv), energies in
  Hartree; converted here, once, with torch_geometric's factor (:data:`HARTREE_QM9`), which made the official file.

torch_geometric's own class is not asked: it keeps targets in float32. mu D, alpha a0^3, R2 a0^2, Cv cal/(mol K) as
they are. ``id`` is the number in dsgdb9nsd_NNNNNN less one (qm9_v3.pt: the place in the file). U0, U, H, G are
totals (official references of the elements: facts/hyperparameters.yaml). Split: seed-42 shuffle, the last 20,000
validation and test.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from jmp_lib.data import formats, splits
from jmp_lib.data.catalog import source_url
from jmp_lib.data.door import make_structure, screened
from jmp_lib.data.structures import StructureSet
from jmp_lib.units import HARTREE_QM9

N_OFFICIAL = 130_831
# target -> (array of the npz, factor from its unit to the label's)
TARGETS = {"mu": ("mu", 1.0), "alpha": ("alpha", 1.0), "eps_HOMO": ("HOMO", HARTREE_QM9),
           "eps_LUMO": ("LUMO", HARTREE_QM9), "delta_eps": ("gap", HARTREE_QM9), "R2": ("R2", 1.0),
           "ZPVE": ("ZPVE", HARTREE_QM9), "U0": ("U0", HARTREE_QM9), "U": ("U", HARTREE_QM9), "H": ("H", HARTREE_QM9),
           "G": ("G", HARTREE_QM9), "Cv": ("Cv", 1.0)}  # fmt: skip


def mend(name: str = "", root: str | Path = "DATA_ROOT") -> str:
    """Where QM9 comes from."""
    return f"unpack qm9_v3.pt from {source_url('QM9', 'official JMP')} and put it in {formats.folder_of('qm9', root)}"


def find(name: str, root: str | Path) -> list[Path]:
    """The best form of QM9 at hand."""
    folders = formats.folders_of("qm9", root, ("", "raw"))
    return [formats.first_file(("qm9_v3.pt", "qm9*.npz"), folders, f"no QM9 file in {root}; {mend(root=root)}")]


def load(name: str, root: str | Path, fold: int = 0) -> tuple[StructureSet, splits.Split]:
    """All molecules at hand with the 12 targets, and their split."""
    (path,) = find(name, root)
    description = f"published QM9 (B3LYP/6-31G(2df,p)), {{n}} of {N_OFFICIAL} molecules, from {path.name}"
    data = formats.whole_set("QM9", read(path), N_OFFICIAL, description, path)
    data = data.subset(np.argsort(data.ids, kind="stable"))  # the split counts on the order of the numbers
    return data, splits.qm9(len(data))


def read(path: Path) -> Iterator[dict]:
    """Molecules of one file with the 12 targets."""
    return screened((_torch if path.suffix == ".pt" else _npz)(path, mend(root=path.parent)), str(path))


def _torch(path: Path, advice: str) -> Iterator:
    import torch

    with formats.opened(path, "a file of torch", mend=advice):
        try:
            entries = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise ValueError("it is damaged, or holds more than tensors and lists") from None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is not the list of dictionaries of qm9_v3.pt")

    def make(row: int, entry: dict) -> dict:
        labels = zip(TARGETS, entry["y"].double().reshape(-1).numpy()[: len(TARGETS)], strict=True)  # in eV already
        return make_structure(entry["pos"].numpy(), entry["z"].numpy(), id=row, sid=entry.get("name"), **dict(labels))

    for row, entry in enumerate(entries):
        yield f"row_{row}", partial(make, row, entry)


def _npz(path: Path, advice: str) -> Iterator:
    shapes = dict.fromkeys(("id", "N", *(key for key, _ in TARGETS.values())), ("molecules",))
    raw = formats.read_npz(path, shapes | {"Z": ("atoms",), "R": ("atoms", 3)}, counts="N", mend=advice)
    labels = {key: raw[column].astype(np.float64) * factor for key, (column, factor) in TARGETS.items()}

    def make(row: int, number: int, atoms: slice) -> dict:
        return make_structure(raw["R"][atoms], raw["Z"][atoms], id=number - 1, sid=f"dsgdb9nsd_{number:06d}",
                              **{key: values[row] for key, values in labels.items()})

    for row, (number, atoms) in enumerate(zip(raw["id"].astype(int).tolist(), formats.slices(raw["N"]), strict=True)):
        yield f"gdb_{number}", partial(make, row, number, atoms)
