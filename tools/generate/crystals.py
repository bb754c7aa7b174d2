"""matbench-mini-*: eight property sets of prototype crystals, 300 each; a group is a composition in a prototype.

Stand for the eight MatBench v0.1 structure tasks of JMP (Dunn et al., npj Comput. Mater. 6, 138, 2020). The targets
have the same name and unit; how each is computed is in its card.
"""

from __future__ import annotations

import functools
import time

import numpy as np
from ase.data import atomic_masses

from .cards import software_versions, write_set
from .crystal_labels import (
    at,
    elastic_and_phonon,
    element_references,
    formation_energy,
    optimise_volume,
    penn_gap,
    refractive_index,
)
from .prototypes import PROTOTYPES, draw
from .relax import shortest_distance
from .surrogate import LEVEL

SEED = 13
COUNT = 300
CHUNK = 48
STABLE_PROTOTYPES = ("rocksalt", "CsCl", "half-Heusler", "fluorite", "L12", "antifluorite",
                     "Heusler", "zincblende", "perovskite")
SOFTEST = -20.0  # cm^-1, an imaginary Gamma mode below it drops the crystal from the phonon set
#: pools of crystals behind each task (the pools are shared, and so are many crystals)
POOLS = {
    "jdft2d": (), "phonons": ("stable",), "log_gvrh": ("stable",), "log_kvrh": ("stable",),
    "mp_e_form": ("general", "perovskites"), "perovskites": ("general", "perovskites"),
    "dielectric": ("general", "stable", "perovskites"), "mp_gap": ("general", "stable", "perovskites"),
}

_MADE = (
    "{what} Crystals: prototypes ({prototypes}) filled with random charge-balanced or intermetallic elements; lattice "
    "constants from an isotropic CHGNet equation of state (shape and internal coordinates stay ideal); "
    "crystals without an energy minimum or with implausible labels are left out."
)
_IS_NOT = (
    "Not MatBench and not DFT: most of these crystals are hypothetical, many would not be stable, and the structures "
    "are ideal prototypes of at most 10 atoms. Good for exercising the method, not for materials screening."
)


def sane(crystal: dict) -> bool:
    """True when no two atoms are closer than 0.8 Å and the cell is below 12 Å-ish in lattice constant."""
    _, pos, cell = at(crystal, crystal["a"])
    return crystal["a"] < 14 and shortest_distance(pos, cell) > 0.8


@functools.cache
def _pool(kind: str) -> tuple[list[dict], float]:
    """Volume-optimised crystals of one pool and the CPU seconds they took; kind: general, stable, perovskites."""
    start = time.process_time()
    rng = np.random.default_rng([SEED, ("general", "stable", "perovskites").index(kind)])
    if kind == "general":
        wanted = draw(420, rng, [name for name in PROTOTYPES])
    elif kind == "stable":
        wanted = draw(816, rng, STABLE_PROTOTYPES)
    else:
        wanted = draw(420, rng, ["perovskite"])
    kept: list[dict] = []
    for first in range(0, len(wanted), CHUNK):
        new = [c for c in optimise_volume(wanted[first : first + CHUNK]) if sane(c)]
        if kind == "stable":
            new = [c for c in elastic_and_phonon(new, atomic_masses) if np.isfinite(c["k_vrh"])]
        kept += new
        spent = time.process_time() - start
        print(f"matbench-mini pool {kind}: {len(kept)} of {first + CHUNK}, {spent:.0f} s", flush=True)
        enough = min(len(kept), sum(_dynamically_stable(c) for c in kept)) if kind == "stable" else len(kept)
        if enough >= COUNT + 20:
            break
    return kept, time.process_time() - start


@functools.cache
def _references() -> dict[str, float]:
    symbols = sorted({s for kind in ("general", "perovskites") for c in _pool(kind)[0] for s in c["symbols"]})
    return element_references(symbols)


def _dynamically_stable(crystal: dict) -> bool:
    f = crystal["frequencies"]
    return len(f) > 3 and f.min() > SOFTEST and f.max() > 30


def insulators() -> list[dict]:
    """Crystals of all pools with a non-metal anion (no Heusler, L12 or Laves phase), each name once."""
    from .prototypes import ANIONS

    anions = {s for pool in ANIONS.values() for s in pool}
    seen, found = set(), []
    for kind in ("general", "stable", "perovskites"):
        for c in _pool(kind)[0]:
            if c["prototype"] in ("half-Heusler", "Heusler", "L12", "Laves") or c["name"] in seen:
                continue
            if anions & set(c["symbols"]):
                seen.add(c["name"])
                found.append(c)
    order = np.random.default_rng([SEED, 7]).permutation(len(found))
    return [found[k] for k in order]


