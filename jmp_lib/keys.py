"""Glossary: every field of a structure, of a data set and of a batch, with shape, unit and meaning.

N is the number of atoms of a structure (or of all structures of a batch), S the number of structures of a
set, B the number of structures of a batch, E the number of edges, T the number of pre-training tasks.

>>> print(describe("forces"))
forces (N,3) eV/Å: true forces (minus the energy gradient) on the atoms
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One field: its name, its shape, its unit (empty: none) and what it means."""

    name: str
    shape: str
    unit: str
    meaning: str


# --- a structure: a plain dict of numpy arrays -------------------------------------------------------------
STRUCTURE = [
    Field("pos", "(N,3)", "Å", "Cartesian positions, float32"),
    Field("atomic_numbers", "(N,)", "", "atomic numbers 1..120, int64"),
    Field("cell", "(3,3)", "Å", "lattice vectors in rows, float64; zeros where there is no cell"),
    Field("pbc", "(3,)", "", "periodic along each lattice vector, bool"),
    Field("tags", "(N,)", "", "0 below the surface, 1 surface, 2 adsorbate and every atom of other data, int64"),
    Field("fixed", "(N,)", "", "True for atoms held still in the relaxation that made the frame, bool"),
    Field("id", "()", "", "row of the structure in the set it was read from (a subset keeps it), int"),
    Field("sid", "()", "", "name that the source gives the structure, text, where it has one"),
    Field("energy", "()", "eV", "total energy (pre-training sets: of the stated reference), float64"),
    Field("forces", "(N,3)", "eV/Å", "true forces (minus the energy gradient) on the atoms"),
]

# --- scalar targets of a structure, all () float64 ---------------------------------------------------------
TARGETS = [
    Field("mu", "()", "D", "dipole moment"),
    Field("alpha", "()", "a0^3", "isotropic polarizability"),
    Field("eps_HOMO", "()", "eV", "energy of the highest occupied orbital"),
    Field("eps_LUMO", "()", "eV", "energy of the lowest empty orbital"),
    Field("delta_eps", "()", "eV", "gap between the two"),
    Field("R2", "()", "a0^2", "electronic spatial extent"),
    Field("ZPVE", "()", "eV", "zero-point vibrational energy"),
    Field("U0", "()", "eV", "internal energy at 0 K"),
    Field("U", "()", "eV", "internal energy at 298.15 K"),
    Field("H", "()", "eV", "enthalpy at 298.15 K"),
    Field("G", "()", "eV", "free energy at 298.15 K"),
    Field("Cv", "()", "cal/(mol K)", "heat capacity at constant volume, 298.15 K"),
    Field("formation_energy", "()", "eV", "SPICE: total energy less that of the atoms; no task of the paper"),
    Field("y", "()", "see the task", "the one target of a MatBench task or of QMOF"),
]

# --- a batch: a dict of tensors ----------------------------------------------------------------------------
BATCH = [
    Field("batch", "(N,)", "", "index of the structure of each atom, sorted, int64"),
    Field("natoms", "(B,)", "", "atoms of each structure, int64"),
    Field("dataset_index", "(B,)", "", "pre-training task of each structure, int64"),
]

# --- arrays of a whole set ---------------------------------------------------------------------------------
SET = [
    Field("numbers", "(ΣN,)", "", "atomic numbers of all structures one after the other, uint8"),
    Field("group", "(S,)", "", "molecule, trajectory or composition of each structure, for leak-free splits"),
    Field("group_names", "(G,)", "", "names of the groups"),
]

GLOSSARY: dict[str, Field] = {field.name: field for field in STRUCTURE + TARGETS + BATCH + SET}


def describe(name: str) -> str:
    """One line about field ``name``; raises ``KeyError`` for a name that the glossary lacks."""
    field = GLOSSARY[name]
    unit = f" {field.unit}" if field.unit else ""
    return f"{field.name} {field.shape}{unit}: {field.meaning}"
