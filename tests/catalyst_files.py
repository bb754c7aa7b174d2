"""Made-up files of OC20 and OC22 in their original forms."""

import lzma
import pickle

import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from torch_geometric.data import Data

ENERGY, REFERENCE = -30.25, -28.5


def slab(frame=0):
    """Four copper atoms, two of them fixed, with OH on top, as OC20 orders them."""
    rng = np.random.default_rng(frame)
    atoms = Atoms("CuCuCuCuHO", positions=rng.uniform(0, 5, (6, 3)), pbc=True)
    atoms.set_cell([[5, 0, 0.5], [1, 6, 0], [0, 0, 20]])
    atoms.set_constraint(FixAtoms([0, 2]))
    atoms.set_tags([0, 1, 0, 1, 2, 2])
    atoms.calc = SinglePointCalculator(atoms, energy=ENERGY - frame, forces=rng.normal(size=(6, 3)))
    return atoms


def frames(n=3):
    """``n`` frames of the slab."""
    return [slab(frame) for frame in range(n)]


def forces(atoms):
    """Forces of a frame, those of fixed atoms too."""
    return atoms.get_forces(apply_constraint=False).astype(np.float32)


def record(atoms, sid=77, **changes):
    """The graph of a frame as OC20 and OC22 store it."""
    fields = {
        "pos": torch.tensor(atoms.positions, dtype=torch.float32),
        "cell": torch.tensor(np.array(atoms.cell)[None], dtype=torch.float32),
        "atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.float32),
        "natoms": len(atoms),
        "tags": torch.tensor(atoms.get_tags()),
        "fixed": torch.tensor([1.0, 0, 1, 0, 0, 0])[: len(atoms)],
        "y": atoms.get_potential_energy(),
        "force": torch.tensor(forces(atoms)),
        "sid": sid,
        "fid": 5,
    }
    return Data(**{key: value for key, value in (fields | changes).items() if value is not None})


def write_lmdb(path, records, **extra):
    """An LMDB of pickled records; length: what it says it has."""
    env = lmdb.open(str(path), subdir=False, map_size=1 << 24)
    with env.begin(write=True) as transaction:
        for number, item in enumerate(records):
            transaction.put(str(number).encode(), pickle.dumps(item))
        transaction.put(b"length", pickle.dumps(extra.get("length", len(records))))
    env.close()
    return path


def write_release(folder, images, lines=None, name="0"):
    """The compressed XYZ and text files of OC20."""
    folder.mkdir(exist_ok=True)
    write(folder / "plain.extxyz", images, format="extxyz")
    xyz = (folder / "plain.extxyz").read_bytes()
    (folder / "plain.extxyz").unlink()
    lines = lines or [f"random77,frame{frame},{REFERENCE}" for frame in range(len(images))]
    (folder / f"{name}.extxyz.xz").write_bytes(lzma.compress(xyz))
    (folder / f"{name}.txt.xz").write_bytes(lzma.compress("\n".join(lines).encode() + b"\n"))
    return folder / f"{name}.extxyz.xz"


def check_slab(structure, atoms, energy, digits=0.0):
    """Compares a structure with the frame that was written; positions and forces to ``digits``."""
    assert np.abs(structure["pos"] - atoms.positions.astype(np.float32)).max() <= digits
    assert structure["pos"].dtype == structure["forces"].dtype == np.float32
    assert np.abs(structure["forces"] - forces(atoms)).max() <= digits
    assert np.allclose(structure["cell"], np.array(atoms.cell), atol=1e-6) and structure["pbc"].all()
    assert structure["atomic_numbers"].tolist() == atoms.numbers.tolist()
    assert structure["tags"].tolist() == [0, 1, 0, 1, 2, 2]
    assert structure["fixed"].tolist() == [True, False, True, False, False, False]
    assert structure["energy"] == pytest.approx(energy, abs=1e-9)
