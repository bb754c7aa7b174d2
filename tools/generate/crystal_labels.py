"""Labels of prototype crystals: volume, formation energy, moduli, phonon and refractive index.

Units: a in Å, energies eV, moduli GPa, frequencies cm^-1.
"""

from __future__ import annotations

import numpy as np

from .surrogate import evaluate
from .xtb import BOHR, require

COARSE = (0.86, 0.92, 0.98, 1.04, 1.10, 1.17, 1.25)
FINE = (0.97, 0.985, 1.0, 1.015, 1.03)
GPA = 160.21766208  # GPa per eV/Å³
DISPLACEMENT, STRAIN = 0.01, 0.006  # Å, engineering units
PLASMON = 37.1328  # eV per sqrt(electrons/Å³): hbar sqrt(e² / (epsilon_0 m))
WAVENUMBER = 521.4708984  # cm^-1 per sqrt(eV/(Å² u)): sqrt(e/(Å² u)) / (2 pi c)


def at(crystal: dict, a: float) -> tuple:
    """(numbers, pos Å, cell Å) of `crystal` at lattice constant `a`."""
    return crystal["numbers"], a * crystal["unit_pos"], a * crystal["unit_cell"]


def optimise_volume(crystals: list[dict]) -> list[dict]:
    """Isotropic equation of state of every crystal by CHGNet, seven coarse and five fine points.

    Adds a (Å), energy (eV per cell) and bulk (GPa, from the curvature) and leaves out crystals without an interior
    minimum or with a bulk modulus outside 1-1000 GPa.
    """
    found = evaluate([at(c, c["a"] * s) for c in crystals for s in COARSE], "e")
    centred = []
    for k, c in enumerate(crystals):
        curve = [r["energy"] if r else np.inf for r in found[k * len(COARSE) : (k + 1) * len(COARSE)]]
        best = int(np.argmin(curve))
        if (not np.isfinite(curve[best]) or best in (0, len(COARSE) - 1)
                or not np.isfinite(curve[best - 1 : best + 2]).all()):
            continue
        s, e = np.array(COARSE[best - 1 : best + 2]), np.array(curve[best - 1 : best + 2])
        fit = np.polyfit(s, e, 2)
        centred.append({**c, "a": c["a"] * float(np.clip(-fit[1] / (2 * fit[0]), s[0], s[2]))})
    found = evaluate([at(c, c["a"] * s) for c in centred for s in FINE], "e")
    kept = []
    for k, c in enumerate(centred):
        rows = found[k * len(FINE) : (k + 1) * len(FINE)]
        if any(r is None for r in rows):
            continue
        fit = np.polyfit(np.array(FINE) - 1, [r["energy"] for r in rows], 3)
        minima = [float(r.real) for r in np.roots(np.polyder(fit))
                  if abs(r.imag) < 1e-9 and abs(r.real) < 0.035 and np.polyval(np.polyder(fit, 2), r.real) > 0]
        if not minima:
            continue
        a = c["a"] * (1 + minima[0])
        volume = abs(np.linalg.det(a * c["unit_cell"]))
        bulk = float(np.polyval(np.polyder(fit, 2), minima[0])) * (1 + minima[0]) ** 2 / (9 * volume) * GPA
        if 1 < bulk < 1000:
            kept.append({**c, "a": a, "energy": float(np.polyval(fit, minima[0])), "bulk": bulk})
    return kept


