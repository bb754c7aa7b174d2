"""spice-mini-solvated_amino_acids and spice-mini-dipeptides: stand-ins for two subsets of SPICE
(Eastman et al., 2023)."""

from __future__ import annotations

import time
import zlib

import numpy as np

from tools.generate import cards
from tools.generate.molecules import amino_acid, dipeptide, embed
from tools.generate.trajectories import trajectory

SEED = 1923
WATERS = 4
EVERY, EQUILIBRATE, STEP, HYDROGEN_MASS = 4, 30, 2.0, 4.0
SOLVATED = {"glycine": 50, "alanine": 50, "serine": 50, "cysteine": 50, "threonine": 50, "asparagine": 50}
DIPEPTIDES = {
    ("glycine", "glycine"): 50, ("glycine", "alanine"): 50, ("alanine", "glycine"): 50, ("alanine", "alanine"): 50,
    ("glycine", "serine"): 50, ("cysteine", "glycine"): 50,
}


def solvate(numbers, pos, bonds, waters: int, rng: np.random.Generator):
    """Put `waters` water molecules around a molecule, each touching it: (numbers, pos (N,3) Å, bonds)."""
    water = np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.2400, 0.9266, 0.0]])
    numbers, pos, bonds = list(numbers), np.array(pos), set(bonds)
    solute = len(numbers)
    heavy = np.array([z > 1 for z in numbers])
    placed = 0
    while placed < waters:
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        direction = rng.normal(size=3)
        center = pos[rng.choice(np.nonzero(heavy)[0])] + direction / np.linalg.norm(direction) * rng.uniform(2.8, 3.4)
        molecule = center + water @ rotation.T
        if np.linalg.norm(molecule[:, None] - pos[None], axis=-1).min() < 1.9:
            continue
        first = solute + 3 * placed
        bonds |= {(first, first + 1), (first, first + 2)}
        numbers += [8, 1, 1]
        pos = np.concatenate([pos, molecule])
        placed += 1
    return np.array(numbers), pos, bonds


def _systems(subset: str):
    if subset == "solvated_amino_acids":
        return [(name, amino_acid(name), count, WATERS) for name, count in SOLVATED.items()]
    if subset == "dipeptides":
        return [("-".join(pair), dipeptide(*pair), count, 0) for pair, count in DIPEPTIDES.items()]
    raise ValueError(f"no such SPICE subset: {subset!r}; known are solvated_amino_acids and dipeptides")


def generate(subset: str, out_dir=None, log=print) -> dict:
    """Make spice-mini-<subset>; returns its card. Raises ValueError for an unknown subset."""
    started = time.process_time()
    structures, names, temperatures, errors = [], [], {}, []
    for name, smiles, count, waters in _systems(subset):
        rng = np.random.default_rng([SEED, zlib.crc32(f"{subset} {name}".encode())])
        numbers, (pos,), bonds = embed(smiles, SEED)
        numbers, pos, bonds = solvate(numbers, pos, bonds, waters, rng)
        temperatures[name] = round(float(rng.uniform(300.0, 500.0)), 1)
        # a proton may hop between an acid, an amine and water: only the bonds between heavy atoms must survive
        heavy_bonds = {(i, j) for i, j in bonds if min(numbers[i], numbers[j]) > 1}
        frames, error = trajectory(numbers, pos, heavy_bonds, temperature=temperatures[name], frames=count, every=EVERY,
                                   equilibrate=EQUILIBRATE, rng=rng, relax_steps=40,
                                   dt=STEP, hydrogen_mass=HYDROGEN_MASS)
        structures += [{**frame, "group": len(names)} for frame in frames]
        names.append(".".join([smiles] + ["O"] * waters))
        errors.append(error)
        log(f"spice-mini-{subset}: {name}, {len(structures)} frames, {time.process_time() - started:.0f} s")
    content = {
        "solvated_amino_acids": f"six neutral free amino acids with {WATERS} water molecules around each",
        "dipeptides": "six dipeptides of glycine, alanine, serine and cysteine, capped as ACE-X-Y-NME",
    }[subset]
    return cards.write_set(
        f"spice-mini-{subset}", structures, names, out_dir=out_dir,
        stands_for=f"SPICE 1.1.4 subset {subset.replace('_', ' ')}",
        how_made=f"Langevin runs (step {STEP:g} fs with hydrogen atoms of {HYDROGEN_MASS:g} amu, friction 0.02/fs, "
        f"one temperature per system, see temperature_K) of {content}: at most 40 relaxation steps, "
        f"{EQUILIBRATE * STEP:g} fs of equilibration, then a frame every {EVERY * STEP:g} fs, in time order. "
        "group = system (canonical SMILES).", level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not="Not SPICE: one conformer family of a few molecules, a few waters instead of some twenty, "
        "no charged forms, and a semi-empirical method in place of wB97M-D3(BJ)/def2-TZVPPD.",
        cpu_seconds=time.process_time() - started,
        extra={"largest_force_error_eV_per_A": max(errors), "temperature_K": temperatures},
    )
