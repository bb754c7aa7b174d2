"""Figures of notebook 14: learning curves, ways side by side, parity, errors by element and by size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from jmp_lib.own.evaluation import errors_by_element, true_test
from jmp_lib.results.style import PALETTE, axis_label, grid, log_axis, new_figure
from jmp_lib.train.losses import structure_errors

COLOURS = {"pre-trained": "#0072B2", "from scratch": "#D55E00", "linear composition": "#009E73", "mean": "#999999",
           "before fine-tuning": "#56B4E9", "labels": "#000000"}
MARKERS = {"pre-trained": "D", "from scratch": "s", "before fine-tuning": "^", "labels": "o"}


def learning_curves(data, records: list[dict]):
    """Validation MAE over updates, a panel per property, a line per arm and seed."""
    rows = pd.DataFrame([{"arm": r["arm"], "seed": r["seed"], **point} for r in records for point in r["history"]])
    figure, axes = grid(len(data.properties), panel_height=2.6)
    for axis, name in zip(axes, data.properties):
        sns.lineplot(rows, x="step", y=f"val_{name}", hue="arm", style="arm", units="seed", estimator=None, dashes=False,
                     palette=COLOURS, markers=MARKERS, ax=axis)
        axis.set(xlabel="update", ylabel=axis_label("validation MAE", data.units[name]), title=name)
        axis.legend(title=None)
        log_axis(axis, "y")
    return figure


def side_by_side(data, table):
    """Test MAE of every way with its 95 % interval, a panel per property."""
    figure, axes = grid(len(data.properties), columns=2, panel_height=2.0, width=14.0)
    for axis, name in zip(axes, data.properties):
        rows = table[table["property"] == name].reset_index(drop=True)
        low, high = rows["MAE"] - rows["95 % from"], rows["95 % to"] - rows["MAE"]
        sns.barplot(rows, x="MAE", y="way", hue="way", palette=COLOURS, saturation=1, legend=False, ax=axis)
        axis.errorbar(rows["MAE"], rows.index, xerr=np.clip([low, high], 0, None), fmt="none", ecolor="black", capsize=3)
        axis.set(xlabel=f"{axis_label('test MAE', data.units[name])}, bars: 95 % of the bootstrap", ylabel="", title=name)
    return figure


def parity(data, split, found: dict, ways=("from scratch", "pre-trained")):
    """Predicted against true values of the test part, a panel per property."""
    figure, axes = grid(len(data.properties), columns=3, panel_height=3.0, width=13.0)
    true = true_test(data, split)
    for axis, name in zip(axes, data.properties):
        label, unit = true[name].ravel(), data.units[name]
        for way in ways:
            sns.scatterplot(x=label, y=found[way][name].ravel(), marker=MARKERS[way], color=COLOURS[way], s=14, alpha=0.6,
                            linewidth=0, label=way, rasterized=True, ax=axis)
        axis.plot([label.min(), label.max()], [label.min(), label.max()], color="black", linewidth=0.8)
        axis.set(xlabel=axis_label("label", unit), ylabel=axis_label("predicted", unit), title=name)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    return figure


def drift(table):
    """Total energy over time in dynamics without a thermostat, a line per network (``use.dynamics``)."""
    figure, (axis,) = new_figure(width=6.5, height=2.8)
    sns.lineplot(table, x="time / ps", y="drift / meV per atom", hue="network", palette=COLOURS, errorbar=None, ax=axis)
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set(ylabel="total energy less the first\n/ meV per atom")
    axis.legend(title=None)
    return figure


def equation_of_state(table):
    """Energy over volume, less the lowest of each line, a line per network (``use.equation_of_state``)."""
    figure, (axis,) = new_figure(width=6.5, height=2.8)
    lowest = table.groupby("network")["energy / eV per atom"].transform("min")
    sns.lineplot(table.assign(above=1000 * (table["energy / eV per atom"] - lowest)), x="volume / Å³ per atom", y="above", hue="network",
                 style="network", palette=COLOURS, markers=MARKERS, dashes=False, errorbar=None, ax=axis)
    axis.set(ylabel="energy above the lowest\n/ meV per atom")
    axis.legend(title=None)
    return figure


def by_element_and_size(data, split, values: dict):
    """Left: test MAE by element; right: error of each test structure over its number of atoms, or, where all have the same number,
    over its first label."""
    table, name = errors_by_element(data, split, values), data.properties[-1]
    figure, (left, right) = new_figure(1, 2, width=max(8.0, 3.5 + 0.22 * len(table)), height=3.2,
                                       width_ratios=[max(1.0, len(table) / 14), 1.0])
    sns.barplot(table, x="element", y="MAE", color=PALETTE[0], saturation=1, ax=left)
    left.set(ylabel=axis_label(f"test MAE of {name}", data.units[name]), xlabel="element")
    left.tick_params(axis="x", labelsize=8, rotation=0 if len(table) < 18 else 90)
    natoms, true, first = data.structures.natoms[split.test], true_test(data, split), data.properties[0]
    errors, sized = structure_errors(values[name], true[name], natoms)[:, 0], len(np.unique(natoms)) > 1
    sns.scatterplot(x=natoms if sized else true[first].ravel(), y=errors, s=14, alpha=0.6, linewidth=0, color=PALETTE[0], ax=right)
    right.xaxis.set_major_locator(MaxNLocator(5, integer=sized))
    right.set(xlabel="atoms of the structure" if sized else axis_label(f"{first} of the structure", data.units[first]),
              ylabel=axis_label("its absolute error", data.units[name]))
    return figure