def element_references(symbols: list[str]) -> dict[str, float]:
    """CHGNet energy per atom (eV) of each element: the lowest of a few simple structures with relaxed volume.

    H, N, O, F, Cl, Br, I: a dimer in a box; C, Si, Ge, Sn: diamond; B, P, As, Sb, Bi, S, Se, Te: simple cubic and
    diamond; C also one graphite-like layer; every other element: fcc, bcc and hcp. Not always the ground state (P, S,
    Se, B are more complex), which shifts formation energies by a constant per element.
    """
    from .prototypes import B, F, P, hexagonal, radius

    lattices = {
        "fcc": (F, [(0, 0, 0)], np.sqrt(2)), "bcc": (B, [(0, 0, 0)], 2 / np.sqrt(3)),
        "diamond": (F, [(0, 0, 0), (0.25, 0.25, 0.25)], 4 / np.sqrt(3)), "sc": (P, [(0, 0, 0)], 1.0),
        "hcp": (hexagonal(np.sqrt(8 / 3)), [(0, 0, 0), (0, 1 / np.sqrt(3), np.sqrt(2 / 3))], 1.0),
        "layer": (hexagonal(2.72), [(0, 0, 0), (0, 1 / np.sqrt(3), 0)], np.sqrt(3)),
    }
    choice = {s: ("diamond", "sc") for s in "B P As Sb Bi S Se Te".split()}
    choice.update({s: ("diamond",) for s in ("Si", "Ge", "Sn")}, C=("diamond", "layer"))
    Element = require("pymatgen.core").Element
    solids, dimers, owners = [], [], []
    for symbol in symbols:
        z = Element(symbol).Z
        if symbol in ("H", "N", "O", "F", "Cl", "Br", "I"):
            for bond in 2 * float(Element(symbol).atomic_radius) * np.linspace(0.8, 1.7, 19):
                dimers.append((np.array([z, z]), np.array([[4, 4, 4], [4, 4, 4 + bond]]), np.diag([9.0, 9.0, 9.0])))
                owners.append(symbol)
            continue
        for name in choice.get(symbol, ("fcc", "bcc", "hcp")):
            cell, sites, ratio = lattices[name]
            size = radius(symbol, 0) if symbol != "C" else 0.75
            solids.append({"owner": symbol, "numbers": np.full(len(sites), z), "unit_cell": cell,
                           "unit_pos": np.array(sites, float), "a": 2 * ratio * size})
    lowest: dict[str, float] = {}
    for solid in optimise_volume(solids):
        energy = solid["energy"] / len(solid["numbers"])
        lowest[solid["owner"]] = min(energy, lowest.get(solid["owner"], np.inf))
    for symbol, result in zip(owners, evaluate(dimers, "e"), strict=True):
        if result is not None:
            lowest[symbol] = min(result["energy"] / 2, lowest.get(symbol, np.inf))
    return lowest


def formation_energy(crystal: dict, references: dict[str, float]) -> float:
    """Formation energy (eV per cell); KeyError when an element has no reference."""
    return crystal["energy"] - sum(references[s] for s in crystal["symbols"])


def elastic_and_phonon(crystals: list[dict], masses: np.ndarray) -> list[dict]:
    """Cubic elastic constants and Gamma phonons of cubic crystals (sites fixed by symmetry) by CHGNet.

    Finite differences: forces for every atom displaced by `DISPLACEMENT` along x, y, z (force constants Phi) and stress
    and forces for strains e1, e4 = +-`STRAIN`. The internal relaxation under strain is taken from Phi:
    C = C_clamped - Lambda Phi^-1 Lambda / V. masses (118,) u by atomic number.
    Adds c11, c12, c44 (GPa), k_vrh, g_vrh (GPa; Voigt-Reuss-Hill for cubic symmetry), frequencies (3N,) cm^-1
    (imaginary as negative). Mechanically unstable crystals (Born criteria) have k_vrh = g_vrh = nan.
    """
    systems, spans = [], []
    strains = [np.diag([s * STRAIN, 0, 0]) for s in (1, -1)]
    shear = np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]])
    strains += [s * STRAIN * shear for s in (1, -1)]
    for c in crystals:
        numbers, pos, cell = at(c, c["a"])
        first = len(systems)
        for atom in range(len(numbers)):
            for axis in range(3):
                moved = pos.copy()
                moved[atom, axis] += DISPLACEMENT
                systems.append((numbers, moved, cell))
        for strain in strains:
            systems.append((numbers, pos @ (np.eye(3) + strain), cell @ (np.eye(3) + strain)))
        spans.append((first, len(systems)))
    found = evaluate(systems, "efs")
    results = []
    for c, (first, last) in zip(crystals, spans, strict=True):
        rows = found[first:last]
        if any(r is None for r in rows):
            continue
        n = len(c["numbers"])
        phi = -np.array([rows[k]["forces"].ravel() for k in range(3 * n)]) / DISPLACEMENT
        phi = (phi + phi.T) / 2
        phi = phi.reshape(n, 3, n, 3)
        diagonal = phi.sum(axis=2)  # acoustic sum rule
        phi[np.arange(n), :, np.arange(n), :] -= diagonal
        phi = phi.reshape(3 * n, 3 * n)
        phi = (phi + phi.T) / 2
        root = np.repeat(np.sqrt(masses[c["numbers"]]), 3)
        squares = np.linalg.eigvalsh(phi / root[:, None] / root[None])
        volume = abs(np.linalg.det(c["a"] * c["unit_cell"]))
        e1 = [r["stress"] for r in rows[3 * n : 3 * n + 2]]
        e4 = [r["stress"] for r in rows[3 * n + 2 :]]
        force1 = (rows[3 * n]["forces"] - rows[3 * n + 1]["forces"]).ravel() / (2 * STRAIN)
        force4 = (rows[3 * n + 2]["forces"] - rows[3 * n + 3]["forces"]).ravel() / (2 * STRAIN)
        inverse = np.linalg.pinv(phi, rcond=1e-3)
        d1, d4 = (e1[0] - e1[1]) / (2 * STRAIN), (e4[0] - e4[1]) / (2 * STRAIN)
        c11 = d1[0, 0] - force1 @ inverse @ force1 / volume * GPA
        c12 = (d1[1, 1] + d1[2, 2]) / 2
        c44 = d4[1, 2] - force4 @ inverse @ force4 / volume * GPA
        k_vrh, g_vrh = cubic_vrh(c11, c12, c44)
        results.append({**c, "c11": c11, "c12": c12, "c44": c44, "k_vrh": k_vrh, "g_vrh": g_vrh,
                        "frequencies": np.sign(squares) * np.sqrt(np.abs(squares)) * WAVENUMBER})
    return results


