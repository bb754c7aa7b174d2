"""Relaxation, Hessians, normal-mode sampling, Langevin dynamics, torsions and pairs of molecules
(units Å, eV, fs, amu, K)."""

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
    """BFGS minimisation; returns (pos, converged). fmax: largest force on an atom in eV/Å.
    The step is capped at 0.15 Å."""
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


def turned(numbers, pos, bonds, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to ``count`` geometries in which one side of a bond that is in no ring is turned about it by any angle, and
    all atoms are moved by 0.03 Å; none with two atoms closer than 0.75 Å."""
    near = [[] for _ in numbers]
    for i, j in bonds:
        near[i].append(j)
        near[j].append(i)
    axes = []
    for i, j in sorted(bonds):
        side, waiting = {j}, [k for k in near[j] if k != i]
        while waiting:
            side.add(last := waiting.pop())
            waiting += [k for k in near[last] if k not in side]
        if i not in side and len(near[i]) > 1 and len(near[j]) > 1:
            axes.append((i, j, sorted(side)))
    found = []
    for _ in range(count if axes else 0):
        i, j, side = axes[rng.integers(len(axes))]
        axis, angle = (pos[j] - pos[i]) / np.linalg.norm(pos[j] - pos[i]), rng.uniform(0.0, 2.0 * np.pi)
        arm = pos[side] - pos[i]
        moved = pos + 0.03 * rng.normal(size=pos.shape)
        moved[side] += (np.cos(angle) - 1.0) * (arm - np.outer(arm @ axis, axis)) + np.sin(angle) * np.cross(axis, arm)
        if closest(moved, moved) > 0.75:
            found.append(moved)
    return found


def closest(one, other) -> float:
    """Shortest distance (Å) between an atom of ``one`` (N,3) and another of ``other`` (M,3)."""
    distance = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return float(distance[distance > 0.0].min(initial=np.inf))


def dock(one, other, rng: np.random.Generator) -> np.ndarray:
    """Positions (M,3) of ``other``, turned at random and put beside ``one`` (N,3) from a random side, so that the
    closest two atoms are 1.8 to 3.4 Å apart."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    direction, wanted = rng.normal(size=3), rng.uniform(1.8, 3.4)
    direction /= np.linalg.norm(direction)
    # a rotation: mirrored where it is none
    body = (other - other.mean(0)) @ (turn * np.linalg.det(turn)).T + one.mean(0)
    far = np.ptp(one, axis=0).sum() + np.ptp(other, axis=0).sum() + wanted
    for distance in np.arange(far, 0.0, -0.05):
        if closest(one, body + (distance - 0.05) * direction) < wanted:
            break
    return body + distance * direction
