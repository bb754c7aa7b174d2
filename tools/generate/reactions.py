"""Reactions of small molecules: valence-preserving bond rearrangements, and nudged-elastic-band
paths between the ends."""

from __future__ import annotations

import numpy as np

from tools.generate.dynamics import relax
from tools.generate.molecules import AllChem, Chem, bonds_of, canonical, embed, side
from tools.generate.xtb import XTB

_ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


def rearrangements(smiles: str, rng: np.random.Generator, count: int):
    """Up to `count` products of `smiles` by a cyclic shift of bond orders over 4 or 6 atoms (H included).

    Along the cycle a1 a2 ... the bond orders change by -1, +1, -1, ..., so every atom keeps its valence: H shifts,
    eliminations, ring openings and closures, metatheses. Yields (product mol with the atom order of
    the reactant, name).
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    size = mol.GetNumAtoms()
    order = np.zeros((size, size), int)
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        order[i, j] = order[j, i] = int(bond.GetBondTypeAsDouble())
    distance = Chem.GetDistanceMatrix(mol)
    hydrogen = np.array([a.GetAtomicNum() == 1 for a in mol.GetAtoms()])
    seen = {canonical(smiles)}
    for _ in range(400):
        if len(seen) > count:
            return
        cycle = _random_cycle(order, distance, hydrogen, 4 if rng.random() < 0.7 else 6, rng)
        if cycle is None:
            continue
        new = order.copy()
        for k, (i, j) in enumerate(zip(cycle, cycle[1:] + cycle[:1], strict=True)):
            new[i, j] = new[j, i] = new[i, j] + (-1 if k % 2 == 0 else 1)
        if new.min() < 0 or new.max() > 3 or new[hydrogen].max() > 1:
            continue
        product = Chem.RWMol()
        for atom in mol.GetAtoms():
            product.AddAtom(Chem.Atom(atom.GetAtomicNum()))
        for i, j in zip(*np.nonzero(np.triu(new)), strict=True):
            product.AddBond(int(i), int(j), _ORDERS[int(new[i, j])])
        if Chem.SanitizeMol(product, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
            continue
        if any(a.GetNumRadicalElectrons() for a in product.GetAtoms()):
            continue
        name = canonical(Chem.MolToSmiles(Chem.RemoveHs(product.GetMol())))
        if name in seen or any(side(part) == "finetune" for part in name.split(".")):
            continue
        seen.add(name)
        yield product.GetMol(), name


def _random_cycle(order, distance, hydrogen, length: int, rng) -> list[int] | None:
    """Atoms a1..an with bonds a1a2, a3a4, ... to weaken and a2a3, ..., ana1 to strengthen;
    None when it does not close."""
    size = len(order)
    first = int(rng.integers(size))
    cycle = [first]
    while len(cycle) < length:
        last = cycle[-1]
        weaken = len(cycle) % 2 == 1
        allowed = (order[last] > 0 if weaken
                   else (distance[last] <= 3) & ~(hydrogen & hydrogen[last] & (distance[last] > 3)))
        choices = [i for i in np.nonzero(allowed)[0] if i not in cycle]
        if not choices:
            return None
        cycle.append(int(rng.choice(choices)))
    return cycle if distance[cycle[-1], first] <= 4 else None


def endpoints(smiles: str, product, seed: int, fmax: float = 0.1):
    """Relaxed reactant and product with the same atom order: (numbers, pos, pos), or None when one of them falls apart.

    The product starts from the reactant's coordinates, pulled to its own bonds by the UFF force field.
    """
    embedded = embed(smiles, seed)
    if embedded is None:
        return None
    numbers, (start,), bonds = embedded
    conformer = Chem.Conformer(len(numbers))
    for i, point in enumerate(start):
        conformer.SetAtomPosition(i, point.tolist())
    product.AddConformer(conformer, assignId=True)
    try:
        if AllChem.UFFOptimizeMolecule(product, maxIters=1000) == -1:
            return None
    except RuntimeError:
        return None
    target = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in product.GetBonds()}
    ends = []
    for pos, wanted in ((start, bonds), (product.GetConformer().GetPositions(), target)):
        try:
            relaxed, converged = relax(XTB(numbers, pos), pos, fmax, 80)
        except RuntimeError:
            return None
        if not converged or bonds_of(numbers, relaxed) != wanted:
            return None
        ends.append(relaxed - relaxed.mean(0))
    return numbers, ends[0], align(ends[1], ends[0])


def align(pos, onto):
    """`pos` (N,3) turned and shifted onto `onto` with the least squared distance (Kabsch), without mirroring."""
    center, target = pos.mean(0), onto.mean(0)
    left, _, right = np.linalg.svd((pos - center).T @ (onto - target))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return (pos - center) @ left @ flip @ right + target


def idpp_path(first, last, images: int, steps: int = 150):
    """Path of `images` structures by the image dependent pair potential (Smidstrup et al., JCP 140, 214106, 2014)."""
    fractions = np.linspace(0.0, 1.0, images)[:, None, None]
    path = (1.0 - fractions) * first + fractions * last
    pair = lambda pos: pos[..., :, None, :] - pos[..., None, :, :]  # noqa: E731
    length = lambda vector: np.sqrt((vector**2).sum(-1) + 1e-12)  # noqa: E731
    wanted = (1.0 - fractions) * length(pair(first)) + fractions * length(pair(last))
    inner = slice(1, -1)
    eye = np.eye(first.shape[0])
    path[inner] += 1e-3 * np.sin(np.arange(path[inner].size)).reshape(path[inner].shape)  # off exact collisions
    for _ in range(steps):
        vector = pair(path[inner])
        distance = length(vector) + eye
        scale = (wanted[inner] - distance) / distance**5 * (1.0 - 2.0 * (wanted[inner] - distance) / -distance)
        force = 2.0 * ((scale * (1.0 - eye))[..., None] * vector).sum(-2)
        norm = np.linalg.norm(force, axis=-1).max()
        path[inner] += force * min(0.1, 0.05 / max(norm, 1e-9))
    return path


def elastic_band(numbers, path, steps: int, spring: float = 5.0):
    """Nudged elastic band (improved tangents, Henkelman and Jonsson, JCP 113, 9978, 2000), relaxed for `steps` steps.

    Yields for every step the list of (pos, energy, forces) of the inner images. Raises RuntimeError when an SCF fails.
    """
    calculators = [XTB(numbers, pos) for pos in path]
    path = [np.array(p) for p in path]
    ends = [calculators[0](path[0])[0], calculators[-1](path[-1])[0]]
    velocity = [np.zeros_like(p) for p in path]
    for _ in range(steps):
        found = [calculators[k](path[k]) for k in range(1, len(path) - 1)]
        energies = [ends[0], *(e for e, _ in found), ends[1]]
        yield [(path[k].copy(), *found[k - 1]) for k in range(1, len(path) - 1)]
        moves = []
        for k in range(1, len(path) - 1):
            ahead, behind = path[k + 1] - path[k], path[k] - path[k - 1]
            tangent = ahead if energies[k + 1] > energies[k - 1] else behind
            tangent = tangent / np.linalg.norm(tangent)
            forces = found[k - 1][1]
            pull = spring * (np.linalg.norm(ahead) - np.linalg.norm(behind))
            moves.append(forces - (forces * tangent).sum() * tangent + pull * tangent)
        for k, move in enumerate(moves, start=1):  # damped steps: keep the part of the velocity along the force
            along = (velocity[k] * move).sum()
            velocity[k] = (along / (move**2).sum() * move if along > 0 else 0.0) + 0.02 * move
            longest = np.linalg.norm(velocity[k], axis=1).max()
            path[k] = path[k] + velocity[k] * min(1.0, 0.1 / max(longest, 1e-9))
