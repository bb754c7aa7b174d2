"""Organic linkers built along x around the origin (Å): dicarboxylates and N-donor pillars."""

from __future__ import annotations

import numpy as np

RING, CC = 1.39, 1.49  # Å: ring radius (benzene), bond between ring and carboxylate carbon
RING_GROUPS = ("F", "Cl", "Br", "OH", "NH2", "CH3", "CN", "NO2")


def _ring_group(group: str, at: np.ndarray) -> tuple[list[str], list]:
    """Atoms of a substituent on the ring carbon `at` (in the xy plane, ring centre at the origin)."""
    out = at / np.linalg.norm(at)
    side = np.array([-out[1], out[0], 0.0])
    up = np.array([0, 0, 1.0])
    single = {"H": 1.08, "F": 1.35, "Cl": 1.74, "Br": 1.90}
    if group in single:
        return [group], [at + single[group] * out]
    if group == "OH":
        return ["O", "H"], [at + 1.36 * out, at + 1.68 * out + 0.92 * side]
    if group == "NH2":
        return ["N", "H", "H"], [at + 1.38 * out, at + 1.88 * out + 0.87 * side, at + 1.88 * out - 0.87 * side]
    if group == "CN":
        return ["C", "N"], [at + 1.43 * out, at + 2.59 * out]
    if group == "NO2":
        return ["N", "O", "O"], [at + 1.47 * out, at + 2.05 * out + 1.08 * up, at + 2.05 * out - 1.08 * up]
    if group == "CH3":
        return ["C", "H", "H", "H"], [at + 1.50 * out, at + 1.87 * out + 1.03 * side,
                                      at + 1.87 * out - 0.51 * side + 0.89 * up,
                                      at + 1.87 * out - 0.51 * side - 0.89 * up]
    raise ValueError(f"no such ring group: {group}")


def _ring(groups, hetero: dict[int, str] | None = None) -> tuple[list[str], np.ndarray]:
    """Six-ring in the xy plane, atoms 0 and 3 on the x axis; groups for atoms 1, 2, 4, 5;
    hetero replaces ring atoms."""
    symbols, points = [], []
    hetero = hetero or {}
    for k in range(6):
        angle = np.pi / 3 * k
        at = RING * np.array([np.cos(angle), np.sin(angle), 0.0])
        symbols.append(hetero.get(k, "C"))
        points.append(at)
        if k in (1, 2, 4, 5) and k not in hetero:
            s, p = _ring_group(groups[(1, 2, 4, 5).index(k)], at)
            symbols += s
            points += p
    return symbols, np.array(points)


def _about_x(points: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def random_ring_groups(core: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Substituents of a phenylene (up to four) or biphenylene (none) core; others have none. "aza" = N in the ring."""
    if core != "phenylene" or rng.random() < 0.1:
        return ("H",) * 4 if core == "phenylene" else ()
    if rng.random() < 0.15:
        return ("aza",)
    kind = str(rng.choice(RING_GROUPS))
    groups = ["H"] * 4
    many = [1, 2, 4] if kind in ("F", "Cl", "Br") else [1, 2]
    places = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}[int(rng.choice(many))]
    for place in places:
        groups[place] = kind
    return tuple(groups)


def _core(core: str, groups) -> tuple[list[str], np.ndarray, float]:
    """Atoms between the two carboxylate carbons and the distance of those carbons from the centre."""
    if core == "acetylene":
        return ["C", "C"], np.array([[0.60, 0, 0], [-0.60, 0, 0]]), 2.05
    if core == "diacetylene":
        return ["C"] * 4, np.array([[x, 0, 0] for x in (0.69, 1.90, -0.69, -1.90)]), 3.35
    if core == "ethylene":
        points = np.array([[0.58, 0.33, 0], [-0.58, -0.33, 0], [0.70, 1.41, 0], [-0.70, -1.41, 0]])
        return ["C", "C", "H", "H"], points, 2.02
    if core == "phenylene":
        if "aza" in groups:
            return *_ring(("H",) * 4, {1: "N", 4: "N"}), RING + CC
        return *_ring(groups), RING + CC
    if core == "biphenylene":
        symbols, points = _ring(("H",) * 4)
        centre = RING + CC / 2
        left = _about_x(points, 35.0) - [centre, 0, 0]
        return symbols + symbols, np.concatenate([points + [centre, 0, 0], left]), centre + RING + CC
    raise ValueError(f"no such linker core: {core}")


def build_acid(core: str, groups, torsion: float) -> tuple[list[str], np.ndarray, float]:
    """Dicarboxylate along x with its oxygens in the xz plane; torsion (degrees) of the core about x.

    Returns symbols, positions (N,3) and the distance of the carboxylate carbons from the centre.
    """
    symbols, points, reach = _core(core, groups)
    ends = [[s * reach, 0, 0] for s in (1, -1)]
    oxygens = [[s * (reach + 0.58), 0, z] for s in (1, -1) for z in (1.12, -1.12)]
    return (symbols + ["C", "C"] + ["O"] * 4, np.concatenate([_about_x(points, torsion), ends, oxygens]), reach)


def build_pillar(name: str, torsion: float) -> tuple[list[str], np.ndarray, float]:
    """N-donor along x; torsion (degrees) about x. Returns symbols, positions and the distance of N from the centre."""
    plain = ("H",) * 4
    if name == "pyrazine":
        symbols, points = _ring(plain, {0: "N", 3: "N"})
        reach = RING
    elif name == "dicyanobenzene":
        symbols, points = _ring(plain)
        tail = [[s * x, 0, 0] for x in (RING + 1.43, RING + 2.59) for s in (1, -1)]
        symbols, points, reach = symbols + ["C", "C", "N", "N"], np.concatenate([points, tail]), RING + 2.59
    elif name in ("bipyridine", "dipyridylacetylene"):
        symbols, right = _ring(plain, {0: "N"})
        centre = RING + (CC / 2 if name == "bipyridine" else 0.60 + 1.43)
        right = right + [centre, 0, 0]
        left = _about_x(right * [-1, 1, 1], 35.0 if name == "bipyridine" else 0.0)
        symbols, points, reach = symbols + symbols, np.concatenate([right, left]), centre + RING
        if name == "dipyridylacetylene":
            symbols, points = symbols + ["C", "C"], np.concatenate([points, [[0.60, 0, 0], [-0.60, 0, 0]]])
    else:
        raise ValueError(f"no such pillar: {name}")
    return symbols, _about_x(points, torsion), reach
