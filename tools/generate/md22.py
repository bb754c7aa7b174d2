"""md22-mini-<system>: stand-ins for the seven MD22 trajectories (Chmiela et al., Sci. Adv. 9, eadf0873, 2023)."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass

import numpy as np

from tools.generate import cards, complexes
from tools.generate.molecules import MD22_SMILES, canonical, embed
from tools.generate.trajectories import trajectory

SEED = 1922
FRAMES, EVERY, EQUILIBRATE, STEP, HYDROGEN_MASS = 80, 3, 15, 3.0, 4.0


@dataclass(frozen=True)
class System:
    """One system: the MD22 name it stands for, what it really is, its group name and its temperature in K."""

    stands_for: str
    really: str
    group: str
    temperature: float


SYSTEMS = {
    "ac-ala3-nhme": System("Ac-Ala3-NHMe", "the same molecule", canonical(MD22_SMILES["ac-ala3-nhme"]), 500.0),
    "dha": System("DHA", "the same molecule (docosahexaenoic acid)", canonical(MD22_SMILES["dha"]), 500.0),
    "stachyose": System("stachyose", "sucrose, two galactose units shorter (45 atoms in place of 87)",
                        canonical(MD22_SMILES["sucrose"]), 500.0),
    "at-at": System("AT-AT", "two stacked adenine-thymine base pairs of unsubstituted bases (60 atoms)",
                    "adenine-thymine x 2", 350.0),
    "at-at-cg-cg": System("AT-AT-CG-CG", "one adenine-thymine pair stacked on one guanine-cytosine pair "
                          "(59 atoms in place of 118)", "adenine-thymine, guanine-cytosine", 350.0),
    "buckyball-catcher": System("buckyball-catcher", "one arm of the catcher, a corannulene bowl, with benzene "
                                "in place of C60 (42 atoms in place of 148)", "corannulene, benzene", 300.0),
    "double-walled-nanotube": System("double-walled nanotube", "a hoop of a nanotube, [5]cycloparaphenylene, around a "
                                     "butadiyne chain (56 atoms in place of 370)",
                                     "[5]cycloparaphenylene, butadiyne", 300.0),
}


def start_of(system: str):
    """Starting structure of one system: (numbers, pos (N,3) Å, bonds)."""
    built = {
        "at-at": lambda: complexes.stacked_pairs("AT", "AT"),
        "at-at-cg-cg": lambda: complexes.stacked_pairs("AT", "GC"),
        "buckyball-catcher": complexes.bowl_with_benzene,
        "double-walled-nanotube": complexes.hoop_with_chain,
    }
    if system in built:
        return built[system]()
    smiles = MD22_SMILES["sucrose" if system == "stachyose" else system]
    if system == "dha":  # all double bonds are cis in docosahexaenoic acid
        smiles = "CC" + "/C=C\\C" * 6 + "CC(=O)O"
    numbers, (pos,), bonds = embed(smiles, SEED)
    return numbers, pos, bonds


def generate(system: str, out_dir=None, frames: int = FRAMES, log=print) -> dict:
    """Make md22-mini-<system> for one of the names of `SYSTEMS`; returns its card."""
    started = time.process_time()
    what = SYSTEMS[system]
    rng = np.random.default_rng([SEED, zlib.crc32(system.encode())])
    numbers, pos, bonds = start_of(system)
    # protons may move along a hydrogen bond, so only the bonds between heavy atoms must survive
    heavy_bonds = {(i, j) for i, j in bonds if min(numbers[i], numbers[j]) > 1}
    structures, error = trajectory(
        numbers, pos, heavy_bonds, temperature=what.temperature, frames=frames, every=EVERY, equilibrate=EQUILIBRATE,
        rng=rng, dt=STEP, hydrogen_mass=HYDROGEN_MASS, relax_steps=30,
    )
    log(f"md22-mini-{system}: {len(structures)} frames, {time.process_time() - started:.0f} s")
    stand_in = what.really if what.really.startswith("the same") else f"stand-in for {what.stands_for}: {what.really}"
    return cards.write_set(
        f"md22-mini-{system}", [{**s, "group": 0} for s in structures], [what.group], out_dir=out_dir,
        stands_for=f"MD22 {what.stands_for}",
        how_made=f"{stand_in}. One Langevin run at {what.temperature:g} K (step {STEP:g} fs with hydrogen atoms of "
        f"{HYDROGEN_MASS:g} amu, friction 0.02/fs): at most 30 relaxation steps, "
        f"{EQUILIBRATE * STEP:g} fs of equilibration, then a frame every {EVERY * STEP:g} fs, in time order.",
        level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not=f"Not the MD22 data: {stand_in}; a run of its own with a semi-empirical method in place "
        f"of PBE+MBD, {frames * EVERY * STEP / 1000:g} ps long, so neighbouring frames resemble each other.",
        cpu_seconds=time.process_time() - started,
        extra={"largest_force_error_eV_per_A": error, "temperature_K": what.temperature, "stand_in": stand_in},
    )
