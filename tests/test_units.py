"""Unit factors: the official ones, those of ase.units, and how far they are apart."""

import pytest
from ase import units as ase_units

from jmp_lib import units


def test_official_factors_are_those_of_the_data_set_scripts():
    assert units.KCAL_PER_MOL * 23.061 == pytest.approx(1, abs=1e-15)
    assert units.HARTREE * 0.0367493 == pytest.approx(1, abs=1e-15)
    assert units.BOHR == 0.529177
    # SPICE: "one Hartree/bohr = 51.42 eV/A"
    assert units.HARTREE_PER_BOHR == pytest.approx(51.42, abs=0.005)


def test_factors_differ_as_documented():
    pairs = ((units.KCAL_PER_MOL, ase_units.kcal / ase_units.mol, 2e-5), (units.HARTREE, units.HARTREE_ASE, 6e-7),
             (units.BOHR, ase_units.Bohr, 4e-7))
    for official, ase, stated in pairs:
        assert abs(official / ase - 1) == pytest.approx(stated, rel=0.2)
    assert units.HARTREE_ASE == ase_units.Hartree
    aspirin = -17617.38  # eV
    assert abs(aspirin * (ase_units.kcal / ase_units.mol / units.KCAL_PER_MOL - 1)) == pytest.approx(0.35, abs=0.02)
    assert units.HARTREE_QM9 == pytest.approx(units.HARTREE_ASE, rel=2e-7)


def test_printed_units():
    assert units.print_factor("eV", "meV") == 1000
    assert units.print_factor("eV/A", "meV/A") == 1000
    assert units.print_factor("eV/atom", "meV/atom") == 1000
    assert units.print_factor("cm^-1", "cm^-1") == 1
    with pytest.raises(ValueError, match="'eV' to 'D'"):
        units.print_factor("eV", "D")
