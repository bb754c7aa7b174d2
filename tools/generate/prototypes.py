"""Crystal prototypes with element substitution: cells of 1-10 atoms in their ideal symmetry.

A crystal is a dict {name, prototype, symbols, numbers, unit_cell (3,3), unit_pos (N,3), a}: cell = a * unit_cell and
pos = a * unit_pos in Å. The first guess of `a` comes from ionic radii (metallic radii for intermetallics); callers
find the real one by an equation of state.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from .xtb import require

_HALF = 0.5
P = np.eye(3)
F = _HALF * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]], float)
B = _HALF * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], float)


def hexagonal(c_over_a: float) -> np.ndarray:
    return np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, c_over_a]])


_Q, _T = 0.25, 0.75
_FACES = [(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
_EDGES = [(0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]

#: cubic prototypes: lattice, [(role, site in units of a)], (a / bond length, bonded roles); every site is fixed by
#: symmetry except in elpasolite (x = 1/4 kept)
CUBIC = {
    "rocksalt": (F, [("A", (0, 0, 0)), ("X", (0.5, 0.5, 0.5))], (2.0, "AX")),
    "zincblende": (F, [("A", (0, 0, 0)), ("X", (_Q, _Q, _Q))], (4 / np.sqrt(3), "AX")),
    "CsCl": (P, [("A", (0, 0, 0)), ("X", (0.5, 0.5, 0.5))], (2 / np.sqrt(3), "AX")),
    "fluorite": (F, [("A", (0, 0, 0)), ("X", (_Q, _Q, _Q)), ("X", (_T, _T, _T))], (4 / np.sqrt(3), "AX")),
    "antifluorite": (F, [("X", (0, 0, 0)), ("A", (_Q, _Q, _Q)), ("A", (_T, _T, _T))], (4 / np.sqrt(3), "AX")),
    "perovskite": (P, [("A", (0, 0, 0)), ("B", (0.5, 0.5, 0.5))] + [("X", s) for s in _FACES], (2.0, "BX")),
    "ReO3": (P, [("A", (0, 0, 0))] + [("X", s) for s in _EDGES], (2.0, "AX")),
    "BiF3": (F, [("A", (0, 0, 0)), ("X", (0.5, 0.5, 0.5)), ("X", (_Q, _Q, _Q)), ("X", (_T, _T, _T))],
             (4 / np.sqrt(3), "AX")),
    "half-Heusler": (F, [("A", (0, 0, 0)), ("X", (0.5, 0.5, 0.5)), ("B", (_Q, _Q, _Q))], (4 / np.sqrt(3), "BX")),
    "Heusler": (F, [("A", (0, 0, 0)), ("X", (0.5, 0.5, 0.5)), ("B", (_Q, _Q, _Q)), ("B", (_T, _T, _T))],
                (4 / np.sqrt(3), "BX")),
    "L12": (P, [("A", (0, 0, 0))] + [("X", s) for s in _FACES], (np.sqrt(2), "AX")),
    "cuprite": (P, [("X", (0, 0, 0)), ("X", (0.5, 0.5, 0.5)), ("A", (_Q, _Q, _Q)), ("A", (_Q, _T, _T)),
                    ("A", (_T, _Q, _T)), ("A", (_T, _T, _Q))], (4 / np.sqrt(3), "AX")),
    "Laves": (F, [("A", (0, 0, 0)), ("A", (_Q, _Q, _Q))] + [("X", s) for s in (
        (0.625, 0.625, 0.625), (0.625, 0.875, 0.875), (0.875, 0.625, 0.875), (0.875, 0.875, 0.625))], (2.6, "AX")),
    "elpasolite": (F, [("A", (_Q, _Q, _Q)), ("A", (_T, _T, _T)), ("B", (0, 0, 0)), ("C", (0.5, 0.5, 0.5))]
                   + [("X", s) for s in ((_Q, 0, 0), (-_Q, 0, 0), (0, _Q, 0), (0, -_Q, 0), (0, 0, _Q), (0, 0, -_Q))],
                   (4.0, "BX")),
}
_IDEAL = np.sqrt(8 / 3)
_W = np.array([1 / 3, 2 / 3]), np.array([2 / 3, 1 / 3])


def _from_fractions(cell, sites):
    return cell, [(role, tuple(np.array(site) @ cell)) for role, site in sites]


#: hexagonal and tetragonal prototypes, with fixed ideal internal parameters
OTHER = {
    "wurtzite": (*_from_fractions(hexagonal(_IDEAL), [
        ("A", (*_W[0], 0)), ("A", (*_W[1], 0.5)), ("X", (*_W[0], 0.375)), ("X", (*_W[1], 0.875))]),
        (np.sqrt(8 / 3), "AX")),
    "NiAs": (*_from_fractions(hexagonal(1.5), [
        ("A", (0, 0, 0)), ("A", (0, 0, 0.5)), ("X", (*_W[0], 0.25)), ("X", (*_W[1], 0.75))]), (1.45, "AX")),
    "CdI2": (*_from_fractions(hexagonal(1.62), [
        ("A", (0, 0, 0)), ("X", (*_W[0], 0.24)), ("X", (*_W[1], 0.76))]), (1.42, "AX")),
    "rutile": (*_from_fractions(np.diag([1, 1, 0.65]), [
        ("A", (0, 0, 0)), ("A", (0.5, 0.5, 0.5)), ("X", (0.305, 0.305, 0)), ("X", (0.695, 0.695, 0)),
        ("X", (0.195, 0.805, 0.5)), ("X", (0.805, 0.195, 0.5))]), (2.32, "AX")),
}
PROTOTYPES = {**CUBIC, **OTHER}

CATIONS = {
    1: "Li Na K Rb Cs Ag Cu Tl".split(),
    2: "Be Mg Ca Sr Ba Zn Cd Mn Fe Co Ni Pb Sn V".split(),
    3: "B Al Ga In Sc Y La Bi Cr Fe Mn V Ti Gd".split(),
    4: "Ti Zr Hf Sn Ge Si V Mn Ru Ir Mo W Ce Nb".split(),
    5: "Nb Ta V Sb".split(),
    6: "W Mo Re".split(),
}
ANIONS = {1: "F Cl Br I H".split(), 2: "O S Se Te".split(), 3: "N P As Sb".split(), 4: ["C"]}
METALS = ("Li Mg Al Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Y Zr Nb Mo Ru Rh Pd Ag Cd In Sn La Hf Ta "
          "W Re Os Ir Pt Au Pb".split())
HEUSLER = {"A": "Li Mg Ca Sc Ti Zr Hf Nb V Ta Y Mn La".split(), "B": "Fe Co Ni Cu Rh Pd Ir Pt Ru Au Zn".split(),
           "X": "Al Ga In Si Ge Sn Pb Sb Bi As".split()}


@functools.cache
def radius(symbol: str, charge: int) -> float:
    """Ionic radius (Å) of pymatgen's table for `charge`, else the nearest tabulated charge, else the atomic radius."""
    element = require("pymatgen.core").Element(symbol)
    if charge == 0:
        metallic = element.data.get("Metallic radius")
        return float(metallic if isinstance(metallic, (int, float)) else element.atomic_radius or 1.4)
    radii = {int(q): float(r) for q, r in element.ionic_radii.items() if q * charge > 0}
    if radii:
        return radii[min(radii, key=lambda q: abs(q - charge))]
    return float(element.atomic_radius or 1.4) + (0.7 if charge < 0 else -0.3)


