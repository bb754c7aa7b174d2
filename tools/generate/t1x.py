"""t1x-mini: the small stand-in for Transition-1x (Schreiner et al., Sci. Data 9, 779, 2022) in pre-training."""

from __future__ import annotations

import time

import numpy as np

from tools.generate import cards
from tools.generate.molecules import enumerate_molecules
from tools.generate.reactions import elastic_band, endpoints, idpp_path, rearrangements
from tools.generate.xtb import XTB, force_error, plausible

SEED = 1922
REACTIONS, FRAMES = 400, 10
HEAVY = {3: 2, 4: 5, 5: 6, 6: 3}
LARGE_HEAVY = {3: 1, 4: 4, 5: 6, 6: 6, 7: 3}
ELEMENTS = {6: 0.62, 7: 0.18, 8: 0.20}
IMAGES, STEPS, KEEP_AT = 8, 9, (2, 5, 8)  # images with both ends; band steps; the steps whose images are kept from
HIGHEST = 15.0  # eV above the reactant: frames beyond are atoms inside each other, not a reaction


def frames_of(smiles: str, product, rng: np.random.Generator) -> list[dict] | None:
    """`FRAMES` frames along the path from `smiles` to `product`: both ends' neighbourhoods and the band between."""
    ends = endpoints(smiles, product, int(rng.integers(1 << 30)))
    if ends is None:
        return None
    numbers, first, last = ends
    calculator = XTB(numbers, first)
    pool = []
    try:
        lowest, _ = calculator(first)
        for step, band in enumerate(elastic_band(numbers, idpp_path(first, last, IMAGES), STEPS)):
            if step in KEEP_AT:
                pool.append(band)
        near = [end + 0.05 * rng.normal(size=end.shape) for end in (first, last)]
        kept = [(pos, *calculator(pos)) for pos in near]
    except RuntimeError:
        return None
    kept = [f for f in kept if plausible(f[1], f[2])]
    inner = [f for band in pool for f in band if plausible(f[1], f[2]) and f[1] - lowest < HIGHEST]
    if len(inner) < FRAMES - len(kept):
        return None
    for i in sorted(rng.choice(len(inner), FRAMES - len(kept), replace=False)):
        pos, energy, forces = inner[i]
        moved = pos + 0.02 * rng.normal(size=pos.shape)
        try:
            energy, forces = calculator(moved)
        except RuntimeError:
            return None
        if not plausible(energy, forces):
            return None
        kept.append((moved, energy, forces))
    return [{"numbers": numbers, "pos": p - p.mean(0), "energy": e, "forces": f} for p, e, f in kept]


def reactions_of(molecules, rng: np.random.Generator):
    """One reaction of each of the SMILES that has one: yields its name and its frames."""
    for smiles in molecules:
        for product, name in rearrangements(smiles, rng, 3):
            frames = frames_of(smiles, product, rng)
            if frames is not None:
                yield f"{smiles}>>{name}", frames
                break


def large_part(rng: np.random.Generator, count: int) -> tuple[list[dict], list[str]]:
    """``count`` frames for the large companion: reactions of molecules with 3 to 7 heavy atoms, ``FRAMES`` of each."""
    smiles = enumerate_molecules(int(rng.integers(1 << 30)), count // 3 + 5, LARGE_HEAVY, ELEMENTS, "pretrain")
    structures, names = [], []
    for name, frames in reactions_of(smiles, rng):
        structures += [{**frame, "group": len(names)} for frame in frames]
        names.append(name)
        if len(structures) >= count:
            break
    return structures, names


def generate(out_dir=None, reactions: int = REACTIONS, log=print) -> dict:
    """Make t1x-mini; returns its card. `reactions` may be lowered for a trial."""
    started = time.process_time()
    rng = np.random.default_rng(SEED)
    structures, names, errors = [], [], []
    for name, frames in reactions_of(enumerate_molecules(SEED, 2 * reactions + 5, HEAVY, ELEMENTS, "pretrain"), rng):
        structures += [{**frame, "group": len(names)} for frame in frames]
        names.append(name)
        if len(names) % 50 == 1:
            pos = frames[-1]["pos"]
            errors.append(force_error(XTB(frames[-1]["numbers"], pos), pos, np.random.default_rng(0)))
            log(f"t1x-mini: {len(names)} reactions, {time.process_time() - started:.0f} s")
        if len(names) == reactions:
            break
    return cards.write_set(
        "t1x-mini", structures, names, out_dir=out_dir, stands_for="Transition-1x (pre-training task)",
        how_made="Reactions of H, C, N, O molecules with 3 to 6 heavy atoms: a random valence-preserving cyclic bond "
        "rearrangement of a seeded random SMILES; both ends relaxed with GFN2-xTB and checked for their bonds; an IDPP "
        "path of 8 images, 9 nudged-elastic-band steps; 8 or more inner images of the steps 3, 6 and 9, moved at "
        "random by 0.02 Å, and each end moved by 0.05 Å. group = reaction (reactant>>product, canonical SMILES).",
        level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not="Not Transition-1x: other reactions, bands far from converged (no transition states), and a "
        "semi-empirical closed-shell method in place of wB97X/6-31G(d); high-energy images are the least reliable.",
        cpu_seconds=time.process_time() - started, extra={"largest_force_error_eV_per_A": max(errors)},
    )
