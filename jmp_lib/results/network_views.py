"""Figures and counts of notebook 02: graphs, members of the interactions, bases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from jmp_lib.graphs.build import GRAPHS
from jmp_lib.model.bases import RadialBasis
from jmp_lib.model.geometry import legendre
from jmp_lib.results.style import PALETTE, new_figure

MEANING = {"main": "edges with embeddings", "a2ee2a": "atoms ↔ edges", "qint": "middle bonds of quadruplets", "a2a": "atoms → atoms"}


def members(graphs: dict, natoms: int) -> dict[str, int]:
    """How many terms each interaction sums in one structure, from degrees and exceptions (``jmp_lib.graphs.indices``)."""
    into = {name: np.bincount(graphs[f"{name}_edge_index"][1], minlength=natoms) for name in GRAPHS}
    b, a = graphs["qint_edge_index"]
    back, same = (np.bincount(graphs[name][0], minlength=len(a)) for name in ("qin_back", "qout_same"))
    return {"edge → edge (triplets)": int((into["main"] * (into["main"] - 1)).sum()),
            "edge → edge (quadruplets)": int(((into["main"][b] - back) * (into["main"][a] - same)).sum()
                                             - graphs["quad_same"].shape[1]),
            "atom → edge": (both := int((into["main"] * into["a2ee2a"]).sum() - graphs["ae_same"].shape[1])),
            "edge → atom": both, "atom → atom": graphs["a2a_edge_index"].shape[1]}


def counts(structures: dict, graphs: dict) -> pd.DataFrame:
    """One column per structure: atoms, edges of the four graphs, terms of the five interactions."""
    return pd.DataFrame({name: {"atoms": len(structures[name]["pos"]),
                                **{f"edges of {graph}": arrays[f"{graph}_edge_index"].shape[1] for graph in GRAPHS},
                                **members(arrays, len(structures[name]["pos"]))} for name, arrays in graphs.items()})


def edges_into(structures: dict, graphs: dict, targets: dict):
    """The edges of each graph (columns) that end at one atom (``targets``) of each structure (rows), seen from the side.

    Hollow: atoms of neighbouring cells.
    """
    figure, axes = new_figure(len(structures), len(GRAPHS), 9.0, 2.5 * len(structures))
    for row, (name, structure) in enumerate(structures.items()):
        pos, numbers = (np.asarray(structure[key]) for key in ("pos", "atomic_numbers"))
        cell, at = np.asarray(structure["cell"]), targets[name]
        flat = np.eye(3)[[0, 2]] if cell.any() else np.linalg.svd(pos - pos.mean(0))[2][:2]
        for axis, graph in zip(axes[row * len(GRAPHS) :], GRAPHS):
            source, target = graphs[name][f"{graph}_edge_index"]
            at_edges = target == at
            images = pos[source[at_edges]] + graphs[name][f"{graph}_offset"][at_edges] @ cell
            shown, here = images @ flat.T, pos @ flat.T
            for point in shown:
                axis.plot(*zip(point, here[at]), color=PALETTE[0], linewidth=0.6, alpha=0.6, zorder=1)
            for points, z, outlined in ((shown, numbers[source[at_edges]], True), (here, numbers, False)):
                colours = jmol_colors[z]
                axis.scatter(*points.T, s=110 * covalent_radii[z] / (2.5 if cell.any() else 1), zorder=2, linewidth=0.6,
                             edgecolor=colours * 0.6 if outlined else "black", facecolor="white" if outlined else colours)
            axis.set(aspect="equal", title=f"{graph}: {at_edges.sum()} edges" if row else f"{graph}\n{MEANING[graph]}: "
                     f"{at_edges.sum()}")
            axis.set_axis_off()
        axes[row * len(GRAPHS)].text(0, -0.08, f"{name}: edges into {chemical_symbols[numbers[at]]}",
                                     transform=axes[row * len(GRAPHS)].transAxes, fontsize=8)
    return figure


def bases(num_radial: int, num_spherical: int, cutoff: float = 12.0, shown: int = 9):
    """Envelope and ``shown`` of the radial functions over the distance, and the Legendre functions over the angle."""
    figure, (radial, angular) = new_figure(1, 2, 9.0, 2.8)
    basis, distance = RadialBasis(num_radial, cutoff), torch.linspace(0, cutoff, 400, dtype=torch.float64)
    values = basis(distance).numpy()
    for k in np.linspace(0, num_radial - 1, shown).round().astype(int):
        radial.plot(distance, values[:, k], linewidth=1)
    x = distance / cutoff
    radial.plot(distance, 1 + x**5 * (-21 + x * (35 - 15 * x)), "k--", label="envelope")
    radial.set(xlabel="distance / Å", ylabel="radial basis", title=f"{shown} of {num_radial} Gaussians times the envelope")
    radial.legend()
    angle = torch.linspace(0, np.pi, 200, dtype=torch.float64)
    curves = legendre(angle.cos(), num_spherical).numpy()
    frame = pd.DataFrame(curves, index=np.degrees(angle.numpy()), columns=[f"l = {n}" for n in range(num_spherical)])
    sns.lineplot(frame, dashes=False, ax=angular)
    angular.set(xlabel="angle / degrees", ylabel="angular basis", title=f"{num_spherical} Legendre functions")
    sns.move_legend(angular, "center left", bbox_to_anchor=(1, 0.5))
    return figure
