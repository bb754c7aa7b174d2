"""qm9-mini: the small stand-in for QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014), twelve targets."""

from __future__ import annotations

import time

import numpy as np

from tools.generate import cards
from tools.generate.anix import minimum
from tools.generate.dynamics import HBAR, hessian, masses_of, normal_modes
from tools.generate.molecules import enumerate_molecules
from tools.generate.xtb import BOHR, HARTREE, force_error, require

SEED = 1914
MOLECULES = 800
HEAVY = {3: 0.3, 4: 1, 5: 5, 6: 6, 7: 1}
ELEMENTS = {6: 0.62, 7: 0.165, 8: 0.175, 9: 0.04}
DEBYE = 2.541746473  # per e bohr
CAL_PER_MOL = 1.0 / 4.3364103e-5  # cal/mol per eV
UNITS = {"mu": "D", "alpha": "a0^3", "eps_HOMO": "eV", "eps_LUMO": "eV", "delta_eps": "eV", "R2": "a0^2", "ZPVE": "eV",
         "U0": "eV", "U": "eV", "H": "eV", "G": "eV", "Cv": "cal/(mol K)"}

# Slater's rules (Phys. Rev. 36, 57, 1930): (electrons, principal quantum number, exponent) of each shell
_SHELLS = {1: [(1, 1, 1.0)], 6: [(2, 1, 5.7), (4, 2, 1.625)], 7: [(2, 1, 6.7), (5, 2, 1.95)],
           8: [(2, 1, 7.7), (6, 2, 2.275)], 9: [(2, 1, 8.7), (7, 2, 2.6)]}


def free_atom_extent(number: int) -> float:
    """<r^2> of a free atom in a0^2, summed over its electrons: (2n+1)(2n+2)/(4 zeta^2) for each Slater orbital."""
    return sum(count * (2 * n + 1) * (2 * n + 2) / (4.0 * zeta**2) for count, n, zeta in _SHELLS[int(number)])


def spatial_extent(numbers, pos, charges) -> float:
    """Estimate of <R^2> in a0^2: Mulliken populations at the nuclei plus the spread of every atom's own electrons.

    numbers (N,), pos (N,3) Å, charges (N,) e. R^2 = sum_A p_A (|r_A - r_com|^2 + <r^2>_A / Z_A), p_A = Z_A - q_A.
    """
    center = np.average(pos, axis=0, weights=masses_of(numbers))
    squared = ((pos - center) ** 2).sum(1) / BOHR**2
    own = np.array([free_atom_extent(z) / z for z in numbers])
    return float(((np.asarray(numbers) - charges) * (squared + own)).sum())


def thermochemistry(numbers, pos, energy: float, quanta) -> dict[str, float]:
    """ZPVE, U0, U, H, G (eV) and Cv (cal/(mol K)) at 298.15 K and 101325 Pa: ideal gas, rigid rotor, harmonic.

    energy: electronic energy in eV; quanta: vibrational energies in eV. Symmetry number 1 for all molecules.
    """
    atoms = require("ase").Atoms(numbers, positions=pos)
    gas = require("ase.thermochemistry").IdealGasThermo(
        vib_energies=quanta, geometry="nonlinear", potentialenergy=energy, atoms=atoms, symmetrynumber=1, spin=0
    )
    temperature, pressure = 298.15, 101325.0
    boltzmann = require("ase.units").kB
    reduced = quanta / (boltzmann * temperature)
    vibrations = (reduced**2 * np.exp(reduced) / np.expm1(reduced) ** 2).sum()
    zero_point = 0.5 * float(quanta.sum())
    return {
        "ZPVE": zero_point, "U0": energy + zero_point, "U": gas.get_internal_energy(temperature, verbose=False),
        "H": gas.get_enthalpy(temperature, verbose=False),
        "G": gas.get_gibbs_energy(temperature, pressure, verbose=False),
        "Cv": float((3.0 + vibrations) * boltzmann * CAL_PER_MOL),
    }


