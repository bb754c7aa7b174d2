"""What a potential is for: relax a structure, run dynamics, strain a crystal, with several networks side by side.

A small test error does not say that a relaxation ends, that dynamics keep their energy or that a crystal has a
volume; these tables do. Strained and shaken silicon with the labels of an analytic potential (Tersoff, Phys. Rev. B
39, 5566 (1989)) is made on the spot: of it the true equation of state is known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import bulk, minimize_rotation_and_translation
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.eos import EquationOfState
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import natural_cutoffs
from ase.optimize import BFGS

SILICON = TersoffParameters(m=3.0, gamma=1.0, lambda3=0.0, c=1.0039e5, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6,
                               lambda2=1.7322, B=471.18, R=2.85, D=0.15, lambda1=2.4799, A=1830.8)  # eV, Å
EDGE = 5.432  # Å, of the cube of eight atoms of silicon
KELVIN = 300.0  # mean temperature of dynamics as it begins
BOND = 1.2  # times the sum of two covalent radii: the longest bond of a first structure
STRETCHED = 1.5  # times its first length: a bond that is broken


def relaxation(calculators: dict, structure, steps: int = 200) -> pd.DataFrame:
    """BFGS from ``structure`` until no force is above 0.05 eV/Å, at most so many ``steps``; one row per network."""
    rows = []
    for name, calculator in calculators.items():
        atoms = _atoms(structure, calculator)
        first, before = atoms.get_potential_energy(), atoms.copy()
        done = BFGS(atoms, logfile=None)
        try:
            converged = done.run(fmax=0.05, steps=steps)
        except ValueError:  # atoms in each other: there is nothing to measure
            rows.append({"network": name, "converged": "no, it drives atoms into each other", "steps": done.nsteps})
            continue
        after = atoms.copy()
        # directly predicted forces push and turn a molecule as a whole
        minimize_rotation_and_translation(before, after)
        rows.append({"network": name, "converged": "yes" if converged else "no", "steps": done.nsteps,
                     "largest force / eV/Å": float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
                     "energy change / eV": float(atoms.get_potential_energy() - first),
                     "root mean square move / Å": float(np.sqrt(
                         ((after.positions - before.positions) ** 2).sum(1).mean()))})
    return pd.DataFrame(rows)


def dynamics(calculators: dict, structure, picoseconds: float = 1.0) -> pd.DataFrame:
    """Dynamics at constant energy, 1 fs a step, from ``KELVIN`` and the same velocities for all;
    a row per network and 10 steps.

    ``longest bond``: the longest of the first bonds (``BOND``) over its first length, NaN where there are none. A
    network stops where that is above ``STRETCHED``, its temperature above 100 times the first, or where it drives
    atoms into each other (infinite).
    """
    rows = []
    for name, calculator in calculators.items():
        atoms = _atoms(structure, calculator)
        # half goes to the springs
        MaxwellBoltzmannDistribution(atoms, temperature_K=2 * KELVIN, rng=np.random.default_rng(0))
        Stationary(atoms)
        apart, first, reach = (atoms.get_all_distances(mic=True), atoms.get_total_energy(),
                               np.array(natural_cutoffs(atoms, BOND)))
        bonds = np.nonzero(np.triu(apart < reach[:, None] + reach, 1))
        run = VelocityVerlet(atoms, units.fs)
        for count in range(0, round(1000 * picoseconds) + 1, 10):
            longest = float(max(atoms.get_all_distances(mic=True)[bonds] / apart[bonds], default=np.nan))
            rows.append({"network": name, "time / ps": count / 1000, "temperature / K": atoms.get_temperature(),
                         "drift / meV per atom": 1000 * (atoms.get_total_energy() - first) / len(atoms),
                         "longest bond": longest})
            if longest > STRETCHED or not atoms.get_temperature() < 100 * KELVIN:
                break
            try:
                run.run(10)
            except ValueError:  # atoms in each other, or results that are not finite: the calculator refuses them
                rows[-1]["longest bond"] = float("inf")
                break
    return pd.DataFrame(rows)


def dynamics_table(table: pd.DataFrame) -> pd.DataFrame:
    """The end of ``dynamics``: how long the bonds held (no column where there are none), the drift per picosecond
    (slope of a line), mean temperature."""
    made = pd.DataFrame([{
        "network": name, "picoseconds": part["time / ps"].iloc[-1],
        "bonds hold": "" if np.isnan(longest := part["longest bond"].iloc[-1])
        else "yes" if longest <= STRETCHED else "no",
        "drift / meV per atom and ps":
            np.polyfit(part["time / ps"], part["drift / meV per atom"], 1)[0] if len(part) > 2 else float("nan"),
        "mean temperature / K": part["temperature / K"].mean()} for name, part in table.groupby("network", sort=False)])
    return made if made["bonds hold"].any() else made.drop(columns="bonds hold")


def equation_of_state(calculators: dict, structure) -> pd.DataFrame:
    """Energy of a crystal over its volume, both per atom: all three cell vectors shorter or longer by up to 5 %, the
    fractional coordinates kept; a row per network and volume."""
    rows = []
    for name, calculator in calculators.items():
        for factor in 1 + np.linspace(-0.05, 0.05, 11):
            atoms = _atoms(structure, calculator)
            atoms.set_cell(atoms.cell * factor, scale_atoms=True)
            rows.append({"network": name, "volume / Å³ per atom": atoms.get_volume() / len(atoms),
                         "energy / eV per atom": atoms.get_potential_energy() / len(atoms)})
    return pd.DataFrame(rows)


def equation_of_state_table(table: pd.DataFrame) -> pd.DataFrame:
    """Birch-Murnaghan fits of ``equation_of_state``: volume and bulk modulus, and how far the fit is from the curve
    at most; these are blank where the fit has no minimum among the volumes."""
    rows, columns = [], ["volume / Å³ per atom", "bulk modulus / GPa", "largest distance from the fit / meV per atom"]
    for name, part in table.groupby("network", sort=False):
        volumes, energies = part["volume / Å³ per atom"].to_numpy(), part["energy / eV per atom"].to_numpy()
        fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
        try:
            volume, _, modulus = fit.fit(warn=False)
        except RuntimeError:  # no curve of this kind fits
            volume = modulus = float("nan")
        rows.append({"network": name, "minimum": "no"})
        if volumes.min() < volume < volumes.max() and modulus > 0:
            away = np.abs(fit.func(volumes, *fit.eos_parameters) - energies).max()
            rows[-1] |= {"minimum": "yes", **dict(zip(columns, (volume, modulus / units.GPa, 1000 * away)))}
    return pd.DataFrame(rows, columns=["network", "minimum", *columns])


def potential() -> Tersoff:
    """The calculator that gives the labels of silicon."""
    return Tersoff({("Si", "Si", "Si"): SILICON})


def shaken(strain: float, move: float, seed: int) -> Atoms:
    """The cube of eight atoms of silicon with edges longer by ``strain``, its atoms moved by about ``move`` (Å).

    No two neighbours of an atom are then equally far: of equal ones, a limit of neighbours would keep any.
    """
    atoms = bulk("Si", "diamond", a=EDGE * (1 + strain), cubic=True)
    atoms.rattle(move, seed=seed)
    return atoms


def silicon() -> pd.DataFrame:
    """60 structures of silicon with energy (eV) and forces (eV/Å): edges up to 6 % shorter or longer,
    atoms moved by about 0.1 Å."""
    made = [shaken(strain, 0.1, seed) for seed, strain in enumerate(np.random.default_rng(0).uniform(-0.06, 0.06, 60))]
    for atoms in made:
        atoms.calc = potential()
        atoms.info["energy"], atoms.arrays["forces"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    return pd.DataFrame({"structure": made})


def _atoms(structure, calculator) -> Atoms:
    numbers, places, cell, pbc = (np.asarray(structure[key]) for key in ("atomic_numbers", "pos", "cell", "pbc"))
    return Atoms(numbers, places.astype(float), cell=cell if pbc.any() else None, pbc=pbc, calculator=calculator)
