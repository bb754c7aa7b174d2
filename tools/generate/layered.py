"""Layered crystals and their exfoliation energy: CHGNet + D4(PBE) dispersion, for matbench-mini-jdft2d.

One layer per cell, stacked straight or with a lateral shift; the in-plane size is optimised for the single layer, the
gap between the layers for the stack.
"""

from __future__ import annotations

import itertools

import numpy as np

from .prototypes import radius
from .surrogate import LEVEL, evaluate
from .xtb import BOHR, HARTREE, require

SIZES = (0.90, 0.95, 1.0, 1.05, 1.10)
GAPS = (2.3, 2.7, 3.1, 3.5, 4.0)  # Å between the outermost atoms of neighbouring layers
APART = 12.0  # Å, the separated layers
CHUNK = 32

_TRIGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0]])
_SQUARE = np.array([[1.0, 0, 0], [0, 1.0, 0]])
_W1, _W2 = np.array([1 / 3, 2 / 3]), np.array([2 / 3, 1 / 3])


def _layer(name: str, elements: dict[str, str], bond: float) -> dict:
    """One layer: in-plane cell (2,3) Å, positions (N,3) Å, symbols; `bond` = cation-anion distance in Å."""
    o, h = np.zeros(2), np.array([0.5, 0.5])
    if name == "1T":
        a, z = np.sqrt(2) * bond, bond / np.sqrt(3)
        plane, sites = _TRIGONAL, [("A", o, 0), ("X", _W1, z), ("Y", _W2, -z)]
    elif name == "2H":
        a, z = 1.29 * bond, 0.66 * bond
        plane, sites = _TRIGONAL, [("A", o, 0), ("X", _W1, z), ("Y", _W1, -z)]
    elif name == "honeycomb":
        a, plane, sites = np.sqrt(3) * bond, _TRIGONAL, [("A", _W1, 0), ("X", _W2, 0)]
    elif name == "buckled":
        a, plane, sites = 1.60 * bond, _TRIGONAL, [("A", _W1, 0.19 * bond), ("X", _W2, -0.19 * bond)]
    elif name == "GaSe":
        a, z = 1.53 * bond, 1.22
        plane, sites = _TRIGONAL, [("A", _W1, z), ("A", _W1, -z),
                                   ("X", _W2, z + 0.47 * bond), ("X", _W2, -z - 0.47 * bond)]
    elif name == "PbO":
        a, z = 1.58 * bond, 0.61 * bond
        plane, sites = _SQUARE, [("A", o, 0), ("A", h, 0), ("X", np.array([0, 0.5]), z), ("X", np.array([0.5, 0]), -z)]
    elif name == "BiI3":
        a, z, t = np.sqrt(6) * bond, bond / np.sqrt(3), 1 / 3
        up = [(t, 0), (0, t), (-t, -t)]
        sites = ([("A", _W1, 0), ("A", _W2, 0)] + [("X", np.array(s), z) for s in up]
                 + [("X", -np.array(s), -z) for s in up])
        plane = _TRIGONAL
    else:
        raise ValueError(f"no such layer: {name}")
    cell = a * plane
    pos = np.array([np.asarray(xy) @ cell + [0, 0, z] for _, xy, z in sites])
    return {"plane": cell, "layer": pos, "symbols": [elements.get(r, elements["X"]) for r, _, _ in sites]}


def candidates(rng: np.random.Generator) -> list[dict]:
    """All layered crystals in random order (symbols, numbers, plane, layer, shift, name, prototype)."""
    table = []
    tetra, di = "Ti Zr Hf V Nb Ta Mo W Re Pt Sn Pd Ni".split(), "Mg Ca Zn Cd Mn Fe Co Ni Pb Sr Ba Ge Sn".split()
    chalcogens, halides = "O S Se Te".split(), "F Cl Br I".split()
    for m, x in [*itertools.product(tetra, chalcogens), *itertools.product(di, halides)]:
        q = 2 if x in chalcogens else 1
        for kind in ("1T", "2H"):
            table.append((kind, {"A": m, "X": x, "Y": x}, 2 * q, -q))
    for m, (x, y) in itertools.product("Mo W Ti Zr Hf Nb Pt Sn".split(), itertools.combinations(("S", "Se", "Te"), 2)):
        table.append(("2H" if m in ("Mo", "W", "Nb") else "1T", {"A": m, "X": x, "Y": y}, 4, -2))
    for m, x in itertools.product("B Al Ga In".split(), "N P As Sb".split()):
        table += [("honeycomb", {"A": m, "X": x}, 3, -3), ("buckled", {"A": m, "X": x}, 3, -3)]
    for m, x in itertools.product("Si Ge Sn Zn Cd Be Mg".split(), "C O S Se Te".split()):
        q = 4 if x == "C" else 2
        if (m in ("Si", "Ge", "Sn")) == (x == "C"):
            table += [("honeycomb", {"A": m, "X": x}, q, -q), ("buckled", {"A": m, "X": x}, q, -q)]
    for m, x in itertools.product("Al Ga In".split(), chalcogens):
        table.append(("GaSe", {"A": m, "X": x}, 3, -2))
    for m, x in itertools.product("Pb Sn Ge Fe Co Ni Mn Zn Cd Mg Cu Li Na".split(), chalcogens):
        table.append(("PbO", {"A": m, "X": x}, 1 if m in ("Li", "Na") else 2, -2))
    for m, x in itertools.product("Al Sc Y Ti V Cr Fe Co Bi Sb In Ga La Rh".split(), halides):
        table.append(("BiI3", {"A": m, "X": x}, 3, -1))
    found = []
    for kind, elements, q, minus in table:
        for shift in (0, 1):
            bond = (radius(elements["A"], q)
                    + (radius(elements["X"], minus) + radius(elements.get("Y", elements["X"]), minus)) / 2)
            layer = _layer(kind, elements, bond)
            layer["numbers"] = np.array([require("pymatgen.core").Element(s).Z for s in layer["symbols"]])
            layer["shift"] = shift
            formula = "".join(f"{s}{n if n > 1 else ''}" for s, n in (
                (s, layer["symbols"].count(s)) for s in dict.fromkeys(layer["symbols"])))
            found.append({**layer, "prototype": kind,
                          "group": f"{formula} {kind}",
                          "name": f"{formula} {kind} {'shifted' if shift else 'straight'} stack"})
    return [found[k] for k in rng.permutation(len(found))]