def targets(calculator, numbers, pos) -> dict[str, float] | None:
    """The twelve targets of a relaxed molecule in the units of `UNITS`; None when it is linear or not a minimum."""
    energy, _ = calculator(pos)
    result = calculator.result
    orbitals = np.asarray(result.get("orbital-energies")).ravel() * HARTREE
    occupied = int((np.asarray(result.get("orbital-occupations")).reshape(-1, len(orbitals)).sum(0) > 1.0).sum())
    charges = np.asarray(result.get("charges"))
    dipole = np.linalg.norm(np.asarray(result.get("dipole"))) * DEBYE
    model = require("dftd4.interface").DispersionModel(np.asarray(numbers), np.asarray(pos) / BOHR)
    omega, _ = normal_modes(hessian(calculator, pos, step=0.002, central=False), numbers, pos)
    quanta = omega * HBAR
    if len(omega) != 3 * len(numbers) - 6 or quanta.min() < 1.2e-3:  # 10 cm^-1
        return None
    homo, lumo = float(orbitals[occupied - 1]), float(orbitals[occupied])
    return {
        "mu": float(dipole), "alpha": float(np.sum(model.get_properties()["polarizabilities"])),
        "eps_HOMO": homo, "eps_LUMO": lumo, "delta_eps": lumo - homo, "R2": spatial_extent(numbers, pos, charges),
        **thermochemistry(numbers, pos, energy, quanta),
    }


def generate(out_dir=None, molecules: int = MOLECULES, log=print) -> dict:
    """Make qm9-mini; returns its card. `molecules` may be lowered for a trial."""
    started = time.process_time()
    rng = np.random.default_rng(SEED)
    structures, names, errors = [], [], []
    for smiles in enumerate_molecules(SEED, int(1.7 * molecules) + 5, HEAVY, ELEMENTS, "finetune"):
        found = minimum(smiles, int(rng.integers(1 << 30)), fmax=0.01, accuracy=0.3)
        if found is None:
            continue
        calculator, numbers, pos, _ = found
        try:
            labels = targets(calculator, numbers, pos)
        except RuntimeError:
            continue
        if labels is None:
            continue
        structures.append({"numbers": numbers, "pos": pos, "group": len(names), **labels})
        names.append(smiles)
        if len(names) % 100 == 1:
            errors.append(force_error(calculator, pos, np.random.default_rng(0)))
            log(f"qm9-mini: {len(names)} molecules, {time.process_time() - started:.0f} s")
        if len(names) == molecules:
            break
    order = rng.permutation(len(structures))
    rows = [{**structures[i], "group": row} for row, i in enumerate(order)]
    return cards.write_set(
        "qm9-mini", rows, [names[i] for i in order], units=UNITS, out_dir=out_dir, stands_for="QM9 (12 tasks)",
        how_made="Random molecules of H, C, N, O, F with 3 to 7 heavy atoms (SMILES grown by a seeded random walk, "
        "none of them in anix-mini or t1x-mini), embedded by rdkit, relaxed with GFN2-xTB to 0.01 eV/Å; only true "
        "minima. mu, orbital energies: GFN2-xTB. alpha: sum of dftd4 atomic polarizabilities. R2: estimate from "
        "Mulliken populations at the nuclei plus Slater's-rules free-atom spreads, about the centre of mass. ZPVE, U0, "
        "U, H, G, Cv: GFN2 Hessian by forward differences of 0.002 Å, ideal gas, rigid rotor, harmonic oscillator, "
        "298.15 K, 101325 Pa, symmetry number 1. Rows in random order; group = molecule (canonical SMILES).",
        level_of_theory="GFN2-xTB (tblite); alpha: D4 model (dftd4)", seed=SEED,
        software=cards.software_versions("tblite", "dftd4", "rdkit", "ase", "numpy"),
        what_it_is_not="Not QM9: other molecules, and semi-empirical labels in place of B3LYP/6-31G(2df,p). "
        "U0, U, H and G hold GFN2 total energies (valence electrons only), "
        "so QM9's per-atom reference energies do not fit them: fit references on the training part. "
        "GFN2 virtual levels are not B3LYP ones. Against central differences at tighter "
        "minima the labels are off by about 1 meV (ZPVE, U0, U, H), up to 10 meV (G) and 0.02 cal/(mol K) (Cv).",
        cpu_seconds=time.process_time() - started, extra={"largest_force_error_eV_per_A": max(errors)},
    )
