"""oc20-mini: relaxation frames of metal slabs with a small adsorbate, GFN1-xTB labels.

Stands for the OC20 S2EF set (Chanussot et al., ACS Catal. 11, 6059, 2021): same kind of system, tags and fixed
atoms, far smaller cells and a semi-empirical method at the Gamma point instead of RPBE.
"""

from __future__ import annotations

import time

import numpy as np
from ase import Atoms
from ase.build import bcc110, fcc100, fcc111, hcp0001
from ase.data import atomic_numbers, reference_states

from .adsorbates import ADSORBATES, place
from .cards import software_versions, write_set
from .relax import RATTLE, Descent, shortest_distance
from .xtb import XTB, force_error, plausible

SEED = 20
SYSTEMS, FRAMES = 150, 10
TEMPERATURE = 3000.0  # K, electronic
START_FORCE = 25.0  # eV/Å, a start above it is drawn again

METALS = {
    "fcc": ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Rh", "Ir", "Al"),
    "bcc": ("Fe", "Mo", "W", "Nb", "Ta", "V"),
    "hcp": ("Ru", "Co", "Zn", "Os", "Re", "Ti", "Zr"),
}
FACETS = {"fcc": (fcc111, fcc100), "bcc": (bcc110,), "hcp": (hcp0001,)}


def make_slab(rng: np.random.Generator) -> tuple[str, Atoms]:
    """A random 2x2x3 slab, pure or a random two-metal alloy; tag 1 = top layer, 0 = the two layers below.

    In-plane lattice: experimental constants (for alloys the mean over atoms), strained by up to 3 %.
    """
    kind = rng.choice(["fcc", "bcc", "hcp"], p=[0.6, 0.2, 0.2])
    host, guest = rng.choice(METALS[kind], size=2, replace=False)
    build = FACETS[kind][rng.integers(len(FACETS[kind]))]
    share = rng.choice([0, 3, 4, 6], p=[0.5, 0.2, 0.15, 0.15])  # guest atoms of 12
    reference = [reference_states[atomic_numbers[element]] for element in (host, guest)]
    strain = rng.uniform(0.97, 1.03)
    a = strain * ((12 - share) * reference[0]["a"] + share * reference[1]["a"]) / 12
    options = {"a": a}
    if kind == "hcp":
        options["c"] = a * reference[0]["c/a"]
    slab = build(str(host), (2, 2, 3), vacuum=6.0, **options)
    symbols = np.array(slab.get_chemical_symbols(), dtype="<U2")
    symbols[rng.choice(12, size=share, replace=False)] = guest
    slab.set_chemical_symbols(list(symbols))
    slab.set_tags((slab.get_tags() == 1).astype(int))
    slab.pbc = True
    return f"{slab.get_chemical_formula()} {build.__name__}", slab


def make_system(index: int) -> tuple[str, list[dict]]:
    """System `index` (its own random stream): name and `FRAMES` frames in time order.

    Raises RuntimeError when no start converges below `START_FORCE`.
    """
    rng = np.random.default_rng([SEED, index])
    for _ in range(6):
        name, slab = make_slab(rng)
        adsorbate = str(rng.choice(list(ADSORBATES)))
        numbers, pos, tags = place(slab, adsorbate, rng)
        free = tags > 0
        pos = pos + np.where(free[:, None], rng.normal(size=pos.shape) * RATTLE, 0.0)
        if shortest_distance(pos, slab.cell.array) < 0.75:
            continue
        calculator = XTB(numbers, pos, method="GFN1-xTB", cell=slab.cell.array, temperature=TEMPERATURE)
        descent = Descent(pos, free, rng)
        frames = []
        try:
            for step in range(FRAMES):
                energy, forces = calculator(descent.pos)
                if not plausible(energy, forces) or (
                    step == 0 and np.linalg.norm(forces[free], axis=1).max() > START_FORCE
                ):
                    break
                frames.append({
                    "pos": descent.pos.copy(), "numbers": numbers, "tags": tags, "fixed": ~free,
                    "cell": slab.cell.array, "energy": energy, "forces": forces,
                })
                descent.step(forces)
        except RuntimeError:
            continue
        if len(frames) == FRAMES:
            return f"{name} + {adsorbate} #{index}", frames
    raise RuntimeError(f"system {index}: no start converged")


def generate(out_dir=None, systems: int = SYSTEMS) -> dict:
    """Make oc20-mini and return its card."""
    start = time.process_time()
    structures, names, index = [], [], 0
    while len(names) < systems:
        try:
            name, frames = make_system(index)
        except RuntimeError as error:
            print(f"oc20-mini: {error}, left out", flush=True)
        else:
            structures += [{**frame, "group": len(names)} for frame in frames]
            names.append(name)
            if len(names) % 10 == 0:
                print(f"oc20-mini: {len(names)} systems, {time.process_time() - start:.0f} s", flush=True)
        index += 1
    checked = []
    for row in range(0, len(structures), max(1, len(structures) // 3)):
        s = structures[row]
        calculator = XTB(s["numbers"], s["pos"], method="GFN1-xTB", cell=s["cell"], temperature=TEMPERATURE)
        checked.append(force_error(calculator, s["pos"], np.random.default_rng(row)))
    return write_set(
        "oc20-mini", structures, names,
        stands_for="OC20 S2EF (metal surfaces with adsorbates, RPBE)",
        how_made=(
            f"{systems} systems: 2x2x3 slabs of {sum(map(len, METALS.values()))} metals and their two-metal random "
            f"alloys (fcc111, fcc100, bcc110, hcp0001; lattice constants from experiment, strained by up to 3 %), one "
            f"of {len(ADSORBATES)} adsorbates over a random top, bridge or hollow site, free atoms shaken by {RATTLE} "
            f"Å, then {FRAMES} consecutive frames of a Barzilai-Borwein descent (shaken again when relaxed). Tags: 0 = "
            "the two lower layers (fixed), 1 = top layer, 2 = adsorbate."
        ),
        level_of_theory="GFN1-xTB, Gamma point only, electronic temperature 3000 K (energy with electronic entropy)",
        software=software_versions("tblite", "ase", "numpy"), seed=SEED,
        what_it_is_not=(
            "Not OC20 and not DFT: no k-points, 3-layer cells so small that the adsorbate sees its images, "
            "semi-empirical energies whose metals are only qualitatively right. Good for exercising the method, not for "
            "catalysis."
        ),
        cpu_seconds=time.process_time() - start,
        extra={"force_check_eV_per_A": {
            "largest_error": float(f"{max(checked):.2g}"), "structures": len(checked),
            "how": "central differences of the energy along random directions",
        }},
        out_dir=out_dir,
    )