def stacked(crystal: dict, gap: float) -> tuple:
    """(numbers, pos, cell) of the stack with `gap` Å between the outermost atoms of neighbouring layers."""
    thickness = np.ptp(crystal["layer"][:, 2])
    weight = 1 / 3 if crystal["prototype"] != "PbO" else 1 / 2
    lateral = crystal["shift"] * weight * (crystal["plane"][0] + (2 if weight < 0.4 else 1) * crystal["plane"][1])
    cell = np.array([*crystal["plane"], lateral + [0, 0, thickness + gap]])
    return crystal["numbers"], crystal["layer"] - [0, 0, crystal["layer"][:, 2].min()], cell


def dispersion(system: tuple) -> float:
    """Two-body DFT-D4 dispersion energy with PBE damping (eV per cell)."""
    numbers, pos, cell = system
    interface = require("dftd4.interface")
    model = interface.DispersionModel(np.asarray(numbers), pos / BOHR, lattice=cell / BOHR,
                                      periodic=np.array([True] * 3))
    return float(model.get_dispersion(interface.DampingParam(method="pbe", atm=False), grad=False)["energy"]) * HARTREE


def _minimum(x, y) -> tuple[float, float] | None:
    """Place and value of the interior minimum of a sampled curve (parabola through three points), else None."""
    best = int(np.argmin(y))
    if best in (0, len(y) - 1) or not np.isfinite(y).all():
        return None
    fit = np.polyfit(x[best - 1 : best + 2], y[best - 1 : best + 2], 2)
    place = float(np.clip(-fit[1] / (2 * fit[0]), x[best - 1], x[best + 1]))
    return place, float(np.polyval(fit, place))


def exfoliate(crystals: list[dict]) -> list[tuple[dict, float]]:
    """(crystal at its best gap with keys numbers, pos, cell, name, prototype; exfoliation energy in meV/atom)."""
    trial = []
    for c in crystals:
        for s in SIZES:
            scaled = {**c, "plane": c["plane"] * s, "layer": c["layer"] * s}
            trial.append(stacked(scaled, APART))
    found = evaluate(trial, "e")
    layers = []
    for k, c in enumerate(crystals):
        rows = found[k * len(SIZES) : (k + 1) * len(SIZES)]
        best = _minimum(np.array(SIZES), [r["energy"] if r else np.inf for r in rows])
        if best:
            layers.append({**c, "plane": c["plane"] * best[0], "layer": c["layer"] * best[0]})
    trial = [stacked(c, gap) for c in layers for gap in (*GAPS, APART)]
    found = evaluate(trial, "e")
    count = len(GAPS) + 1
    rows = []
    for k, c in enumerate(layers):
        part = found[k * count : (k + 1) * count]
        if any(r is None for r in part):
            continue
        energy = np.array([r["energy"] + dispersion(s)
                           for r, s in zip(part, trial[k * count : (k + 1) * count], strict=True)])
        best = _minimum(np.array(GAPS), energy[:-1])
        if best is None:
            continue
        y = 1000 * (energy[-1] - best[1]) / len(c["numbers"])
        numbers, pos, cell = stacked(c, best[0])
        rows.append(({**{key: c[key] for key in ("name", "group", "prototype")},
                      "numbers": numbers, "pos": pos, "cell": cell}, float(y)))
    return rows


def exfoliation_rows(count: int, seed: int) -> tuple[list[tuple[dict, float]], dict]:
    """At least `count` layered crystals with 0 < y < 600 meV/atom, and the words of the card."""
    wanted = candidates(np.random.default_rng([seed, 2]))
    rows: list[tuple[dict, float]] = []
    for first in range(0, len(wanted), CHUNK):
        rows += [(c, y) for c, y in exfoliate(wanted[first : first + CHUNK]) if 0 < y < 600]
        print(f"matbench-mini-jdft2d: {len(rows)} of {first + CHUNK}", flush=True)
        if len(rows) >= count:
            break
    return rows, {
        "unit": "meV/atom", "stands_for": "matbench_jdft2d (exfoliation energy, OptB88vdW)", "what": "",
        "how_made": (
            "Layered crystals of one layer per cell (1T and 2H MX2 and Janus MXY, BiI3-, GaSe- and PbO-like, "
            "flat and buckled honeycombs), straight or shifted stacking; in-plane size by CHGNet, "
            f"gap by CHGNet + D4; y = (energy of the layers {APART} Å apart - energy of the stack) "
            "per atom. Only stacks with an energy minimum at a gap between "
            f"{GAPS[0]} and {GAPS[-1]} Å are kept. The two stackings of a layer are two crystals of one group."
        ),
        "level_of_theory": LEVEL + "; plus two-body DFT-D4 dispersion with PBE damping",
    }
