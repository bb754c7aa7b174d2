"""Counts, traces and figures of notebook 02: graphs, members of the interactions, bases, steps of a block."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.patches import Arc
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jmp_lib.graphs import build_graphs, collate
from jmp_lib.graphs.build import GRAPHS
from jmp_lib.model.bases import RadialBasis
from jmp_lib.model.geometry import legendre
from jmp_lib.results.style import PALETTE, legend_below, log_axis, new_figure

MEANING = {"main": "edges with embeddings", "a2ee2a": "atoms ↔ edges", "qint": "middle bonds", "a2a": "atoms → atoms"}
INTERACTIONS = {"trip_interaction": "edge → edge (triplets)", "quad_interaction": "edge → edge (quadruplets)",
                "atom_edge_interaction": "atom → edge", "edge_atom_interaction": "edge → atom",
                "atom_interaction": "atom → atom"}


def members(graphs: dict, natoms: int) -> dict[str, int]:
    """How many terms each interaction sums in one structure, from degrees and exceptions
    (``jmp_lib.graphs.indices``)."""
    into = {name: np.bincount(graphs[f"{name}_edge_index"][1], minlength=natoms) for name in GRAPHS}
    b, a = graphs["qint_edge_index"]
    back, same = (np.bincount(graphs[name][0], minlength=len(a)) for name in ("qin_back", "qout_same"))
    both = int((into["main"] * into["a2ee2a"]).sum() - graphs["ae_same"].shape[1])
    quadruplets = int(((into["main"][b] - back) * (into["main"][a] - same)).sum() - graphs["quad_same"].shape[1])
    triplets = int((into["main"] * (into["main"] - 1)).sum())
    return dict(zip(INTERACTIONS.values(), (triplets, quadruplets, both, both, graphs["a2a_edge_index"].shape[1])))


def counts(structure, config) -> dict[str, int]:
    """Atoms, edges of the four graphs and terms of the five interactions of a structure whose
    graphs ``config`` cuts."""
    graphs, natoms = build_graphs(structure, config), len(structure["pos"])
    edges = {f"edges of {name}": graphs[f"{name}_edge_index"].shape[1] for name in GRAPHS}
    return {"atoms": natoms, **edges, **members(graphs, natoms)}


def batch_of(structures: list, config):
    """One batch of structures whose graphs ``config`` cuts."""
    return collate([{**structure, "graphs": build_graphs(structure, config)} for structure in structures])


def operations(model: nn.Module, batch) -> int:
    """Floating-point operations of a forward pass, as PyTorch counts them (two for each multiplication and
    addition)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    return counter.get_total_flops()


@contextmanager
def silenced(model: nn.Module, names):
    """Within this context the interactions ``names`` (keys of ``INTERACTIONS``) of all blocks give zeros."""
    with ExitStack() as hooks:
        for layer in (getattr(block, name) for block in model.backbone.int_blocks for name in names):
            hooks.enter_context(layer.register_forward_hook(lambda module, given, out: torch.zeros_like(out)))
        yield


def trace(model: nn.Module, batch, steps: dict[str, str]) -> pd.DataFrame:
    """One row per tensor that the modules ``steps`` (name in the model -> words) give in a forward pass,
    in their order.

    Columns: step, module, shape, root mean square and variance (of rows, mean over features).
    """
    rows = []

    def note(name, module, given, out):
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                rows.append({"step": steps[name], "module": name, "shape": tuple(tensor.shape),
                             "root mean square": float(tensor.square().mean().sqrt()),
                             "variance": float(tensor.var(0).mean())})

    with ExitStack() as hooks, torch.no_grad():
        for name in steps:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(partial(note, name)))
        model(batch)
    return pd.DataFrame(rows)


def parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of the parts of a network."""
    parts = {"embedding of elements": model.embedding, "bases": model.backbone.bases,
             "interaction blocks": model.backbone.int_blocks, "output blocks": model.backbone.out_blocks}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    every = sum(p.numel() for p in model.parameters())
    heads = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(("embedding.", "backbone.")))
    return sizes | {"output MLPs": every - heads - sum(sizes.values()), "heads": heads, "all": every}


def edges_into(structures: dict, graphs: dict, targets: dict):
    """The edges of each graph (columns) that end at one atom (``targets``) of each structure (rows), seen from the
    side; hollow: atoms of neighbouring cells."""
    figure, axes = new_figure(len(structures), len(GRAPHS), 9.0, 2.6 * len(structures))
    for row, (name, structure) in enumerate(structures.items()):
        pos, numbers = (np.asarray(structure[key]) for key in ("pos", "atomic_numbers"))
        cell, at = np.asarray(structure["cell"]), targets[name]
        flat = np.eye(3)[[0, 2]] if cell.any() else np.linalg.svd(pos - pos.mean(0))[2][:2]
        for axis, graph in zip(axes[row * len(GRAPHS) :], GRAPHS):
            source, target = graphs[name][f"{graph}_edge_index"]
            ends_here = target == at
            shown = (pos[source[ends_here]] + graphs[name][f"{graph}_offset"][ends_here] @ cell) @ flat.T
            here = pos @ flat.T
            for point in shown:
                axis.plot(*zip(point, here[at]), color=PALETTE[0], linewidth=0.6, alpha=0.6, zorder=1)
            for points, z, hollow in ((shown, numbers[source[ends_here]], True), (here, numbers, False)):
                colours = jmol_colors[z]
                axis.scatter(*points.T, s=110 * covalent_radii[z] / (2.5 if cell.any() else 1),
                             zorder=2 + (not hollow), linewidth=0.6, edgecolor=colours * 0.6 if hollow else "black",
                             facecolor="white" if hollow else colours)
            axis.set(aspect="equal", title=f"{graph} ({MEANING[graph]})\n{name}: "
                     f"{ends_here.sum()} edges into {chemical_symbols[numbers[at]]}")
            axis.title.set_fontsize(7)
            axis.set_axis_off()
    return figure


def chains():
    """A triplet and a quadruplet drawn flat: atoms, edges, and the angle or the two planes between
    which the torsion is."""
    figure, axes = new_figure(1, 2, 7.5, 2.3)
    places = {"a": (0.0, 0.0), "b": (1.6, 0.0), "c": (-0.8, 1.1), "d": (2.4, -1.1)}
    drawn = {"triplet: the angle b-a-c": ("ba", "ca"),
             "quadruplet: the torsion c-a-b-d, between the two planes": ("ba", "ca", "db")}
    for axis, (title, edges) in zip(axes, drawn.items()):
        for plane, colour in zip(("cab", "abd") if len(edges) > 2 else (), PALETTE[1:]):
            axis.fill(*zip(*(places[atom] for atom in plane)), color=colour, alpha=0.25, linewidth=0)
        for source, target in edges:
            axis.annotate("", places[target], places[source],
                          arrowprops={"arrowstyle": "-|>", "shrinkA": 11, "shrinkB": 11, "color": PALETTE[0]})
        for atom in sorted(set("".join(edges))):
            axis.text(*places[atom], atom, ha="center", va="center",
                      bbox={"boxstyle": "circle,pad=0.35", "facecolor": "white", "edgecolor": "black"})
        axis.set(title=title, xlim=(-1.3, 2.9), ylim=(-1.6, 1.6), aspect="equal")
        axis.set_axis_off()
    axes[0].add_patch(Arc(places["a"], 1.3, 1.3, theta1=0, theta2=np.degrees(np.arctan2(1.1, -0.8)),
                          edgecolor=PALETTE[1]))
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
    radial.set(xlabel="distance / Å", ylabel="radial basis",
               title=f"{shown} of {num_radial} Gaussians times the envelope")
    radial.legend(loc="upper right", bbox_to_anchor=(1.05, 1))
    angle = torch.linspace(0, np.pi, 200, dtype=torch.float64)
    curves = legendre(angle.cos(), num_spherical).numpy()
    frame = pd.DataFrame(curves, index=np.degrees(angle.numpy()), columns=[f"l = {n}" for n in range(num_spherical)])
    sns.lineplot(frame, dashes=False, ax=angular)
    angular.set(xlabel="angle / degrees", ylabel="angular basis", title=f"{num_spherical} Legendre functions",
                xticks=range(0, 181, 30))
    sns.move_legend(angular, "center left", bbox_to_anchor=(1, 0.5))
    return figure


def growth(tables: dict[str, pd.DataFrame], ylabel: str = "number", log: bool = True, xlabel: str | None = None):
    """One panel per table (index x, a column per line), one legend for all. Their keys are the labels of the x axes, or
    where all have one ``xlabel``, of whole numbers, titles of panels with one y axis."""
    figure, axes = new_figure(1, len(tables), 9.0, 3.1, sharey=xlabel is not None)
    for axis, (label, table) in zip(axes, tables.items()):
        sns.lineplot(table, dashes=False, markers=["o"] * table.shape[1], legend=table.shape[1] > 1, ax=axis)
        words = {"xlabel": xlabel, "title": label, "xticks": table.index} if xlabel else {"xlabel": label}
        axis.set(ylabel=ylabel, **words)
    for axis in axes:  # when all lines are drawn: panels may have one y axis
        if log:
            log_axis(axis, "y")
        else:
            axis.set_ylim(0)
    return legend_below(figure, axes)


def around_the_loop(angle: np.ndarray, curves: dict[str, np.ndarray]):
    """Energies in eV over a torsion that ends where it began."""
    figure, (axis,) = new_figure(width=6.5, height=3.0)
    sns.lineplot(pd.DataFrame(curves, index=angle), ax=axis)
    axis.set(xlabel="torsion C-C-O-H turned by / degrees", ylabel="energy / eV", xticks=range(0, 361, 60))
    sns.move_legend(axis, "center left", bbox_to_anchor=(1, 0.5))
    return figure
