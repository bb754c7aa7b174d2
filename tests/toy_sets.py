"""Small made-up data for tests of the training: random clusters and slabs with a pair potential."""

from __future__ import annotations

import numpy as np

from jmp_lib.data.structures import StructureSet
from jmp_lib.data.pretraining import PretrainingData
from jmp_lib.data.tasks import PRETRAINING_SETS, TaskData, get_task


def toy_set(name: str, count: int, seed: int, periodic: bool = False, **labels) -> StructureSet:
    """``count`` clusters of 4 to 7 atoms with energies and exact forces of a pair potential (1.2/r^4 - 1/r^2)."""
    rng = np.random.default_rng(seed)
    natoms, pos, numbers, energies, forces = [], [], [], [], []
    for _ in range(count):
        n = int(rng.integers(4, 8))
        grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)],
                        float)[rng.permutation(8)[:n]]
        x = grid * 1.5 + rng.normal(0, 0.12, (n, 3))
        z = rng.choice([1, 6, 8], n)
        d = x[:, None] - x[None]
        r2 = (d**2).sum(-1) + np.eye(n)
        off = 1 - np.eye(n)
        energies.append(0.5 * (off * (1.2 / r2**2 - 1 / r2)).sum() - 3.0 * (z == 6).sum() - (z == 1).sum())
        slope = off * (-2.4 / r2**3 + 1 / r2**2)  # derivative with respect to r^2
        forces.append(-(2 * slope[..., None] * d).sum(1))
        natoms.append(n), pos.append(x), numbers.append(z)
    scalars = {"energy": np.array(energies), **{k: f(natoms, pos, numbers) for k, f in labels.items()}}
    cell = np.tile(np.eye(3) * 6.0, (count, 1, 1)) if periodic else None
    return StructureSet.from_arrays(name, natoms, np.concatenate(pos), np.concatenate(numbers), cell=cell,
                                    forces=np.concatenate(forces), scalars=scalars)


def toy_pretraining(data="mini", caps=None, data_root=None, fit=None) -> list[PretrainingData]:
    """Stand-in of ``load_pretraining_data``: two periodic and two molecular sets of unequal size."""
    sizes = {"oc20": 14, "oc22": 6, "ani1x": 10, "transition1x": 8}
    return [PretrainingData(key, toy_set(f"{key}-toy", n, seed, key.startswith("oc")),
                            toy_set(f"{key}-toy", 4, seed + 100, key.startswith("oc")))
            for seed, (key, n) in enumerate((key, sizes[key]) for key in PRETRAINING_SETS)]


def toy_task(task_id: str, data="mini", data_root=None, caps=None, fold=0) -> TaskData:
    """Stand-in of ``load_task_data``."""
    task = get_task(task_id)
    labels = {}
    if not task.is_force_task:
        labels[task.label] = lambda natoms, pos, z: np.array([(x[:, 0].max() - x[:, 0].min()) + 0.3 * (n == 6).sum()
                                                              for x, n in zip(pos, z)])
    periodic = task.family in ("matbench", "qmof")
    train, val, test = (toy_set(f"{task.family}-toy", n, seed, periodic, **labels)
                        for n, seed in ((10, 7), (4, 8), (5, 9)))
    return TaskData(task, train, val, test, name="toy (pair potential)", description="toy", data_kind="generated",
                    data_sha256="0" * 64, split_sha256="1" * 64, fold=fold)
