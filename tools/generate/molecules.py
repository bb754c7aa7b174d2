"""Small organic molecules: enumeration of SMILES, 3D embedding, and the rule that keeps test molecules
out of pre-training.

Every molecule is named by its canonical SMILES without stereo marks. A molecule belongs either to pre-training
(anix-mini, t1x-mini) or to fine-tuning (qm9-mini and the trajectories), decided by a hash of that name and by the
fixed list `TRAJECTORY_SMILES`; so no set needs to know the files of another one.
"""

from __future__ import annotations

import hashlib

import numpy as np

from tools.generate.xtb import require

Chem = require("rdkit.Chem")
AllChem = require("rdkit.Chem.AllChem")
RDLogger = require("rdkit.RDLogger")
RDLogger.DisableLog("rdApp.*")

RMD17_SMILES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "azobenzene": "c1ccccc1N=Nc1ccccc1",
    "benzene": "c1ccccc1",
    "ethanol": "CCO",
    "malonaldehyde": "O=CCC=O",
    "naphthalene": "c1ccc2ccccc2c1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "salicylic": "OC(=O)c1ccccc1O",
    "toluene": "Cc1ccccc1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
}
AMINO_ACID_SIDE_CHAINS = {
    "glycine": "[H]", "alanine": "C", "serine": "CO", "cysteine": "CS", "threonine": "C(C)O", "valine": "C(C)C",
    "asparagine": "CC(N)=O",
}
MD22_SMILES = {
    "ac-ala3-nhme": "CC(=O)NC(C)C(=O)NC(C)C(=O)NC(C)C(=O)NC",
    "dha": "CCC=CCC=CCC=CCC=CCC=CCC=CCCC(=O)O",
    "sucrose": "OCC1OC(OC2(CO)OC(CO)C(O)C2O)C(O)C(O)C1O",
    "adenine": "Nc1ncnc2[nH]cnc12", "thymine": "Cc1c[nH]c(=O)[nH]c1=O",
    "cytosine": "Nc1cc[nH]c(=O)n1", "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
}


