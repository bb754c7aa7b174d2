"""qmof-mini: porous metal-organic frameworks built from parts, y = HOMO-LUMO gap of GFN1-xTB at the Gamma point.

Stands for the QMOF band gap set (Rosen et al., Matter 4, 1578, 2021). Three nets: square grids of M2 paddlewheels with
linear dicarboxylates (as MOF-2), the same with N-donor pillars (as DMOF-1), and cubic M(N-donor)2 AF6 (as SIFSIX-3).
"""

from __future__ import annotations

import time

import numpy as np

from .cards import software_versions, write_set
from .linkers import build_acid, build_pillar, random_ring_groups
from .relax import shortest_distance
from .xtb import HARTREE, XTB, require

SEED = 31
COUNT = 200
SHAKE = 0.03  # Å
TEMPERATURE = 300.0  # K, electronic

#: metal -> metal-oxygen and metal-nitrogen distance (Å), typical of its divalent carboxylates and pyridines
PADDLEWHEEL = {"Zn": (2.03, 2.06), "Cu": (1.97, 2.15), "Mg": (2.05, 2.18), "Cd": (2.22, 2.30), "Ni": (2.00, 2.05),
               "Co": (2.03, 2.08), "Mn": (2.12, 2.20), "Be": (1.75, 1.80), "Ca": (2.32, 2.50)}
OCTAHEDRAL = {"Zn": 2.15, "Cd": 2.35, "Mg": 2.20, "Ni": 2.10, "Fe": 2.18, "Ca": 2.50}
HEXAFLUORIDE = {"Si": (1.70, 2.05), "Ge": (1.79, 2.05), "Ti": (1.86, 2.05), "Sn": (1.96, 2.10), "Zr": (2.00, 2.10)}
ACIDS = ("acetylene", "diacetylene", "ethylene", "phenylene", "phenylene", "phenylene", "biphenylene")
PILLARS = ("pyrazine", "bipyridine", "dicyanobenzene", "dipyridylacetylene")


def _turn(points: np.ndarray, axis: str) -> np.ndarray:
    """Points built along x, turned (properly) so that they run along `axis`."""
    return {"x": points, "y": points[:, [2, 0, 1]], "z": points[:, [1, 2, 0]]}[axis]


def paddlewheel(rng: np.random.Generator, pillared: bool) -> tuple[str, list[str], np.ndarray, np.ndarray]:
    """Square grid of M2(dicarboxylate)2, layers stacked or joined by a pillar: name, symbols, pos, cell."""
    metal = str(rng.choice(list(PADDLEWHEEL)))
    oxygen, nitrogen = PADDLEWHEEL[metal]
    half = 1.25 + 0.5 * (oxygen - 1.97)  # half the metal-metal distance
    out = np.sqrt(oxygen**2 - (half - 1.12) ** 2)  # of the carboxylate oxygens
    symbols, parts, names, sides = [metal, metal], [np.array([[0, 0, half], [0, 0, -half]])], [], []
    for axis in "xy":
        core = str(rng.choice(ACIDS))
        groups = random_ring_groups(core, rng)
        s, p, reach = build_acid(core, groups, torsion=rng.uniform(0, 90))
        side = 2 * (out + 0.58 + reach)
        p = p + np.array([side / 2, 0, 0])
        parts.append(p if axis == "x" else p @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]))
        symbols += s
        sides.append(side)
        names.append(core + "".join(f"-{g}" for g in groups if g != "H"))
    height = 2 * half + rng.uniform(4.2, 6.0)
    if pillared:
        pillar = str(rng.choice(PILLARS[:2] if len(symbols) > 40 else PILLARS))
        s, p, reach = build_pillar(pillar, torsion=rng.uniform(0, 90))
        height = 2 * (half + nitrogen + reach)
        parts.append(_turn(p, "z") + np.array([0, 0, height / 2]))
        symbols += s
        names.append(pillar)
    shift = rng.uniform(0, 0.5) * sides[0] if not pillared else 0.0
    cell = np.array([[sides[0], 0, 0], [0, sides[1], 0], [shift, 0, height]])
    return f"{metal}2 {' '.join(names)}", symbols, np.concatenate(parts), cell


