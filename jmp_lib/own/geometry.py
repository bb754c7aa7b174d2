"""Whether a network can take a structure: elements, isolated atoms, periodicity; one sentence for each failure."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from jmp_lib.graphs import GraphConfig


def check_elements(structure: dict, where: str, known: list[int] | None, largest: int) -> None:
    """Raise ``ValueError`` for an atomic number the network has no row for, or outside ``known`` (None: any)."""
    numbers = np.unique(np.asarray(structure["atomic_numbers"]))
    for number in numbers:
        if not 1 <= number <= largest:
            raise ValueError(f"{where}: atomic number {number} is not an element that the network knows (1 to {largest})")
    strange = [chemical_symbols[z] for z in numbers if known is not None and z not in known]
    if strange:
        seen = ", ".join(chemical_symbols[z] for z in known)
        raise ValueError(f"{where}: element {', '.join(strange)} was neither in the fine-tuning nor in the pre-training data "
                         f"of this network ({seen}); fine-tune with structures that hold it, or switch this check off "
                         "(check_elements=False, --any-element)")


def check_geometry(structure: dict, where: str, graph: GraphConfig) -> None:
    """Raise ``ValueError`` for positions that are not finite, a pbc the graphs cannot serve, or an isolated atom."""
    pos = np.asarray(structure["pos"], float)
    if len(pos) == 0:
        raise ValueError(f"{where}: there is no atom in it")
    if not np.isfinite(pos).all():
        raise ValueError(f"{where}: positions hold NaN or infinity")
    pbc, cell = np.asarray(structure["pbc"], bool), np.asarray(structure["cell"], float)
    if pbc.any() and not graph.periodic:
        raise ValueError(f"{where}: periodic, but the graphs of this network are those of molecules: set atoms.pbc = False, "
                         "or use a network (or dataset) for crystals")
    if pbc.any() and abs(np.linalg.det(cell)) <= 1e-6 * np.prod(np.linalg.norm(cell, axis=1)):
        raise ValueError(f"{where}: periodic, but its lattice vectors span no volume: set atoms.cell, or atoms.pbc = False")
    lonely = isolated_atoms(structure, graph)
    if len(lonely):
        symbol = chemical_symbols[int(structure["atomic_numbers"][lonely[0]])]
        raise ValueError(f"{where}: atom {lonely[0]} ({symbol}) has no other atom within {graph.cutoff:g} Å, so the network "
                         "cannot see it; leave the structure out")


def isolated_atoms(structure: dict, graph: GraphConfig) -> np.ndarray:
    """Indices of atoms without a neighbour within the cutoff."""
    from vesin import NeighborList

    periodic = graph.periodic and bool(np.any(structure["pbc"]))
    search = NeighborList(cutoff=float(graph.cutoff), full_list=True)
    (targets,) = search.compute(points=np.asarray(structure["pos"], float), box=np.asarray(structure["cell"], float)
                                if periodic else np.zeros((3, 3)),
                                periodic=np.asarray(structure["pbc"], bool) if periodic else False, quantities="i")
    return np.setdiff1d(np.arange(len(structure["pos"])), targets)
