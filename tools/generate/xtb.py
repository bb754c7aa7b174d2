"""GFN1-xTB and GFN2-xTB energies and forces by tblite (Bannwarth, Ehlert, Grimme, JCTC 15, 1652, 2019).

Units in and out: positions Å, energies eV, forces eV/Å. tblite itself works in bohr and hartree.
Set `OMP_NUM_THREADS=1` before Python starts: with more threads the last digits differ from run to run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

BOHR = 0.529177210903  # Å, CODATA 2018
HARTREE = 27.211386245988  # eV, CODATA 2018
KELVIN = 3.166811563e-6  # hartree
MAX_FORCE = 50.0  # eV/Å: frames beyond are dropped


def require(package: str):
    """Import an optional package of the generator, or say in one sentence how to get it."""
    try:
        return __import__(package, fromlist=["_"])
    except ImportError as error:
        raise ImportError(
            f"the mini data generator needs the package {package.split('.')[0]!r}; "
            "install the optional dependencies with: pip install 'jmp-workbook[generate]'"
        ) from error


class XTB:
    """One xTB calculator for a fixed list of atoms.

    method: "GFN2-xTB" or "GFN1-xTB"; cell (3,3) Å rows or None (molecule); pbc (3,) bool;
    temperature: electronic temperature in K (None: 300 K, tblite's default); accuracy: tblite's (1.0 default).
    Calling it with positions (N,3) Å gives (energy eV, forces (N,3) eV/Å); the density of the last call starts
    the next one. Raises RuntimeError when the self-consistent field does not converge.
    """

    def __init__(self, numbers, pos, *, method="GFN2-xTB", cell=None, pbc=None, charge=0.0, temperature=None,
                 accuracy=1.0, max_iter=250, restart=True):
        interface = require("tblite.interface")
        periodic = {}
        if cell is not None:
            flags = np.array([True, True, True] if pbc is None else pbc, bool)
            periodic = {"lattice": np.asarray(cell, float) / BOHR, "periodic": flags}
        self.calculator = interface.Calculator(
            method, np.asarray(numbers, int), np.asarray(pos, float) / BOHR, charge=charge, **periodic
        )
        self.calculator.set("verbosity", 0)
        self.calculator.set("accuracy", accuracy)
        self.calculator.set("max-iter", max_iter)
        if temperature is not None:
            self.calculator.set("temperature", temperature * KELVIN)
        self.restart = restart
        self.result = None

    def __call__(self, pos) -> tuple[float, np.ndarray]:
        self.calculator.update(np.asarray(pos, float) / BOHR)
        previous = self.result if self.restart else None
        try:
            self.result = self.calculator.singlepoint(previous)
        except Exception as error:  # tblite raises its own error types; they must not be needed to catch this
            self.result = None
            raise RuntimeError(f"xTB did not converge: {error}") from error
        energy = float(self.result.get("energy")) * HARTREE
        forces = -np.asarray(self.result.get("gradient")) * (HARTREE / BOHR)
        return energy, forces


def plausible(energy: float, forces: np.ndarray) -> bool:
    """True when a frame may be kept: finite, and no atom's force is above `MAX_FORCE`."""
    return bool(np.isfinite(energy) and np.isfinite(forces).all()
                and np.linalg.norm(forces, axis=1).max() <= MAX_FORCE)


def force_error(calculator: XTB, pos, rng: np.random.Generator, probes: int = 3, step: float = 2e-3) -> float:
    """Largest |force + dE/dx| (eV/Å) over random directions, by central differences of `step` Å."""
    pos = np.asarray(pos, float)
    _, forces = calculator(pos)
    worst = 0.0
    for _ in range(probes):
        direction = rng.normal(size=pos.shape)
        direction /= np.linalg.norm(direction)
        upper, _ = calculator(pos + step * direction)
        lower, _ = calculator(pos - step * direction)
        worst = max(worst, abs((upper - lower) / (2 * step) + float((forces * direction).sum())))
    return worst
