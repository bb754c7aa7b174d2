"""Relaxation frames: descent with Barzilai-Borwein steps, without a calculator object.

Barzilai and Borwein, IMA J. Numer. Anal. 8, 141 (1988): the step length along the forces is
(dx.dx)/(dx.-dF), clipped; one energy+force evaluation per frame, so every evaluation becomes a frame.
"""

from __future__ import annotations

import numpy as np

MAX_MOVE = 0.12  # Å, longest move of one atom in one step
FIRST_STEP = 0.015  # Å²/eV
MIN_STEP, MAX_STEP = 0.004, 0.12  # Å²/eV
CONVERGED = 0.05  # eV/Å, then the free atoms are rattled again
RATTLE = 0.09  # Å


class Descent:
    """Positions of one system on their way down.

    pos (N,3) Å, free (N,) bool (the others never move), rng of this system. `step(forces)` moves `pos` in place
    of a new array; when the free atoms are relaxed (`CONVERGED`) it shakes them by `RATTLE` instead.
    """

    def __init__(self, pos, free, rng: np.random.Generator):
        self.pos = np.array(pos, float)
        self.free = np.asarray(free, bool)
        self.rng = rng
        self.last = None

    def step(self, forces: np.ndarray) -> None:
        forces = np.where(self.free[:, None], forces, 0.0)
        if np.linalg.norm(forces, axis=1).max() < CONVERGED:
            self.pos = self.pos + np.where(self.free[:, None], self.rng.normal(size=forces.shape) * RATTLE, 0.0)
            self.last = None
            return
        alpha = FIRST_STEP
        if self.last is not None:
            moved = self.pos - self.last[0]
            change = self.last[1] - forces
            curvature = float((moved * change).sum())
            alpha = float((moved * moved).sum()) / curvature if curvature > 1e-12 else MAX_STEP
            alpha = min(max(alpha, MIN_STEP), MAX_STEP)
        move = alpha * forces
        longest = np.linalg.norm(move, axis=1).max()
        if longest > MAX_MOVE:
            move *= MAX_MOVE / longest
        self.last = (self.pos, forces)
        self.pos = self.pos + move


def shortest_distance(pos, cell) -> float:
    """Shortest distance (Å) between two atoms or an atom and an image, over the 27 nearest cells."""
    pos, cell = np.asarray(pos, float), np.asarray(cell, float)
    pos = (np.linalg.solve(cell.T, pos.T).T % 1.0) @ cell
    shifts = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ cell
    distance = np.linalg.norm(pos[:, None, None] - pos[None, :, None] - shifts[None, None], axis=-1)
    distance[distance < 1e-6] = np.inf  # an atom and itself
    overlapping = np.linalg.norm(pos[:, None] - pos[None], axis=-1) + 10.0 * np.eye(len(pos))
    return float(min(distance.min(), overlapping.min()))