def _rows(task: str) -> tuple[list[tuple[dict, float]], dict]:
    """(crystal, y) pairs of `task`, and the words of its card."""
    if task in ("log_gvrh", "log_kvrh"):
        key = "g_vrh" if task == "log_gvrh" else "k_vrh"
        rows = [(c, float(np.log10(c[key]))) for c in _pool("stable")[0] if 1 < c["g_vrh"] and 2 < c["k_vrh"] < 1000]
        what = (f"y = log10 of the Voigt-Reuss-Hill {'shear' if key == 'g_vrh' else 'bulk'} modulus in GPa from CHGNet "
                "stresses at strains of +-0.6 %, with the internal relaxation from CHGNet force constants. "
                "The crystals that violate a Born criterion are dropped.")
        return rows, {"unit": "log10(GPa)", "what": what, "stands_for": f"matbench_{task} (DFT-PBE elastic moduli)"}
    if task == "phonons":
        rows = [(c, float(c["frequencies"].max())) for c in _pool("stable")[0] if _dynamically_stable(c)]
        return rows, {"unit": "cm^-1", "stands_for": "matbench_phonons (last peak of the DFPT phonon DOS)", "what": (
            "y = highest phonon frequency at Gamma of the primitive cell from CHGNet force constants (finite "
            "differences, no LO-TO splitting). Crystals with imaginary modes are dropped.")}
    if task == "dielectric":
        rows = [(c, refractive_index(c)) for c in insulators()[:420]]
        rows = [(c, y) for c, y in rows if np.isfinite(y) and 1.05 < y < 4]
        return rows, {"unit": "unitless", "stands_for": "matbench_dielectric (DFPT refractive index)", "what": (
            "y = refractive index from the Clausius-Mossotti relation with static atomic polarizabilities of DFT-D4 "
            "(charge and coordination dependent). An analog: no band structure enters.")}
    if task == "mp_e_form":
        rows = [(c, formation_energy(c, _references()) / len(c["numbers"])) for c in _pool("general")[0]]
        rows = [(c, y) for c, y in rows if -6 < y < 3]
        return rows, {"unit": "eV/atom", "stands_for": "matbench_mp_e_form (PBE formation energy)", "what": (
            "y = formation energy per atom, CHGNet crystal minus CHGNet elements (simple element structures, see "
            "crystal_labels.element_references).")}
    if task == "perovskites":
        rows = [(c, formation_energy(c, _references())) for c in _pool("perovskites")[0]]
        rows = [(c, y) for c, y in rows if -25 < y < 15]
        return rows, {"unit": "eV/unit cell", "stands_for": "matbench_perovskites (GPAW formation energy of ABX3)",
                      "what": ("y = formation energy of the five-atom cubic ABX3 cell, "
                               "CHGNet crystal minus CHGNet elements; X is O, S, Se, Te, F, Cl, Br, I or H.")}
    if task == "jdft2d":
        from .layered import exfoliation_rows

        return exfoliation_rows(COUNT, SEED)
    if task == "mp_gap":
        rows = [(c, refractive_index(c)) for c in insulators()[-430:]]
        rows = [(c, penn_gap(c, n)) for c, n in rows if np.isfinite(n) and 1.05 < n < 4]
        return rows, {"unit": "eV", "stands_for": "matbench_mp_gap (PBE band gap)",
            "what": ("y = average optical gap of the Penn model, plasmon energy of the valence electrons / sqrt(n² "
                     "- 1), with the Clausius-Mossotti index n from DFT-D4 polarizabilities. A stand-in: an average "
                     "gap of insulators, several times larger than the band gap, no metals and no band structure."),
            "level_of_theory": "Penn model with DFT-D4 static polarizabilities and Clausius-Mossotti; "
            "cell volumes by CHGNet (ML-surrogate, not electronic structure)",
            "what_it_is_not": "Not Kohn-Sham gaps. " + _IS_NOT}
    raise ValueError(f"no such matbench-mini task: {task}")


def generate(task: str, out_dir=None) -> dict:
    """Make matbench-mini-<task> and return its card. Raises RuntimeError when fewer than `COUNT` crystals are left."""
    spent = sum(_pool(kind)[1] for kind in POOLS[task])
    start = time.process_time()
    rows, words = _rows(task)
    if len(rows) < COUNT:
        raise RuntimeError(f"matbench-mini-{task}: only {len(rows)} crystals with a plausible label, {COUNT} wanted")
    order = np.random.default_rng([SEED, 99]).permutation(len(rows))[:COUNT]
    structures, names = [], []
    for k in order:
        crystal, y = rows[k]
        if "cell" in crystal:
            numbers, pos, cell = crystal["numbers"], crystal["pos"], crystal["cell"]
        else:
            numbers, pos, cell = at(crystal, crystal["a"])
        name = crystal.get("group", crystal["name"])
        if name not in names:
            names.append(name)
        structures.append({"numbers": numbers, "pos": pos, "cell": cell, "y": float(y), "group": names.index(name)})
    prototypes = sorted({rows[k][0]["prototype"] for k in order})
    return write_set(
        f"matbench-mini-{task}", structures, names, stands_for=words["stands_for"],
        how_made=words.get("how_made") or _MADE.format(what=words["what"], prototypes=", ".join(prototypes)),
        level_of_theory=words.get("level_of_theory", LEVEL if task != "dielectric" else (
            "DFT-D4 static polarizabilities and the Clausius-Mossotti relation; cell volumes by CHGNet "
            "(ML-surrogate, not electronic structure)")),
        software=software_versions("chgnet", "torch", "pymatgen", "ase", "dftd4", *words.get("packages", ()), "numpy"),
        seed=SEED, what_it_is_not=words.get("what_it_is_not", _IS_NOT), units={"y": words["unit"]},
        cpu_seconds=spent + time.process_time() - start,
        extra=words.get("extra", {}), out_dir=out_dir,
    )