def hexafluoride(rng: np.random.Generator) -> tuple[str, list[str], np.ndarray, np.ndarray]:
    """M(N-donor)2 AF6: M at the corner, N-donors along x and y, AF6 along z."""
    metal, centre = str(rng.choice(list(OCTAHEDRAL))), str(rng.choice(list(HEXAFLUORIDE)))
    fluorine, contact = HEXAFLUORIDE[centre]
    symbols, parts, names, sides = [metal], [np.zeros((1, 3))], [], []
    for axis in "xy":
        donor = str(rng.choice(PILLARS))
        s, p, reach = build_pillar(donor, torsion=rng.uniform(0, 90))
        sides.append(2 * (OCTAHEDRAL[metal] + reach))
        parts.append(_turn(p, axis)
                     + (np.array([sides[-1] / 2, 0, 0]) if axis == "x" else np.array([0, sides[-1] / 2, 0])))
        symbols += s
        names.append(donor)
    height = 2 * (fluorine + contact)
    angle = np.radians(45.0 + rng.uniform(-10, 10))
    c, s = np.cos(angle), np.sin(angle)
    fluorines = fluorine * np.array([[0, 0, 1], [0, 0, -1], [c, s, 0], [-c, -s, 0], [-s, c, 0], [s, -c, 0]])
    parts += [np.array([[0, 0, height / 2]]), fluorines + np.array([0, 0, height / 2])]
    symbols += [centre] + ["F"] * 6
    return f"{metal}{centre}F6 {' '.join(names)}", symbols, np.concatenate(parts), np.diag([*sides, height])


def gap(numbers, pos, cell) -> float:
    """HOMO-LUMO gap (eV) of GFN1-xTB at the Gamma point; RuntimeError when it does not converge
    or has odd electrons."""
    calculator = XTB(numbers, pos, method="GFN1-xTB", cell=cell, temperature=TEMPERATURE, max_iter=150)
    calculator(pos)
    levels = np.sort(np.asarray(calculator.result.get("orbital-energies")).ravel()) * HARTREE
    electrons = float(np.asarray(calculator.result.get("orbital-occupations")).sum())
    filled = int(round(electrons / 2))
    if abs(electrons - 2 * filled) > 1e-3:
        raise RuntimeError("odd number of electrons")
    return float(levels[filled] - levels[filled - 1])


def generate(out_dir=None, count: int = COUNT) -> dict:
    """Make qmof-mini and return its card."""
    start = time.process_time()
    Element = require("pymatgen.core").Element
    rng = np.random.default_rng(SEED)
    structures, names, tried = [], [], 0
    while len(names) < count:
        tried += 1
        kind = rng.choice(["grid", "pillared", "hexafluoride"], p=[0.45, 0.25, 0.30])
        name, symbols, pos, cell = hexafluoride(rng) if kind == "hexafluoride" else paddlewheel(rng, kind == "pillared")
        if not 26 <= len(symbols) <= 80 or name in names:
            continue
        pos = pos + rng.normal(size=pos.shape) * SHAKE
        if shortest_distance(pos, cell) < 0.85:
            continue
        numbers = np.array([Element(s).Z for s in symbols])
        try:
            y = gap(numbers, pos, cell)
        except RuntimeError:
            continue
        if not 0.0 <= y < 10:
            continue
        structures.append({"numbers": numbers, "pos": pos, "cell": cell, "y": y, "group": len(names)})
        names.append(name)
        if len(names) % 20 == 0:
            print(f"qmof-mini: {len(names)} of {tried} tried, {time.process_time() - start:.0f} s", flush=True)
    return write_set(
        "qmof-mini", structures, names,
        stands_for="QMOF (PBE band gaps of metal-organic frameworks)",
        how_made=(
            "Frameworks of 26-80 atoms put together from parts with typical bond lengths and not relaxed (random "
            f"torsions, stacking shifts and Gaussian displacements of {SHAKE} Å): square grids of M2 paddlewheels and "
            f"dicarboxylates ({', '.join(dict.fromkeys(ACIDS))}, with ring substituents), the same with pillars, and "
            f"M(donor)2 AF6; metals {', '.join(sorted({*PADDLEWHEEL, *OCTAHEDRAL}))}, N-donors {', '.join(PILLARS)}. "
            "y = HOMO-LUMO gap at Gamma."
        ),
        level_of_theory="GFN1-xTB, Gamma point, closed shell, electronic temperature 300 K",
        software=software_versions("tblite", "pymatgen", "numpy"), seed=SEED,
        what_it_is_not=(
            "Not QMOF and not DFT: idealised unrelaxed frameworks, "
            "closed-shell semi-empirical orbital gaps (open-shell metals "
            "come out with too small ones). Good for exercising the method, not for screening frameworks."
        ),
        cpu_seconds=time.process_time() - start, units={"y": "eV"}, out_dir=out_dir,
    )