def canonical(smiles: str) -> str:
    """Canonical SMILES without stereo marks and atom maps. Raises ValueError when rdkit cannot read `smiles`."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"rdkit cannot read the SMILES {smiles!r}")
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)


def amino_acid(name: str) -> str:
    """SMILES of the neutral free amino acid."""
    return canonical(f"NC({AMINO_ACID_SIDE_CHAINS[name]})C(=O)O")


def dipeptide(first: str, second: str) -> str:
    """SMILES of ACE-first-second-NME (both ends capped, as in the SPICE dipeptides)."""
    chains = AMINO_ACID_SIDE_CHAINS
    return canonical(f"CC(=O)NC({chains[first]})C(=O)NC({chains[second]})C(=O)NC")


# the side chains of the other amino acids, neutral; none of the generated sets has them, but the SPICE tasks do
OTHER_SIDE_CHAINS = (
    "CC(C)C", "C(C)CC", "CCSC", "Cc1ccccc1", "Cc1ccc(O)cc1", "Cc1c[nH]c2ccccc12", "Cc1c[nH]cn1",
    "Cc1cnc[nH]1", "CC(=O)O", "CCC(=O)O", "CCC(N)=O", "CCCCN", "CCCNC(N)=N", "CCCN=C(N)N",
)  # fmt: skip


def _of_spice() -> list[str]:
    """Amino acids, free and capped as ACE-X-NME, and all capped dipeptides but those of proline, which are larger than
    what pre-training grows."""
    chains = (*AMINO_ACID_SIDE_CHAINS.values(), *OTHER_SIDE_CHAINS)
    free = [f"NC({chain})C(=O)O" for chain in chains] + ["OC(=O)C1CCCN1"]
    capped = [f"CC(=O)NC({chain})C(=O)NC" for chain in chains] + ["CC(=O)N1CCCC1C(=O)NC"]
    pairs = [f"CC(=O)NC({one})C(=O)NC({two})C(=O)NC" for one in chains for two in chains]
    return [canonical(s) for s in (*free, *capped, *pairs)]


TRAJECTORY_SMILES = frozenset([*map(canonical, (*RMD17_SMILES.values(), *MD22_SMILES.values())), *_of_spice()])
TAUTOMERS_OF_MALONALDEHYDE = frozenset([canonical("OC=CC=O")])


def side(smiles: str) -> str:
    """"pretrain" or "finetune" for one molecule (three tenths of all names go to fine-tuning)."""
    name = canonical(smiles)
    if name in TRAJECTORY_SMILES or name in TAUTOMERS_OF_MALONALDEHYDE:
        return "finetune"
    return "finetune" if hashlib.sha256(name.encode()).digest()[0] % 10 < 3 else "pretrain"


_SEEDS = ("C", "C", "C", "C", "C", "C", "C", "CC=O", "C1CCCC1", "C1CCC1", "C1CC1", "c1ccccc1", "c1ccncc1", "c1cc[nH]c1",
          "c1ccoc1", "c1cnc[nH]1", "c1ccn[nH]1", "C1CCOC1", "CC(N)=O", "C=C", "C#C", "CC#N", "C1CNC1")
_UNWANTED = [
    Chem.MolFromSmarts(s) for s in (
        "[OX2][OX2]", "[#7][OX2]", "[NX3;!a][NX3;!a]", "N~N~N", "[OX2H][CX4][OX2H]", "[NX3;!H0][CX4][OX2H]",
        "[F]~[!#6]", "F[CX4][#7,#8]", "[NX2]=[NX2]", "C=C=C", "[#6]=[#6]=[#7,#8]", "[OX2H][#6]=[#6;!a]",
        "[*;R]#[*;R]", "[NX2]=C=[#7,#8]", "O=N", "[r3]=*", "[r3]1[r3]2[r3]1*2", "[r3][r3;R2]", "[r4;R2]",
        "[R3]", "[CX4](O)(O)(O)", "[OX2][F]", "C(=O)C(=O)C(=O)", "[Cl]~[!#6]", "Cl[CX4][#7,#8]", "[#16]~[!#6]",
    )
]


def _free(atom) -> int:
    limit = {6: 4, 7: 3, 8: 2, 9: 1, 16: 2, 17: 1}[atom.GetAtomicNum()]
    return limit - int(sum(b.GetBondTypeAsDouble() for b in atom.GetBonds()))


def random_smiles(rng: np.random.Generator, heavy: int, elements: dict[int, float]) -> str | None:
    """One random molecule of `heavy` heavy atoms grown from a seed fragment, or None when it is not wanted.

    elements: atomic number -> weight of a grown atom.
    """
    mol = Chem.RWMol(Chem.MolFromSmiles(_SEEDS[rng.integers(len(_SEEDS))]))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    if mol.GetNumAtoms() > heavy:
        return None
    numbers, weights = list(elements), np.array(list(elements.values()))
    while mol.GetNumAtoms() < heavy:
        open_atoms = [a.GetIdx() for a in mol.GetAtoms() if _free(a) > 0]
        if not open_atoms:
            return None
        new = mol.AddAtom(Chem.Atom(int(rng.choice(numbers, p=weights / weights.sum()))))
        mol.AddBond(int(rng.choice(open_atoms)), new, Chem.BondType.SINGLE)
    for _ in range(rng.integers(0, 3)):  # unsaturation: a double or triple bond
        bonds = [b for b in mol.GetBonds() if _free(b.GetBeginAtom()) > 0 and _free(b.GetEndAtom()) > 0]
        if bonds:
            bond = bonds[rng.integers(len(bonds))]
            order = {1: Chem.BondType.DOUBLE, 2: Chem.BondType.TRIPLE}.get(int(bond.GetBondTypeAsDouble()))
            if order is not None:
                bond.SetBondType(order)
    if rng.random() < 0.4:  # a ring of 3 to 6 atoms
        distance = Chem.GetDistanceMatrix(mol)
        pairs = [(i, j) for i in range(heavy) for j in range(i) if 2 <= distance[i, j] <= 5
                 and _free(mol.GetAtomWithIdx(i)) > 0 and _free(mol.GetAtomWithIdx(j)) > 0]
        if pairs:
            i, j = pairs[rng.integers(len(pairs))]
            mol.AddBond(i, j, Chem.BondType.SINGLE)
    if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    clean = mol.GetMol()
    if any(clean.HasSubstructMatch(pattern) for pattern in _UNWANTED):
        return None
    if AllChem.CalcNumBridgeheadAtoms(clean):
        return None
    carbons = sum(a.GetAtomicNum() == 6 for a in clean.GetAtoms())
    return canonical(Chem.MolToSmiles(clean)) if 2 * carbons >= heavy else None


def enumerate_molecules(seed: int, count: int, heavy_weights: dict[int, float], elements: dict[int, float], which: str):
    """`count` different SMILES of the given `side`, sizes drawn with `heavy_weights`; the same seed
    gives the same list."""
    rng = np.random.default_rng(seed)
    sizes, weights = list(heavy_weights), np.array(list(heavy_weights.values()))
    found: dict[str, None] = {}
    for _ in range(400 * count):
        smiles = random_smiles(rng, int(rng.choice(sizes, p=weights / weights.sum())), elements)
        if smiles is not None and side(smiles) == which:
            found.setdefault(smiles)
        if len(found) == count:
            break
    return list(found)


def embed(smiles: str, seed: int, conformers: int = 1):
    """3D structures of a molecule: (numbers (N,), [pos (N,3) Å, ...], bonds {(i, j)}),
    or None when rdkit finds none."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    ids = list(AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=seed))
    if not ids:
        return None
    for conformer in ids:
        AllChem.UFFOptimizeMolecule(mol, confId=conformer, maxIters=500)
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    bonds = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in mol.GetBonds()}
    return numbers, [mol.GetConformer(c).GetPositions() for c in ids], bonds


_RADII = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 16: 1.05, 17: 1.02}  # covalent radii in Å, Cordero et al. 2008


def bonds_of(numbers, pos, scale: float = 1.3) -> set[tuple[int, int]]:
    """Bonded pairs by distance: closer than `scale` times the sum of the covalent radii."""
    radii = np.array([_RADII[int(z)] for z in numbers])
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    close = distance < scale * (radii[:, None] + radii[None])
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(close, 1)), strict=True)}
