"""anix-mini: the small stand-in for ANI-1x (Smith et al., Sci. Data 7, 134, 2020) in pre-training."""

from __future__ import annotations

import time

import numpy as np

from tools.generate import cards
from tools.generate.dynamics import hessian, langevin, normal_modes, relax, thermal_displacement
from tools.generate.molecules import bonds_of, embed, enumerate_molecules
from tools.generate.xtb import XTB, force_error, plausible

SEED = 1901
MOLECULES, NORMAL_MODE_FRAMES, MD_FRAMES = 800, 3, 2
HEAVY = {3: 1, 4: 2, 5: 3, 6: 4, 7: 4, 8: 3, 9: 2}
ELEMENTS = {6: 0.62, 7: 0.18, 8: 0.20}


def minimum(smiles: str, seed: int, fmax: float, accuracy: float = 1.0):
    """Relaxed GFN2 structure with the bonds of its SMILES: (calculator, numbers, pos, bonds), or None."""
    embedded = embed(smiles, seed)
    if embedded is None:
        return None
    numbers, (start,), bonds = embedded
    calculator = XTB(numbers, start, accuracy=accuracy)
    try:
        pos, converged = relax(calculator, start, fmax)
    except RuntimeError:
        return None
    if not converged or bonds_of(numbers, pos) != bonds:
        return None
    return calculator, numbers, pos - pos.mean(0), bonds


def frames_of(smiles: str, rng: np.random.Generator) -> list[dict] | None:
    """The frames of one molecule: normal-mode displacements and short Langevin runs, each at 300 to 1000 K."""
    found = minimum(smiles, int(rng.integers(1 << 30)), fmax=0.05)
    if found is None:
        return None
    calculator, numbers, pos, _ = found
    kept = []
    try:
        omega, modes = normal_modes(hessian(calculator, pos, central=False), numbers, pos)
        for _ in range(2 * NORMAL_MODE_FRAMES):
            moved = pos + thermal_displacement(omega, modes, rng.uniform(300.0, 1000.0), rng)
            energy, forces = calculator(moved)
            if plausible(energy, forces):
                kept.append((moved, energy, forces))
            if len(kept) == NORMAL_MODE_FRAMES:
                break
    except RuntimeError:
        return None
    kept += langevin(calculator, numbers, pos, temperature=rng.uniform(300.0, 1000.0), frames=MD_FRAMES, every=15,
                     equilibrate=20, rng=rng)
    if len(kept) < NORMAL_MODE_FRAMES + MD_FRAMES:
        return None
    return [{"numbers": numbers, "pos": p, "energy": e, "forces": f} for p, e, f in kept]


def generate(out_dir=None, molecules: int = MOLECULES, log=print) -> dict:
    """Make anix-mini; returns its card. `molecules` may be lowered for a trial."""
    started = time.process_time()
    rng = np.random.default_rng(SEED)
    structures, names, errors = [], [], []
    for smiles in enumerate_molecules(SEED, int(1.3 * molecules) + 5, HEAVY, ELEMENTS, "pretrain"):
        frames = frames_of(smiles, rng)
        if frames is None:
            continue
        structures += [{**frame, "group": len(names)} for frame in frames]
        names.append(smiles)
        if len(names) % 100 == 1:
            first = frames[0]
            errors.append(force_error(XTB(first["numbers"], first["pos"]), first["pos"], np.random.default_rng(0)))
            log(f"anix-mini: {len(names)} molecules, {time.process_time() - started:.0f} s")
        if len(names) == molecules:
            break
    return cards.write_set(
        "anix-mini", structures, names, out_dir=out_dir, stands_for="ANI-1x (pre-training task)",
        how_made="Random molecules of H, C, N, O with 3 to 9 heavy atoms (SMILES grown by a seeded random walk), "
        "embedded by rdkit and relaxed with GFN2-xTB; then for each molecule 3 thermal normal-mode displacements and "
        "2 frames of a 50 fs Langevin run, at temperatures drawn from 300 to 1000 K. group = molecule (canonical SMILES).",
        level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not="Not the ANI-1x data set: other molecules, no active learning, and a semi-empirical method in "
        "place of wB97X/6-31G(d). Energies are GFN2 total energies, on another scale than DFT total energies.",
        cpu_seconds=time.process_time() - started, extra={"largest_force_error_eV_per_A": max(errors)},
    )