def build(prototype: str, elements: dict[str, str], charges: dict[str, int]) -> dict:
    """The crystal of `prototype` with `elements` {role: symbol}; charges {role: int} choose the
    radii (0 = metallic)."""
    cell, sites, (ratio, roles) = PROTOTYPES[prototype]
    bond = sum(radius(elements[r], charges[r]) for r in roles)
    a = ratio * bond
    if prototype == "elpasolite":
        a = 2 * bond + 2 * sum(radius(elements[r], charges[r]) for r in "CX")
    symbols = [elements[role] for role, _ in sites]
    numbers = [require("pymatgen.core").Element(s).Z for s in symbols]
    formula = "".join(f"{s}{n if n > 1 else ''}" for s, n in (
        (s, symbols.count(s)) for s in dict.fromkeys(symbols)))
    return {"name": f"{formula} {prototype}", "prototype": prototype, "symbols": symbols, "numbers": np.array(numbers),
            "unit_cell": np.array(cell, float), "unit_pos": np.array([s for _, s in sites], float), "a": float(a)}


def _ionic(prototype: str, pattern: list[tuple[str, int, int]]):
    """All charge-balanced fillings: pattern = [(role, charge, how many per cell)], negative charge = anion."""
    pools = [CATIONS[q] if q > 0 else ANIONS[-q] for _, q, _ in pattern]
    charges = {role: q for role, q, _ in pattern}
    for chosen in itertools.product(*pools):
        if len(set(chosen)) == len(chosen):
            yield prototype, dict(zip((role for role, _, _ in pattern), chosen, strict=True)), charges


