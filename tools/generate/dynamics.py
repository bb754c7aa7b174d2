"""Relaxation, Hessians, normal-mode sampling and Langevin dynamics of molecules (units Å, eV, fs, amu, K)."""

from __future__ import annotations

import numpy as np

from tools.generate.xtb import XTB, plausible, require

BOLTZMANN = 8.617333262e-5  # eV/K
ACCELERATION = 9.64853321e-3  # Å/fs² per eV/(Å amu)
HBAR = 0.6582119569  # eV fs


def masses_of(numbers) -> np.ndarray:
    """Standard atomic masses (N,) in amu."""
    return np.asarray(require("ase.data").atomic_masses)[np.asarray(numbers, int)]


def relax(calculator: XTB, pos, fmax: float = 0.02, max_steps: int = 200):
    """BFGS minimisation; returns (pos, converged). fmax: largest force on an atom in eV/Å. The step is capped at 0.15 Å."""
    pos = np.array(pos, float)
    _, forces = calculator(pos)
    inverse = np.eye(pos.size) / 30.0  # eV/Å²: a soft starting guess of the Hessian
    for _ in range(max_steps):
        if np.linalg.norm(forces, axis=1).max() < fmax:
            return pos, True
        step = (inverse @ forces.ravel()).reshape(pos.shape)
        longest = np.linalg.norm(step, axis=1).max()
        step *= min(1.0, 0.15 / longest)
        old = forces
        pos = pos + step
        _, forces = calculator(pos)
        s, y = step.ravel(), (old - forces).ravel()
        curvature = s @ y
        if curvature > 1e-8:
            inverse_y = inverse @ y
            inverse += np.outer(s, s) * (1.0 + y @ inverse_y / curvature) / curvature
            inverse -= (np.outer(inverse_y, s) + np.outer(s, inverse_y)) / curvature
        else:
            inverse = np.eye(pos.size) / 30.0
    return pos, False


def hessian(calculator: XTB, pos, step: float = 0.005, central: bool = True) -> np.ndarray:
    """Second derivatives (3N,3N) in eV/Å² by differences of the forces over `step` Å, symmetrised.

    central: 6N gradients; otherwise 3N+1 gradients (forward differences, good enough to sample from).
    """
    pos = np.asarray(pos, float)
    matrix = np.empty((pos.size, pos.size))
    if not central:
        _, here = calculator(pos)
    for k in range(pos.size):
        shift = np.zeros(pos.size)
        shift[k] = step
        _, upper = calculator(pos + shift.reshape(pos.shape))
        if central:
            _, lower = calculator(pos - shift.reshape(pos.shape))
            matrix[k] = (lower - upper).ravel() / (2.0 * step)
        else:
            matrix[k] = (here - upper).ravel() / step
    return 0.5 * (matrix + matrix.T)


def normal_modes(matrix, numbers, pos):
    """Vibrations of a molecule with translations and rotations projected out.

    Returns (omega (M,) in 1/fs, negative for imaginary modes; displacements (M,3N): Å per mass-weighted unit),
    lowest first, M = 3N-6 (3N-5 for a linear molecule).
    """
    root = np.repeat(np.sqrt(masses_of(numbers)), 3)
    center = np.average(pos, axis=0, weights=masses_of(numbers))
    rigid = [np.tile(axis, len(pos)) * root for axis in np.eye(3)]
    rigid += [np.cross(axis, pos - center).ravel() * root for axis in np.eye(3)]
    left, singular, _ = np.linalg.svd(np.array(rigid).T, full_matrices=True)
    rank = int((singular > 1e-2 * singular[0]).sum())
    internal = left[:, rank:]
    values, vectors = np.linalg.eigh(internal.T @ (matrix / np.outer(root, root)) @ internal)
    omega = np.sign(values) * np.sqrt(np.abs(values) * ACCELERATION)
    return omega, (internal @ vectors).T / root


def thermal_displacement(omega, modes, temperature: float, rng: np.random.Generator, floor_cm: float = 200.0):
    """Classical thermal displacement (N,3) Å of all normal modes (the idea of the ANI normal-mode sampling).

    Modes softer than `floor_cm` cm^-1 are moved like a mode of that stiffness, since the harmonic picture fails there.
    """
    stiff = np.maximum(np.abs(omega), floor_cm * 1.883651567e-4)  # 1 cm^-1 = 1.8837e-4 rad/fs
    amplitude = np.sqrt(BOLTZMANN * temperature * ACCELERATION) / stiff * rng.normal(size=len(omega))
    return (amplitude @ modes).reshape(-1, 3)


def langevin(calculator: XTB, numbers, pos, *, temperature: float, frames: int, every: int, equilibrate: int,
             rng: np.random.Generator, dt: float = 1.0, friction: float = 0.02, accept=None,
             hydrogen_mass: float | None = None):
    """Langevin dynamics (BAOAB splitting); returns [(pos, energy, forces), ...] in time order.

    dt in fs, friction in 1/fs; a frame is kept every `every` steps after `equilibrate` steps. Frames that are not
    plausible are dropped; the run stops early, with the frames it has, when the SCF fails or `accept(pos)` is false.
    hydrogen_mass (amu) makes H heavier, which allows a longer dt and leaves the distribution of positions as it is.
    """
    mass = masses_of(numbers)[:, None].copy()
    if hydrogen_mass is not None:
        mass[np.asarray(numbers) == 1] = hydrogen_mass
    sigma = np.sqrt(BOLTZMANN * temperature * ACCELERATION / mass)
    velocity = sigma * rng.normal(size=np.shape(pos))
    velocity -= (mass * velocity).sum(0) / mass.sum()
    keep, mix = np.exp(-friction * dt), np.sqrt(1.0 - np.exp(-2.0 * friction * dt))
    pos, kept = np.array(pos, float), []
    try:
        energy, forces = calculator(pos)
        for step in range(1, equilibrate + frames * every + 1):
            velocity += 0.5 * dt * ACCELERATION * forces / mass
            pos = pos + 0.5 * dt * velocity
            velocity = keep * velocity + mix * sigma * rng.normal(size=pos.shape)
            pos = pos + 0.5 * dt * velocity
            energy, forces = calculator(pos)
            velocity += 0.5 * dt * ACCELERATION * forces / mass
            if step > equilibrate and (step - equilibrate) % every == 0:
                if accept is not None and not accept(pos):
                    break
                if plausible(energy, forces):
                    kept.append((pos - pos.mean(0), energy, forces))
    except RuntimeError:
        pass
    return kept
