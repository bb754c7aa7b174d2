"""oc20-mini: relaxation frames of metal slabs with a small adsorbate, GFN1-xTB labels.

Stands for the OC20 S2EF set (Chanussot et al., ACS Catal. 11, 6059, 2021): same kind of system, tags and fixed
atoms, far smaller cells and a semi-empirical method at the Gamma point instead of RPBE.
"""

from __future__ import annotations

import functools
import time

import numpy as np
from ase import Atoms
from ase.build import bcc110, fcc100, fcc111, hcp0001, molecule
from ase.data import atomic_numbers, covalent_radii, reference_states

from .adsorbates import ADSORBATES, place
from .cards import software_versions, write_set
from .relax import RATTLE, Descent, shortest_distance
from .xtb import XTB, force_error, plausible

SEED = 20
SYSTEMS, FRAMES = 150, 10
TEMPERATURE = 3000.0  # K, electronic
START_FORCE = 25.0  # eV/Å, a start above it is drawn again
# eV, beyond which the method found another state of the slab; OC20 leaves such systems out, too
LARGEST_ADSORPTION = 10.0

METALS = {
    "fcc": ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Rh", "Ir", "Al"),
    "bcc": ("Fe", "Mo", "W", "Nb", "Ta", "V"),
    "hcp": ("Ru", "Co", "Zn", "Os", "Re", "Ti", "Zr"),
}
FACETS = {"fcc": (fcc111, fcc100), "bcc": (bcc110,), "hcp": (hcp0001,)}


# of the large companion, besides: metals with slabs of their own, and elements that only take their atoms' places
MORE_METALS = {"fcc": ("Ca", "Sr", "Pb"), "bcc": ("Cr", "Li"), "hcp": ("Mg", "Sc", "Y", "Tc", "Hf", "Cd")}
GUESTS = ("Mn", "Si", "Ga", "Ge", "As", "Se", "In", "Sn", "Sb", "Te", "Tl", "Bi")
LARGE_FRAMES = 3


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


def make_varied_slab(rng: np.random.Generator) -> tuple[str, Atoms]:
    """A random slab for the large companion: 3 or 4 layers of a metal, up to half of its atoms of another element.

    In-plane lattice: experimental, mixed by covalent radii, strained by up to 4 %. Tags as of ``make_slab``.
    """
    kind = rng.choice(["fcc", "bcc", "hcp"], p=[0.5, 0.2, 0.3])
    metals = METALS[kind] + MORE_METALS[kind]
    host = str(rng.choice(metals))
    guest = str(rng.choice([element for element in (*sum((*METALS.values(), *MORE_METALS.values()), ()), *GUESTS)
                            if element != host]))
    build = FACETS[kind][rng.integers(len(FACETS[kind]))]
    layers, share = int(rng.choice([3, 4], p=[0.7, 0.3])), rng.choice([0.0, 0.25, 0.5], p=[0.35, 0.4, 0.25])
    state, radius = reference_states[atomic_numbers[host]], [covalent_radii[atomic_numbers[e]] for e in (host, guest)]
    a = rng.uniform(0.96, 1.04) * state["a"] * (1.0 + share * (radius[1] / radius[0] - 1.0))
    slab = build(host, (2, 2, layers), vacuum=6.0, a=a, **({"c": a * state["c/a"]} if kind == "hcp" else {}))
    symbols = np.array(slab.get_chemical_symbols(), dtype="<U2")
    symbols[rng.choice(len(slab), size=round(share * len(slab)), replace=False)] = guest
    slab.set_chemical_symbols(list(symbols))
    slab.set_tags((slab.get_tags() == 1).astype(int))
    slab.pbc = True
    return f"{slab.get_chemical_formula()} {build.__name__}", slab


def calculator_of(numbers, pos, cell=None) -> XTB:
    """The method of this set."""
    return XTB(numbers, pos, method="GFN1-xTB", cell=cell, temperature=TEMPERATURE)


@functools.cache
def gas_energies() -> dict[str, float]:
    """Energies in eV of the atoms of adsorbates in H2, H2O, CO and N2, the references of OC20's adsorption energies."""
    energy = {}
    for name in ("H2", "H2O", "CO", "N2"):
        gas = molecule(name)
        energy[name] = calculator_of(gas.numbers, gas.positions)(gas.positions)[0]
    hydrogen = energy["H2"] / 2
    oxygen = energy["H2O"] - 2 * hydrogen
    return {"H": hydrogen, "O": oxygen, "C": energy["CO"] - oxygen, "N": energy["N2"] / 2}