def candidates() -> dict[str, list[tuple]]:
    """Every (prototype, elements, charges) that the generator may draw, by prototype, in a fixed order."""
    found: dict[str, list[tuple]] = {name: [] for name in PROTOTYPES}
    for q in (1, 2, 3, 4):
        for name in ("rocksalt", "zincblende", "CsCl", "wurtzite", "NiAs"):
            if (name, q) in {("CsCl", 3), ("CsCl", 4), ("NiAs", 1), ("wurtzite", 4)}:
                continue
            found[name] += _ionic(name, [("A", q, 1), ("X", -q, 1)])
    for m, x in ((2, 1), (4, 2)):
        for name in ("fluorite", "rutile", "CdI2"):
            found[name] += _ionic(name, [("A", m, 1), ("X", -x, 2)])
    found["antifluorite"] += _ionic("antifluorite", [("A", 1, 2), ("X", -2, 1)])
    found["antifluorite"] += _ionic("antifluorite", [("A", 2, 2), ("X", -4, 1)])
    found["cuprite"] += _ionic("cuprite", [("A", 1, 4), ("X", -2, 2)])
    for m, x in ((3, 1), (6, 2)):
        found["ReO3"] += _ionic("ReO3", [("A", m, 1), ("X", -x, 3)])
    found["BiF3"] += _ionic("BiF3", [("A", 3, 1), ("X", -1, 3)])
    for m, n, x in ((1, 2, 1), (1, 5, 2), (2, 4, 2), (3, 3, 2)):
        found["perovskite"] += _ionic("perovskite", [("A", m, 1), ("B", n, 1), ("X", -x, 3)])
    found["elpasolite"] += _ionic("elpasolite", [("A", 1, 2), ("B", 1, 1), ("C", 3, 1), ("X", -1, 6)])
    neutral = {"A": 0, "B": 0, "X": 0}
    for name in ("half-Heusler", "Heusler"):
        found[name] += [(name, dict(zip("ABX", c, strict=True)), neutral) for c in itertools.product(*HEUSLER.values())]
    pairs = list(itertools.permutations(METALS, 2))
    for name in ("CsCl", "L12", "Laves"):
        found[name] += [(name, {"A": a, "X": b}, neutral) for a, b in pairs if name != "CsCl" or a < b]
    return found


def draw(count: int, rng: np.random.Generator, prototypes) -> list[dict]:
    """`count` crystals of different names, the prototypes taken in turn."""
    table = candidates()
    order = {name: list(rng.permutation(len(table[name]))) for name in prototypes}
    chosen: dict[str, dict] = {}
    while len(chosen) < count and any(order.values()):
        for name in prototypes:
            if order[name] and len(chosen) < count:
                crystal = build(*table[name][order[name].pop()])
                chosen.setdefault(crystal["name"], crystal)
    return list(chosen.values())
