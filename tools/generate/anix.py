"""anix-mini: the small stand-in for ANI-1x (Smith et al., Sci. Data 7, 134, 2020) in pre-training."""

from __future__ import annotations

import time

import numpy as np

from tools.generate import cards
from tools.generate.dynamics import dock, hessian, langevin, normal_modes, relax, thermal_displacement, turned
from tools.generate.molecules import bonds_of, embed, enumerate_molecules
from tools.generate.xtb import XTB, force_error, plausible

SEED = 1901
MOLECULES, NORMAL_MODE_FRAMES, MD_FRAMES = 800, 3, 2
HEAVY = {3: 1, 4: 2, 5: 3, 6: 4, 7: 4, 8: 3, 9: 2}
ELEMENTS = {6: 0.62, 7: 0.18, 8: 0.20}
LARGE_HEAVY = {2: 0.2, 3: 0.5, 4: 1, 5: 2, 6: 3, 7: 4, 8: 4, 9: 4, 10: 3, 11: 2, 12: 1}
LARGE_ELEMENTS = {6: 0.60, 7: 0.17, 8: 0.17, 16: 0.03, 9: 0.02, 17: 0.01}


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


def frames_of(smiles: str, rng: np.random.Generator, modes: int = NORMAL_MODE_FRAMES, runs: int = 1,
              torsions: int = 0) -> list[dict] | None:
    """The frames of one molecule: ``modes`` normal-mode displacements, ``MD_FRAMES`` of each of ``runs`` short Langevin
    runs, all at 300 to 1000 K, and up to ``torsions`` turns about single bonds. None when one of
    the first two fails."""
    found = minimum(smiles, int(rng.integers(1 << 30)), fmax=0.05)
    if found is None:
        return None
    calculator, numbers, pos, bonds = found
    kept = []
    try:
        omega, vectors = normal_modes(hessian(calculator, pos, central=False), numbers, pos)
        for _ in range(2 * modes):
            moved = pos + thermal_displacement(omega, vectors, rng.uniform(300.0, 1000.0), rng)
            kept += labelled(calculator, moved)
            if len(kept) == modes:
                break
    except RuntimeError:
        return None
    for _ in range(runs):
        kept += langevin(calculator, numbers, pos, temperature=rng.uniform(300.0, 1000.0), frames=MD_FRAMES, every=15,
                         equilibrate=20, rng=rng)
    if len(kept) < modes + runs * MD_FRAMES:
        return None
    for moved in turned(numbers, pos, bonds, torsions, rng):
        try:
            kept += labelled(calculator, moved)
        except RuntimeError:
            continue
    return as_structures(numbers, kept)


def labelled(calculator: XTB, pos) -> list[tuple]:
    """[(pos, energy, forces)] of one geometry, or [] when it is not plausible."""
    energy, forces = calculator(pos)
    return [(pos, energy, forces)] if plausible(energy, forces) else []


def as_structures(numbers, frames) -> list[dict]:
    """Frames (pos, energy, forces) of one molecule as structures."""
    return [{"numbers": numbers, "pos": p, "energy": e, "forces": f} for p, e, f in frames]


def cluster(parts: list[tuple], rng: np.random.Generator, frames: int) -> list[dict] | None:
    """``frames`` frames of a Langevin run at 200 to 500 K of molecules (numbers, pos) put side by side;
    None when it fails."""
    numbers, pos = parts[0]
    for more, body in parts[1:]:
        numbers, pos = np.concatenate([numbers, more]), np.concatenate([pos, dock(pos, body, rng)])
    kept = langevin(XTB(numbers, pos), numbers, pos - pos.mean(0), temperature=rng.uniform(200.0, 500.0), frames=frames,
                    every=20, equilibrate=20, rng=rng)
    return as_structures(numbers, kept) if len(kept) == frames else None


def large_part(rng: np.random.Generator, count: int) -> tuple[list[dict], list[str]]:
    """About ``count`` frames for the large companion: molecules of 2 to 12 heavy atoms of H, C, N, O and some S,
    F, Cl with about twelve frames each; with every third of them three frames of a cluster: with water, of two of
    it, or of waters alone.

    A cluster is of the group of its molecule.
    """
    structures, names = [], ["O"]
    water = (np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.2400, 0.9266, 0.0]]))
    for smiles in enumerate_molecules(int(rng.integers(1 << 30)), count // 4 + 20,
                                      LARGE_HEAVY, LARGE_ELEMENTS, "pretrain"):
        frames = frames_of(smiles, rng, modes=6, runs=2, torsions=2)
        if frames is None:
            continue
        made = [(len(names), frames)]
        if len(names) % 3 == 0:
            molecule, waters = (frames[0]["numbers"], frames[0]["pos"]), [water] * int(rng.integers(1, 4))
            kinds = ((0, [water, water, *waters]), (len(names), [molecule, *waters]),
                     (len(names), [molecule, molecule]))
            group, parts = kinds[rng.integers(3)]
            made.append((group, cluster(parts, rng, 3) or []))
        structures += [{**frame, "group": group} for group, found in made for frame in found]
        names.append(smiles)
        if len(structures) >= count:
            break
    return structures, names


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
        "2 frames of a 50 fs Langevin run, at temperatures drawn from 300 to 1000 K. "
        "group = molecule (canonical SMILES).", level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not="Not the ANI-1x data set: other molecules, no active learning, and a semi-empirical method in "
        "place of wB97X/6-31G(d). Energies are GFN2 total energies, on another scale than DFT total energies.",
        cpu_seconds=time.process_time() - started, extra={"largest_force_error_eV_per_A": max(errors)},
    )
