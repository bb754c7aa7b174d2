"""CHGNet energies, forces and stresses in batches (Deng et al., Nat. Mach. Intell. 5, 1031, 2023; weights 0.3.0).

A machine-learned potential fitted to Materials Project PBE/PBE+U relaxations: its labels are ML-surrogate labels,
not electronic structure. The weights ship inside the `chgnet` package.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import warnings

import numpy as np

from .xtb import require

LEVEL = (
    "CHGNet 0.3.0, a machine-learned potential fitted to Materials Project PBE/PBE+U data: "
    "ML-surrogate labels, not electronic structure"
)
BATCH = 16


@functools.lru_cache(maxsize=1)
def model():
    """The CHGNet model on the CPU, one thread (repeatable)."""
    require("torch").set_num_threads(1)
    warnings.filterwarnings("ignore")
    return require("chgnet.model").CHGNet.load(use_device="cpu", verbose=False)


def evaluate(systems: list[tuple], task: str = "ef") -> list[dict | None]:
    """CHGNet on `systems` = [(numbers (N,), pos (N,3) Å, cell (3,3) Å), ...], all periodic.

    task: "e", "ef" or "efs". Returns one dict per system: energy (eV per cell), forces (N,3) eV/Å, stress (3,3) GPa
    (positive = tension, dE/dstrain / volume), or None where CHGNet finds an isolated atom.
    """
    torch = require("torch")
    Structure, Lattice = require("pymatgen.core").Structure, require("pymatgen.core").Lattice
    converter = model().graph_converter
    graphs, rows = [], []
    for row, (numbers, pos, cell) in enumerate(systems):
        structure = Structure(Lattice(cell), [int(z) for z in numbers], pos, coords_are_cartesian=True)
        try:
            graphs.append(converter(structure))
            rows.append(row)
        except ValueError:  # isolated atom
            continue
    results: list[dict | None] = [None] * len(systems)
    for first in range(0, len(graphs), BATCH):
        chunk = graphs[first : first + BATCH]
        with torch.set_grad_enabled(task != "e"):  # energies alone need no gradient, which halves their cost
            predicted = model().predict_graph(chunk, task=task, batch_size=BATCH)
        predicted = [predicted] if len(chunk) == 1 else predicted
        for row, one in zip(rows[first : first + BATCH], predicted, strict=True):
            found = {"energy": float(one["e"]) * len(systems[row][0])}
            if "f" in one:
                found["forces"] = np.asarray(one["f"], float)
            if "s" in one:
                found["stress"] = np.asarray(one["s"], float)
            results[row] = found
    return results


def force_error(numbers, pos, cell, rng: np.random.Generator, probes: int = 3, step: float = 5e-3) -> float:
    """Largest |force + dE/dx| (eV/Å) over random directions, by central differences (float32 noise about 1e-2)."""
    pos = np.asarray(pos, float)
    directions = [d / np.linalg.norm(d) for d in rng.normal(size=(probes, *pos.shape))]
    systems = [(numbers, pos, cell)]
    for d in directions:
        systems += [(numbers, pos + step * d, cell), (numbers, pos - step * d, cell)]
    found = evaluate(systems, "ef")
    forces = found[0]["forces"]
    slopes = [(found[1 + 2 * k]["energy"] - found[2 + 2 * k]["energy"]) / (2 * step) for k in range(probes)]
    return max(abs(s + float((forces * d).sum())) for s, d in zip(slopes, directions, strict=True))
