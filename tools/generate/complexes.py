"""Starting structures of the md22-mini systems that are no single molecule: stacked base pairs, a bowl, a hoop."""

from __future__ import annotations

import numpy as np

from tools.generate.molecules import MD22_SMILES, bonds_of, embed

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


def bowl_with_benzene():
    """Corannulene (the bowl of the buckyball catcher) with benzene lying over its hub, 3.5 Å above it: 42 atoms."""
    numbers, (pos,), _ = embed("c1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51", 7)
    degree = np.bincount(np.array(sorted(bonds_of(numbers, pos))).ravel(), minlength=len(pos))
    carbon_bonds = [{i, j} for i, j in bonds_of(numbers, pos) if numbers[i] == numbers[j] == 6]
    spokes = np.array([sum(k in pair for pair in carbon_bonds) for k in range(len(pos))])
    inner = [k for k in range(len(pos)) if spokes[k] == 3 and all(
        spokes[next(iter(pair - {k}))] == 3 for pair in carbon_bonds if k in pair)]
    if len(inner) != 5 or degree.max() > 3:
        raise RuntimeError("corannulene was not embedded with a hub of five atoms")
    hub = pos[inner].mean(0)
    _, _, axes = np.linalg.svd(pos - pos.mean(0))
    pos = (pos - hub) @ axes.T
    if pos[:, 2].mean() < 0.0:  # the rim is on the side of the guest
        pos = pos * np.array([1.0, -1.0, -1.0])
    guest_numbers, ring, _ = _flat_benzene()
    pos = np.concatenate([pos, ring + np.array([0.0, 0.0, 3.5])])
    numbers = np.concatenate([numbers, guest_numbers])
    return numbers, pos, bonds_of(numbers, pos)


def _flat_benzene():
    numbers, (pos,), bonds = embed("c1ccccc1", 7)
    pos = pos - pos.mean(0)
    _, _, axes = np.linalg.svd(pos)
    return numbers, pos @ axes.T, bonds


def hoop_with_chain(units: int = 5):
    """[n]Cycloparaphenylene, one hoop of a carbon nanotube, with butadiyne along its axis (n = 5: 56 atoms)."""
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
    heights = (-2.95, -1.89, -0.685, 0.685, 1.89, 2.95)  # H-C, C-C triple and single bonds
    pos += [np.array([0.0, 0.0, z]) for z in heights]
    numbers += [1, 6, 6, 6, 6, 1]
    pos, numbers = np.array(pos), np.array(numbers)
    return numbers, pos, bonds_of(numbers, pos)