def cubic_vrh(c11: float, c12: float, c44: float) -> tuple[float, float]:
    """Voigt-Reuss-Hill bulk and shear modulus of a cubic crystal (GPa); nan, nan when a Born criterion fails."""
    if not (c44 > 0 and c11 - c12 > 0 and c11 + 2 * c12 > 0):
        return float("nan"), float("nan")
    bulk = (c11 + 2 * c12) / 3
    voigt = (c11 - c12 + 3 * c44) / 5
    reuss = 5 * c44 * (c11 - c12) / (4 * c44 + 3 * (c11 - c12))
    return float(bulk), float((voigt + reuss) / 2)


def refractive_index(crystal: dict) -> float:
    """n of (n²-1)/(n²+2) = 4 pi alpha / 3V (Clausius-Mossotti), alpha = sum of DFT-D4 static atomic polarizabilities.

    nan where 4 pi alpha / 3V >= 0.8 (metallic; the relation diverges at 1). D4: Caldeweyher et al.,
    JCP 150, 154122, 2019.
    """
    numbers, pos, cell = at(crystal, crystal["a"])
    model = require("dftd4.interface").DispersionModel(
        np.asarray(numbers), pos / BOHR, lattice=cell / BOHR, periodic=np.array([True] * 3))
    alpha = float(model.get_properties()["polarizabilities"].sum())
    share = 4 * np.pi / 3 * alpha / (abs(np.linalg.det(cell)) / BOHR**3)
    return float(np.sqrt((1 + 2 * share) / (1 - share))) if share < 0.8 else float("nan")


def valence_electrons(symbol: str) -> int:
    """Outer s, p and open d electrons by the group of the periodic table (group 12: 2)."""
    group = int(require("pymatgen.core").Element(symbol).group)
    return group if group < 12 else (2 if group == 12 else group - 10)


def penn_gap(crystal: dict, index: float) -> float:
    """Average optical gap (eV) of the Penn model, E = hbar omega_p / sqrt(n² - 1) (Phys. Rev. 128, 2093, 1962).

    omega_p: plasma frequency of the valence electrons; index: the refractive index n of `refractive_index`.
    """
    volume = abs(np.linalg.det(crystal["a"] * crystal["unit_cell"]))
    density = sum(valence_electrons(s) for s in crystal["symbols"]) / volume  # 1/Å³
    plasmon = PLASMON * np.sqrt(density)
    return float(plasmon / np.sqrt(index**2 - 1))
