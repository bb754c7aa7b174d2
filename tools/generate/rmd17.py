"""rmd17-mini-<molecule>: stand-ins for the ten rMD17 trajectories (Christensen and von Lilienfeld, 2020)."""

from __future__ import annotations

import time
import zlib

import numpy as np

from tools.generate import cards
from tools.generate.molecules import RMD17_SMILES, canonical, embed
from tools.generate.trajectories import trajectory

SEED = 1917
FRAMES, EVERY, EQUILIBRATE, TEMPERATURE = 400, 12, 400, 500.0


def generate(molecule: str, out_dir=None, frames: int = FRAMES, log=print) -> dict:
    """Make rmd17-mini-<molecule> for one of the names of `RMD17_SMILES`; returns its card."""
    started = time.process_time()
    smiles = RMD17_SMILES[molecule]
    rng = np.random.default_rng([SEED, zlib.crc32(molecule.encode())])
    numbers, (start,), bonds = embed(smiles, SEED)
    structures, error = trajectory(numbers, start, bonds, temperature=TEMPERATURE, frames=frames, every=EVERY,
                                   equilibrate=EQUILIBRATE, rng=rng)
    log(f"rmd17-mini-{molecule}: {len(structures)} frames, {time.process_time() - started:.0f} s")
    return cards.write_set(
        f"rmd17-mini-{molecule}", [{**s, "group": 0} for s in structures], [canonical(smiles)], out_dir=out_dir,
        stands_for=f"rMD17 {molecule}",
        how_made="One Langevin run (500 K, step 1 fs, friction 0.02/fs) from the relaxed molecule: "
        f"{EQUILIBRATE} fs of equilibration, then a frame every {EVERY} fs, in time order.",
        level_of_theory="GFN2-xTB energy and forces (tblite)", seed=SEED,
        software=cards.software_versions("tblite", "rdkit", "ase", "numpy"),
        what_it_is_not="Not the rMD17 data: a run of its own with a semi-empirical method in place of PBE/def2-SVP, "
        f"{frames * EVERY / 1000:g} ps long, so neighbouring frames resemble each other and only a small part of the "
        "molecule's motion is seen.",
        cpu_seconds=time.process_time() - started,
        extra={"largest_force_error_eV_per_A": error, "temperature_K": 500.0},
    )
