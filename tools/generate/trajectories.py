"""Shared part of the trajectory sets (rmd17-mini, md22-mini, spice-mini): frames of Langevin runs with GFN2-xTB."""

from __future__ import annotations

from tools.generate.dynamics import langevin, relax
from tools.generate.molecules import bonds_of
from tools.generate.xtb import XTB, force_error


def trajectory(numbers, start, bonds, *, temperature, frames, every, equilibrate, rng, dt=1.0, relax_steps=150,
               method="GFN2-xTB", electronic_temperature=None, attempts=3, hydrogen_mass=None):
    """`frames` frames of one molecule or complex in time order as (list of structures, force error in eV/Å).

    start: (N,3) Å, relaxed first (at most `relax_steps` steps); bonds: the bonds that must survive in every frame.
    Raises RuntimeError when no attempt gives all frames.
    """
    calculator = XTB(numbers, start, method=method, temperature=electronic_temperature)
    pos, _ = relax(calculator, start, 0.05, relax_steps)
    missing = bonds - bonds_of(numbers, pos, 1.5)
    if missing:
        raise RuntimeError(f"the relaxed structure has lost the bonds {sorted(missing)}")
    for _ in range(attempts):
        kept = langevin(calculator, numbers, pos, temperature=temperature, frames=frames, every=every, rng=rng, dt=dt,
                        equilibrate=equilibrate, hydrogen_mass=hydrogen_mass,
                        accept=lambda p: bonds <= bonds_of(numbers, p, 1.6))
        if len(kept) == frames:
            error = force_error(calculator, kept[-1][0], rng)
            return [{"numbers": numbers, "pos": p, "energy": e, "forces": f} for p, e, f in kept], error
    raise RuntimeError(f"only {len(kept)} of {frames} frames kept their bonds in {attempts} attempts")
