"""oc22-mini: relaxation frames of oxide slabs with a small adsorbate, CHGNet (ML-surrogate) labels.

Stands for the OC22 S2EF set (Tran et al., ACS Catal. 13, 3066, 2023): the same kind of system with smaller cells.
"""

from __future__ import annotations

import time

import numpy as np
from ase import Atoms
from ase.build import make_supercell, surface
from ase.spacegroup import crystal

from .adsorbates import place
from .cards import software_versions, write_set
from .relax import RATTLE, Descent, shortest_distance
from .surrogate import LEVEL, evaluate, force_error
from .xtb import plausible

SEED = 22
SYSTEMS, FRAMES, TOGETHER = 100, 8, 20
START_FORCE = 25.0  # eV/Å
ADSORBED = ("O", "OH", "H2O", "CO", "H", "OOH", "O2", "N", "C")

ROCKSALT = {"Mg": 4.21, "Ca": 4.81, "Sr": 5.16, "Ba": 5.52, "Ni": 4.18, "Co": 4.26, "Mn": 4.44, "Fe": 4.33, "Cd": 4.70}
RUTILE = {  # a, c in Å and the free oxygen coordinate
    "Ti": (4.594, 2.959, 0.305), "Sn": (4.737, 3.186, 0.307), "Ru": (4.492, 3.107, 0.306), "Ir": (4.505, 3.159, 0.308),
    "V": (4.555, 2.851, 0.300), "Mn": (4.399, 2.872, 0.305), "Cr": (4.421, 2.917, 0.303), "Pb": (4.955, 3.386, 0.307),
    "Ge": (4.395, 2.860, 0.306), "Os": (4.503, 3.184, 0.308),
}
WURTZITE = {"Zn": (3.250, 5.207), "Be": (2.698, 4.377)}
FLUORITE = {"Ce": 5.411, "Zr": 5.09, "Hf": 5.08}
ANTIFLUORITE = {"Li": 4.61, "Na": 5.55}
PEROVSKITE = {
    ("Sr", "Ti"): 3.905, ("Ba", "Ti"): 4.00, ("Ca", "Ti"): 3.84, ("La", "Al"): 3.79, ("Ba", "Zr"): 4.19,
    ("La", "Co"): 3.83, ("La", "Mn"): 3.88, ("K", "Nb"): 4.00,
}
# of the large companion, besides (experiment, or the pseudocubic edge of a distorted perovskite)
MORE_ROCKSALT = {"Ti": 4.18, "V": 4.09, "Nb": 4.21, "Zn": 4.28, "Eu": 5.14, "Cu": 4.25}
MORE_RUTILE = {"Nb": (4.85, 2.99, 0.295), "Ta": (4.71, 3.06, 0.295), "Rh": (4.49, 3.09, 0.306),
               "Pt": (4.49, 3.14, 0.306), "Te": (4.79, 3.78, 0.308), "Si": (4.18, 2.67, 0.306),
               "W": (4.86, 2.77, 0.300), "Mo": (4.86, 2.81, 0.300)}
MORE_FLUORITE = {"Pr": 5.39, "Th": 5.60, "U": 5.47, "Tb": 5.22}
MORE_ANTIFLUORITE = {"K": 6.44, "Rb": 6.74}
MORE_PEROVSKITE = {
    ("Sr", "Zr"): 4.10, ("Sr", "Hf"): 4.08, ("Ba", "Sn"): 4.12, ("Ba", "Hf"): 4.17, ("Ca", "Zr"): 4.01,
    ("Sr", "Ru"): 3.93, ("Sr", "Fe"): 3.85, ("Sr", "Co"): 3.83, ("Sr", "Mn"): 3.80, ("Sr", "V"): 3.84,
    ("Sr", "Mo"): 3.97, ("Sr", "Nb"): 4.02, ("Ca", "V"): 3.77, ("Ca", "Mn"): 3.73, ("La", "Fe"): 3.93,
    ("La", "Ni"): 3.84, ("La", "Cr"): 3.88, ("La", "Ga"): 3.87, ("La", "V"): 3.92, ("La", "Ti"): 3.96,
    ("K", "Ta"): 3.99, ("Na", "Nb"): 3.94, ("Na", "Ta"): 3.93, ("Pb", "Ti"): 3.97, ("Pb", "Zr"): 4.13,
    ("Bi", "Fe"): 3.96, ("Y", "Al"): 3.70, ("Ce", "Al"): 3.77, ("Nd", "Al"): 3.75, ("Gd", "Fe"): 3.86,
}
LARGE_FRAMES = 4