def make_system(rng: np.random.Generator, slab_of=make_slab, count: int = FRAMES, adsorption: bool = False):
    """One system: name and ``count`` frames in time order.

    adsorption: energies are those of adsorption, that is less the energies of the slab alone at its lattice sites
    and of the adsorbate's atoms in the gas; else total energies. Raises RuntimeError when no start converges
    below `START_FORCE`.
    """
    for _ in range(6):
        name, slab = slab_of(rng)
        adsorbate = str(rng.choice(list(ADSORBATES)))
        numbers, pos, tags = place(slab, adsorbate, rng)
        free = tags > 0
        pos = pos + np.where(free[:, None], rng.normal(size=pos.shape) * RATTLE, 0.0)
        if shortest_distance(pos, slab.cell.array) < 0.75:
            continue
        calculator = calculator_of(numbers, pos, slab.cell.array)
        descent = Descent(pos, free, rng)
        frames, reference = [], 0.0
        try:
            if adsorption:
                reference = calculator_of(slab.numbers, slab.positions, slab.cell.array)(slab.positions)[0]
                reference += sum(gas_energies()[symbol] for symbol in Atoms(numbers[tags == 2]).symbols)
            for step in range(count):
                energy, forces = calculator(descent.pos)
                if not plausible(energy, forces) or (
                    step == 0 and np.linalg.norm(forces[free], axis=1).max() > START_FORCE
                ) or (adsorption and abs(energy - reference) > LARGEST_ADSORPTION):
                    break
                frames.append({
                    "pos": descent.pos.copy(), "numbers": numbers, "tags": tags, "fixed": ~free,
                    "cell": slab.cell.array, "energy": energy - reference, "forces": forces,
                })
                descent.step(forces)
        except RuntimeError:
            continue
        if len(frames) == count:
            return f"{name} + {adsorbate}", frames
    raise RuntimeError("no start converged")


def large_part(rng: np.random.Generator, count: int) -> tuple[list[dict], list[str]]:
    """``count`` frames for the large companion: more metals and alloys, `LARGE_FRAMES` of each system,
    adsorption energies.

    A network learns the energy of a system as a whole from one number, however many frames of it there are,
    so there are few frames of many systems; and adsorption energies lack what slabs differ in by ten times as
    much as by adsorption.
    """
    structures, names = [], []
    while len(structures) < count:
        try:
            name, frames = make_system(rng, make_varied_slab, LARGE_FRAMES, adsorption=True)
        except RuntimeError:
            continue
        structures += [{**frame, "group": len(names)} for frame in frames]
        names.append(name)
    return structures, names


def generate(out_dir=None, systems: int = SYSTEMS) -> dict:
    """Make oc20-mini and return its card."""
    start = time.process_time()
    structures, names, index = [], [], 0
    while len(names) < systems:
        try:
            name, frames = make_system(np.random.default_rng([SEED, index]))  # each system its own random stream
        except RuntimeError as error:
            print(f"oc20-mini: system {index}: {error}, left out", flush=True)
        else:
            structures += [{**frame, "group": len(names)} for frame in frames]
            names.append(f"{name} #{index}")
            if len(names) % 10 == 0:
                print(f"oc20-mini: {len(names)} systems, {time.process_time() - start:.0f} s", flush=True)
        index += 1
    checked = []
    for row in range(0, len(structures), max(1, len(structures) // 3)):
        s = structures[row]
        checked.append(force_error(calculator_of(s["numbers"], s["pos"], s["cell"]),
                                   s["pos"], np.random.default_rng(row)))
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
            "semi-empirical energies whose metals are only qualitatively right. "
            "Good for exercising the method, not for catalysis."
        ),
        cpu_seconds=time.process_time() - start,
        extra={"force_check_eV_per_A": {
            "largest_error": float(f"{max(checked):.2g}"), "structures": len(checked),
            "how": "central differences of the energy along random directions",
        }},
        out_dir=out_dir,
    )
