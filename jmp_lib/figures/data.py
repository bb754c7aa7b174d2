"""Figures of the data: elements, sizes, labels, structures, embeddings."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.visualize.plot import plot_atoms
from matplotlib.colors import LogNorm

from .style import DOMAIN_COLOURS, PALETTE, SET_MARKERS, grid, log_axis, new_figure


def element_heatmap(sets: dict):
    """Share of the structures of each set that hold each element, in %; ``sets`` {name: structures}."""
    shares = {}
    for name, structures in sets.items():
        counts = np.zeros(119)
        for structure in structures:
            counts[np.unique(np.asarray(structure["atomic_numbers"]))] += 1
        shares[name] = 100 * counts / max(len(structures), 1)
    used = np.flatnonzero(np.sum(list(shares.values()), axis=0))
    figure, (axis,) = new_figure(width=max(6.0, 0.16 * len(used) + 2.5), height=0.24 * len(shares) + 1.1)
    values = np.array([shares[n][used] for n in shares])
    image = axis.imshow(np.where(values > 0, values, np.nan), aspect="auto", cmap="cividis", norm=LogNorm(0.5, 100))
    axis.set_yticks(range(len(shares)), list(shares))
    axis.set_xticks(range(len(used)), [chemical_symbols[z] for z in used], fontsize=6, rotation=90)
    axis.set_xlabel("element")
    figure.colorbar(image, ax=axis, label="structures with it / %\n(white: none)", format="{x:g}")
    return figure


def atoms_per_structure(sets: dict):
    """Box plot of the number of atoms per structure of each set (whiskers: 5th and 95th percentile)."""
    figure, (axis,) = new_figure(width=7.0, height=0.24 * len(sets) + 1.0)
    sizes = [[len(s["atomic_numbers"]) for s in structures] for structures in sets.values()]
    axis.boxplot(sizes, orientation="horizontal", tick_labels=list(sets), whis=(5, 95), showfliers=False,
                 patch_artist=True, boxprops={"facecolor": PALETTE[4]}, medianprops={"color": "black"})
    axis.set_xlabel("atoms per structure")
    log_axis(axis, "x")
    axis.invert_yaxis()
    return figure


def label_distributions(sets: dict):
    """Energy per atom after subtracting fitted element energies, and force components, of sets with both labels.

    Both panels show the inner 99 % of the values, so that a few broken bonds do not squeeze the rest.
    """
    figure, (left, right) = new_figure(1, 2, width=8.0, height=2.9)
    for colour, (name, structures) in zip(PALETTE, sets.items()):
        counts = np.array([np.bincount(np.asarray(s["atomic_numbers"]), minlength=119) for s in structures], float)
        total = np.array([float(s["energy"]) for s in structures])
        forces = np.concatenate([np.asarray(s["forces"]).ravel() for s in structures])
        elements = int(counts.any(axis=0).sum())
        enough = len(structures) > 2 * elements  # else the element energies fit every energy exactly
        if enough:
            energy = (total - counts @ np.linalg.lstsq(counts, total, rcond=None)[0]) / counts.sum(1)
            _inner_histogram(left, energy, colour)
        label = name if enough else f"{name} (forces only: {len(structures)} structures, {elements} elements)"
        _inner_histogram(right, forces, colour, label)
    left.set_xlabel("(energy − fitted element energies) / atoms, inner 99 % / eV")
    right.set_xlabel("force component, inner 99 % / eV Å$^{-1}$")
    for axis in (left, right):
        axis.set_ylabel("density")
        log_axis(axis, "y")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _inner_histogram(axis, values, colour, label=None) -> None:
    """Density of the 99 % of ``values`` that are smallest in size."""
    inner = values[np.abs(values) <= np.percentile(np.abs(values), 99)]
    axis.hist(inner, bins=40, histtype="step", density=True, color=colour, label=label)


def neighbour_counts(table):
    """Box plot of the neighbours of an atom within the official cutoff (whiskers: 5th and 95th percentile), one row for
    each set of ``table`` (columns set, counts, cutoff / Å, limit); diamonds: limit of the main graph.
    """
    figure, (axis,) = new_figure(width=7.0, height=0.26 * len(table) + 1.2)
    labels = [f"{name} ({cutoff:g} Å)" for name, cutoff in zip(table["set"], table["cutoff / Å"])]
    axis.boxplot(list(table["counts"]), orientation="horizontal", tick_labels=labels, whis=(5, 95), showfliers=False,
                 patch_artist=True, boxprops={"facecolor": PALETTE[4]}, medianprops={"color": "black"})
    axis.scatter(table["limit"], range(1, len(table) + 1), marker="D", color=PALETTE[5], zorder=3,
                 label="limit of the main graph")
    axis.set_xlabel("neighbours of an atom within the official cutoff")
    log_axis(axis, "x")
    axis.invert_yaxis()
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def target_distributions(sets: dict, units: dict):
    """One histogram per property: ``sets`` {task: values}, ``units`` {task: unit}."""
    figure, axes = grid(len(sets), panel_height=1.8)
    for axis, (name, values) in zip(axes, sets.items()):
        axis.hist(np.asarray(values, float), bins=40, color=PALETTE[0])
        axis.set_title(name)
        axis.set_xlabel(units.get(name, ""))
    return figure


def pictures(structures: dict):
    """One drawing per structure ({title: structure}): molecules face on, periodic ones with their cell."""
    figure, axes = grid(len(structures), columns=5, panel_height=2.0)
    for axis, (title, structure) in zip(axes, structures.items()):
        periodic = bool(np.any(structure["pbc"]))
        atoms = Atoms(numbers=np.asarray(structure["atomic_numbers"]), positions=np.asarray(structure["pos"]),
                      cell=np.asarray(structure["cell"]) if periodic else None, pbc=np.asarray(structure["pbc"]))
        if not periodic:  # largest extents in the plane of the picture
            centred = atoms.positions - atoms.positions.mean(0)
            atoms.positions = centred @ np.linalg.svd(centred)[2].T
        plot_atoms(atoms, axis, rotation="-75x,15y" if periodic else "", radii=0.6 if periodic else 0.9,
                   show_unit_cell=2 if periodic else 0)
        axis.set_title(f"{title}\n{atoms.get_chemical_formula()}", fontsize=7)
        axis.set_axis_off()
    return figure


def embedding_scatter(points, by: str, title: str = ""):
    """t-SNE points coloured by ``by`` ("set" or "domain"); ``points`` has columns x, y, set, domain."""
    figure, (axis,) = new_figure(width=7.6, height=5.0)
    groups = sorted(points[by].unique()) if by == "set" else [d for d in DOMAIN_COLOURS if d in set(points[by])]
    for number, group in enumerate(groups):
        chosen = points[points[by] == group]
        colour = DOMAIN_COLOURS[group] if by == "domain" else PALETTE[number % len(PALETTE)]
        axis.scatter(chosen["x"], chosen["y"], s=9, alpha=0.7, linewidth=0, color=colour, label=group,
                     marker=SET_MARKERS[number % len(SET_MARKERS)])
    axis.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", title=title, xticks=[], yticks=[])
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, title=by)
    return figure