def _cubic(symbols, basis, group, a):
    return crystal(symbols, basis, spacegroup=group, cellpar=[a, a, a, 90, 90, 90])


def bulks(more: bool = False) -> list[tuple[str, Atoms, tuple, int]]:
    """(name, conventional bulk cell, Miller indices of the cut, layers) of every oxide; lattice data in Å,
    experiment."""
    rocksalt, rutile, fluorite, antifluorite, perovskite = (a | b if more else a for a, b in (
        (ROCKSALT, MORE_ROCKSALT), (RUTILE, MORE_RUTILE), (FLUORITE, MORE_FLUORITE), (ANTIFLUORITE, MORE_ANTIFLUORITE),
        (PEROVSKITE, MORE_PEROVSKITE)))  # fmt: skip
    found = []
    for m, a in rocksalt.items():
        found.append((f"{m}O rocksalt", _cubic([m, "O"], [(0, 0, 0), (0.5, 0.5, 0.5)], 225, a), (1, 0, 0), 2))
    for m, (a, c, u) in rutile.items():
        bulk = crystal([m, "O"], [(0, 0, 0), (u, u, 0)], spacegroup=136, cellpar=[a, a, c, 90, 90, 90])
        found += [(f"{m}O2 rutile", bulk, (1, 1, 0), 1), (f"{m}O2 rutile", bulk, (1, 0, 0), 2)]
    for m, (a, c) in WURTZITE.items():
        basis = [(1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, 0.382)]
        bulk = crystal([m, "O"], basis, spacegroup=186, cellpar=[a, a, c, 90, 90, 120])
        found += [(f"{m}O wurtzite", bulk, (1, 0, 0), 3), (f"{m}O wurtzite", bulk, (1, 1, 0), 2)]
    for m, a in fluorite.items():
        found.append((f"{m}O2 fluorite", _cubic([m, "O"], [(0, 0, 0), (0.25, 0.25, 0.25)], 225, a), (1, 1, 1), 2))
    for m, a in antifluorite.items():
        found.append((f"{m}2O antifluorite", _cubic(["O", m], [(0, 0, 0), (0.25, 0.25, 0.25)], 225, a), (1, 1, 1), 2))
    for (m, n), a in perovskite.items():
        bulk = _cubic([m, n, "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], 221, a)
        found.append((f"{m}{n}O3 perovskite", bulk, (1, 0, 0), 2))
    return found


def make_slab(rng: np.random.Generator, choices) -> tuple[str, Atoms]:
    """A random slab of 12-36 atoms, strained by up to 2 %; tag 1 = within 1.6 Å of the top, 0 = the rest."""
    name, bulk, miller, layers = choices[rng.integers(len(choices))]
    bulk = bulk.copy()
    bulk.set_cell(bulk.cell * rng.uniform(0.98, 1.02), scale_atoms=True)
    slab = surface(bulk, miller, layers, vacuum=6.0, periodic=True)
    for axis in np.argsort(np.linalg.norm(slab.cell.array[:2], axis=1)):  # shortest side first
        if np.linalg.norm(slab.cell.array[axis]) < 4.2 and len(slab) <= 14:
            repeat = np.eye(3, dtype=int)
            repeat[axis, axis] = 2
            slab = make_supercell(slab, repeat)
    slab.wrap()
    slab.center(vacuum=6.0, axis=2)
    slab.set_tags((slab.positions[:, 2] > slab.positions[:, 2].max() - 1.6).astype(int))
    return f"{name} {slab.get_chemical_formula()} ({miller[0]}{miller[1]}{miller[2]})", slab


def start_system(rng: np.random.Generator, choices) -> dict:
    """A system at its start: name, numbers, tags, fixed (lower half of the slab), cell Å and its Descent."""
    while True:
        name, slab = make_slab(rng, choices)
        adsorbate = str(rng.choice(ADSORBED))
        numbers, pos, tags = place(slab, adsorbate, rng)
        z = slab.positions[:, 2]
        fixed = (tags == 0) & (pos[:, 2] < (z.min() + z.max()) / 2)
        pos = pos + np.where(~fixed[:, None], rng.normal(size=pos.shape) * RATTLE, 0.0)
        if 12 <= len(numbers) <= 40 and shortest_distance(pos, slab.cell.array) > 0.75:
            return {"name": f"{name} + {adsorbate}", "numbers": numbers, "tags": tags, "fixed": fixed,
                    "cell": slab.cell.array, "descent": Descent(pos, ~fixed, rng), "frames": []}


def relax_together(systems: list[dict], frames: int = FRAMES) -> list[dict]:
    """Record ``frames`` frames of every system, all systems of one step in one batch;
    returns those that stayed sane."""
    alive = list(systems)
    for step in range(frames):
        labels = evaluate([(s["numbers"], s["descent"].pos, s["cell"]) for s in alive])
        kept = []
        for s, label in zip(alive, labels, strict=True):
            if label is None or not plausible(label["energy"], label["forces"]):
                continue
            if step == 0 and np.linalg.norm(label["forces"][~s["fixed"]], axis=1).max() > START_FORCE:
                continue
            s["frames"].append({"pos": s["descent"].pos.copy(),
                                **{k: s[k] for k in ("numbers", "tags", "fixed", "cell")},
                                "energy": label["energy"], "forces": label["forces"]})
            s["descent"].step(label["forces"])
            kept.append(s)
        alive = kept
    return alive


def large_part(rng: np.random.Generator, count: int) -> tuple[list[dict], list[str]]:
    """``count`` frames for the large companion: twice as many oxides, ``LARGE_FRAMES`` of each system,
    total energies."""
    choices, structures, names = bulks(more=True), [], []
    while len(structures) < count:
        batch = [start_system(np.random.default_rng(rng.integers(1 << 62)), choices) for _ in range(TOGETHER)]
        for s in relax_together(batch, LARGE_FRAMES):
            structures += [{**frame, "group": len(names)} for frame in s["frames"]]
            names.append(s["name"])
    return structures, names


def generate(out_dir=None, systems: int = SYSTEMS) -> dict:
    """Make oc22-mini and return its card."""
    start = time.process_time()
    choices = bulks()
    structures, names, index = [], [], 0
    while len(names) < systems:
        batch = [start_system(np.random.default_rng([SEED, index + k]), choices) for k in range(TOGETHER)]
        for k, s in enumerate(batch):
            s["name"] += f" #{index + k}"
        index += TOGETHER
        for s in relax_together(batch)[: systems - len(names)]:
            structures += [{**frame, "group": len(names)} for frame in s["frames"]]
            names.append(s["name"])
        print(f"oc22-mini: {len(names)} systems of {index}, {time.process_time() - start:.0f} s", flush=True)
    rows = range(0, len(structures), max(1, len(structures) // 4))
    checked = [
        force_error(s["numbers"], s["pos"], s["cell"], np.random.default_rng(row))
        for row, s in ((row, structures[row]) for row in rows)
    ]
    return write_set(
        "oc22-mini", structures, names,
        stands_for="OC22 S2EF (oxide surfaces with adsorbates, PBE+U)",
        how_made=(
            f"{systems} systems: slabs of {len({c[0] for c in choices})} oxides (rocksalt 100, rutile 110 and 100, "
            "wurtzite nonpolar, fluorite and antifluorite 111, perovskite 100; experimental lattice constants strained "
            f"by up to 2 %), one of {', '.join(ADSORBED)} over a random site, free atoms shaken by {RATTLE} Å, then "
            f"{FRAMES} consecutive frames of a Barzilai-Borwein descent. Tags: 1 = slab atoms within 1.6 Å of the top, "
            "0 = other slab atoms, 2 = adsorbate; fixed = lower half of the slab."
        ),
        level_of_theory=LEVEL, software=software_versions("chgnet", "torch", "pymatgen", "ase", "numpy"), seed=SEED,
        what_it_is_not=(
            "Not OC22 and not electronic structure: the labels come from a machine-learned potential trained on bulk "
            "crystals, so surfaces and adsorbates are outside what it was fitted to. Small cells; "
            "the adsorbate sees its images. Good for exercising the method, not for catalysis."
        ),
        cpu_seconds=time.process_time() - start,
        extra={"force_check_eV_per_A": {
            "largest_error": float(f"{max(checked):.2g}"), "structures": len(checked),
            "how": "central differences of the float32 energy along random directions",
        }},
        out_dir=out_dir,
    )
