"""Unit factors. Inside the package: eV, Å, eV/Å; each file's reader converts once.

Factors of three sources are used, and they differ in the fifth to seventh digit:

* those of the official JMP code (``KCAL_PER_MOL``, ``HARTREE``, ``BOHR``; its data set scripts and loaders): readers
  of the published rMD17, MD22 and SPICE files, so that labels and errors are those of the paper. Against CODATA 2014
  (ase.units) they are off by 2e-5, 6e-7 and 4e-7 of themselves: a force error in meV/Å changes far below the printed
  digits, aspirin's -17,617 eV by 0.35 eV, and those tasks train on forces alone.
* ``HARTREE_ASE`` (``ase.units``): ANI-1x, whose official script uses it. Users' own files go through ASE, too.
* ``HARTREE_QM9``: QM9, whose official file was converted with it by torch_geometric.
"""

from __future__ import annotations

from ase import units as _ase

KCAL_PER_MOL = 1.0 / 23.061  # eV; and of kcal/(mol Å) eV/Å
HARTREE = 1.0 / 0.0367493  # eV
BOHR = 0.529177  # Å
HARTREE_PER_BOHR = HARTREE / BOHR  # eV/Å, for gradients (SPICE: force = minus gradient)
HARTREE_ASE = _ase.Hartree  # eV
HARTREE_QM9 = 27.2113825435  # eV


def print_factor(label_unit: str, printed_unit: str) -> float:
    """Factor from the unit of the labels to the unit the paper prints (``eV`` to ``meV``: 1000).

    Raises ``ValueError`` for a pair of units between which nothing is known.
    """
    if printed_unit not in (label_unit, f"m{label_unit}"):
        raise ValueError(f"no factor is known from {label_unit!r} to {printed_unit!r}")
    return 1.0 if printed_unit == label_unit else 1000.0
