"""Units of a user's labels: energies to eV, forces to eV/Å; any other property keeps the unit it came with."""

from __future__ import annotations

from ase import units

ENERGY = {"ev": 1.0, "mev": 1e-3, "hartree": units.Hartree, "ha": units.Hartree, "ry": units.Rydberg,
          "kcal/mol": units.kcal / units.mol, "kj/mol": units.kJ / units.mol}
LENGTH = {"å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "bohr": units.Bohr}


def energy_factor(unit: str) -> float:
    """Factor from ``unit`` to eV; ``ValueError`` naming the known ones."""
    try:
        return ENERGY[unit.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown energy unit {unit!r}; known are eV, meV, Hartree, Ry, kcal/mol, kJ/mol") from None


def force_factor(unit: str) -> float:
    """Factor from ``unit`` (energy/length, for instance ``kcal/mol/Å``) to eV/Å."""
    energy, _, length = unit.strip().replace("(mol Å)", "mol/Å").rpartition("/")
    if not energy or length.strip().lower() not in LENGTH:
        raise ValueError(f"unknown force unit {unit!r}; write energy/length, for instance eV/Å, kcal/mol/Å or Hartree/bohr")
    return energy_factor(energy) / LENGTH[length.strip().lower()]
