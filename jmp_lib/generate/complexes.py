"""Starting structures of the md22-mini systems that are no single molecule: stacked base pairs, a buckyball, a hoop."""

from __future__ import annotations

import numpy as np

from jmp_lib.generate.molecules import MD22_SMILES, bonds_of, embed
from jmp_lib.generate.xtb import require

# Watson-Crick sites by atom index in MD22_SMILES: (atoms of the first base, atoms of the second base that they face)
_PAIRS = {"AT": ("adenine", (0, 2), "thymine", (8, 6)), "GC": ("guanine", (0, 10), "cytosine", (6, 7))}


def _flat(name: str):
    numbers, (pos,), bonds = embed(MD22_SMILES[name], 7)
    pos = pos - pos.mean(0)
    _, _, axes = np.linalg.svd(pos)
    return numbers, pos @ axes.T, bonds


def base_pair(kind: str):
    """A planar Watson-Crick pair, "AT" or "GC", in the xy plane: (numbers, pos (N,3) Å, bonds)."""
    first, sites, second, faced = _PAIRS[kind]
    numbers, pos, bonds = _flat(first)
    other_numbers, other, other_bonds = _flat(second)
    targets = []
    ring = pos[sites[1]]
    for site in sites:
        neighbours = [j if i == site else i for i, j in bonds if site in (i, j)]
        hydrogens = [k for k in neighbours if numbers[k] == 1]
        if hydrogens:
            along = pos[min(hydrogens, key=lambda k: np.linalg.norm(pos[k] - ring))] - pos[site]
        else:
            along = pos[site] - pos[neighbours].mean(0)
        targets.append(pos[site] + 2.9 * along / np.linalg.norm(along))
    middle, width = np.mean(targets, 0), targets[1] - targets[0]
    best = None
    for mirror in (1.0, -1.0):
        turned = other * np.array([1.0, mirror, mirror])  # a turn by half a circle about x, not a reflection
        points = turned[list(faced)]
        span = points[1] - points[0]
        angle = np.arctan2(width[1], width[0]) - np.arctan2(span[1], span[0])
        turn = np.array([[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
        placed = (turned - points.mean(0)) @ turn + middle
        room = np.linalg.norm(placed[:, None] - pos[None], axis=-1).min()
        if best is None or room > best[0]:
            best = (room, placed)
    shift = len(numbers)
    joined = np.concatenate([pos, best[1]])
    return (np.concatenate([numbers, other_numbers]), joined - joined.mean(0),
            bonds | {(i + shift, j + shift) for i, j in other_bonds})


def stacked_pairs(*kinds: str):
    """Base pairs stacked like in B-DNA: 3.4 Å apart and turned by 36 degrees each."""
    numbers, pos, bonds = [], [], set()
    for level, kind in enumerate(kinds):
        new_numbers, new_pos, new_bonds = base_pair(kind)
        angle = np.deg2rad(36.0 * level)
        turn = np.array([[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
        shift = sum(len(n) for n in numbers)
        bonds |= {(i + shift, j + shift) for i, j in new_bonds}
        numbers.append(new_numbers)
        pos.append(new_pos @ turn + np.array([0.0, 0.0, 3.4 * level]))
    return np.concatenate(numbers), np.concatenate(pos), bonds


def buckyball_with_benzene():
    """C60 with a benzene ring lying on one of its hexagons, 3.4 Å above it: 72 atoms."""
    ball = require("ase.build").molecule("C60").get_positions()
    ball -= ball.mean(0)
    near = np.argsort(np.linalg.norm(ball - ball[0], axis=1))
    hexagon = None
    for i in near[1:4]:  # the hexagon that holds atom 0: six atoms at one distance from their centre
        for j in near[1:4]:
            center = (ball[i] + ball[j] - ball[0])
            center *= np.sqrt((ball[0] ** 2).sum() - 1.43**2) / np.linalg.norm(center)
            if i != j and (np.abs(np.linalg.norm(ball - center, axis=1) - 1.43) < 0.12).sum() == 6:
                hexagon = center
    if hexagon is None:
        raise RuntimeError("no hexagon found on C60")
    outward = hexagon / np.linalg.norm(hexagon)
    numbers, ring, _ = _flat_benzene()
    side = np.cross(outward, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side)
    frame = np.array([side, np.cross(outward, side), outward])
    pos = np.concatenate([ball, ring @ frame + hexagon + 3.4 * outward])
    numbers = np.concatenate([np.full(60, 6), numbers])
    return numbers, pos, bonds_of(numbers, pos)


def _flat_benzene():
    numbers, (pos,), bonds = embed("c1ccccc1", 7)
    pos = pos - pos.mean(0)
    _, _, axes = np.linalg.svd(pos)
    return numbers, pos @ axes.T, bonds


def hoop_with_chain(units: int = 6):
    """[n]Cycloparaphenylene, one hoop of a carbon nanotube, with hexatriyne along its axis (n = 6: 68 atoms)."""
    low, high = 2.0, 20.0
    for _ in range(80):  # radius at which the chords of n phenylenes (2.80 Å) and n bonds (1.48 Å) close the circle
        radius = 0.5 * (low + high)
        turn = units * 2.0 * (np.arcsin(1.40 / radius) + np.arcsin(0.74 / radius))
        low, high = (radius, high) if turn > 2.0 * np.pi else (low, radius)
    inner = np.sqrt(radius**2 - 1.40**2)
    tangent = [(-1.40, 0.0), (1.40, 0.0), (-0.70, 1.21), (0.70, 1.21), (-0.70, -1.21), (0.70, -1.21),
               (-1.24, 2.15), (1.24, 2.15), (-1.24, -2.15), (1.24, -2.15)]
    numbers, pos = [], []
    for k in range(units):
        angle = 2.0 * np.pi * k / units
        out, along = np.array([np.cos(angle), np.sin(angle), 0.0]), np.array([-np.sin(angle), np.cos(angle), 0.0])
        pos += [inner * out + t * along + np.array([0.0, 0.0, z]) for t, z in tangent]
        numbers += [6] * 6 + [1] * 4
    heights = np.array([-4.30, -3.24, -2.03, -0.66, 0.66, 2.03, 3.24, 4.30])  # H C#C-C... along z, roughly
    heights[[1, 2, 3]] = [-3.23, -2.02, -0.65]
    pos += [np.array([0.0, 0.0, z]) for z in heights]
    numbers += [1, 6, 6, 6, 6, 6, 6, 1]
    pos, numbers = np.array(pos), np.array(numbers)
    return numbers, pos, bonds_of(numbers, pos)
