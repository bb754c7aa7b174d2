"""Strained and shaken silicon with energies and forces, made on the spot: what a crystal's equation of state is learnt from.

The labels are those of an analytic potential (Tersoff, Phys. Rev. B 39, 5566 (1989)), so that the true curve is known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import bulk
from ase.calculators.tersoff import Tersoff, TersoffParameters

PARAMETERS = TersoffParameters(m=3.0, gamma=1.0, lambda3=0.0, c=1.0039e5, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6,
                               lambda2=1.7322, B=471.18, R=2.85, D=0.15, lambda1=2.4799, A=1830.8)  # eV, Å
EDGE = 5.432  # Å


def potential() -> Tersoff:
    """The calculator that gives the labels."""
    return Tersoff({("Si", "Si", "Si"): PARAMETERS})


def shaken(strain: float, move: float, seed: int) -> Atoms:
    """The cube of eight atoms with edges longer by ``strain``, its atoms moved by about ``move`` (Å).

    No two neighbours of an atom are then equally far: of equal ones, a limit of neighbours would keep any.
    """
    atoms = bulk("Si", "diamond", a=EDGE * (1 + strain), cubic=True)
    atoms.rattle(move, seed=seed)
    return atoms


def table(structures: int = 60) -> pd.DataFrame:
    """Structures with energy (eV) and forces (eV/Å): edges up to 6 % shorter or longer, atoms moved by about 0.1 Å."""
    made = [shaken(strain, 0.1, seed) for seed, strain in enumerate(np.random.default_rng(0).uniform(-0.06, 0.06, structures))]
    for atoms in made:
        atoms.calc = potential()
        atoms.info["energy"], atoms.arrays["forces"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    return pd.DataFrame({"structure": made})
