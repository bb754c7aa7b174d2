"""Unit factors. Inside the package: eV, Å, eV/Å; each file's reader converts once.

Two sets of factors exist, and they differ in the fifth to sixth digit:

==================  =====================  ======================  ==========================================
quantity            official JMP code      CODATA 2014 (ase.units)  relative difference
==================  =====================  ======================  ==========================================
kcal/mol -> eV      1 / 23.061             0.0433641               2e-5  (0.35 eV of aspirin's -17,617 eV)
Hartree  -> eV      1 / 0.0367493          27.2113860              7e-7
bohr     -> Å       0.529177               0.52917721              4e-7
==================  =====================  ======================  ==========================================

Which is used where:

* ``KCAL_PER_MOL``, ``HARTREE``, ``BOHR`` (official): readers of the published rMD17, MD22 and SPICE files, so
  that labels and errors are those of the paper. A force error in meV/Å differs by 2e-5 of itself between the
  two, far below the printed digits; only total energies shift visibly, and those tasks train on forces alone.
* ``HARTREE_ASE``, ``KCAL_PER_MOL_ASE``, ``BOHR_ASE`` (``ase.units``, CODATA 2014): ANI-1x, whose official script
  uses the ASE constant; users' own files and everything that goes through ASE.
* ``HARTREE_QM9``, ``KCAL_PER_MOL_QM9``: QM9, whose official file was converted with these by torch_geometric.

Source of the official values: data set scripts and loaders of the JMP code; of the ASE ones: ``ase.units``.
"""

from __future__ import annotations

from ase import units as _ase

# official JMP factors
KCAL_PER_MOL = 1.0 / 23.061  # eV
HARTREE = 1.0 / 0.0367493  # eV
BOHR = 0.529177  # Å
KCAL_PER_MOL_PER_ANGSTROM = KCAL_PER_MOL  # eV/Å, for files in kcal/(mol Å)
HARTREE_PER_BOHR = HARTREE / BOHR  # eV/Å, for gradients (SPICE: force = minus gradient)

# ase.units
KCAL_PER_MOL_ASE = _ase.kcal / _ase.mol  # eV
HARTREE_ASE = _ase.Hartree  # eV
BOHR_ASE = _ase.Bohr  # Å

# torch_geometric's QM9
HARTREE_QM9 = 27.2113825435  # eV
KCAL_PER_MOL_QM9 = 0.04336414  # eV

_PREFIX = {("eV", "meV"): 1000.0, ("eV/A", "meV/A"): 1000.0, ("eV/atom", "meV/atom"): 1000.0}


def print_factor(label_unit: str, printed_unit: str) -> float:
    """Factor from the unit of the labels to the unit the paper prints (``eV`` to ``meV``: 1000).

    Raises ``ValueError`` for a pair of units between which nothing is known.
    """
    if label_unit == printed_unit:
        return 1.0
    try:
        return _PREFIX[label_unit, printed_unit]
    except KeyError:
        raise ValueError(f"no factor is known from {label_unit!r} to {printed_unit!r}") from None
