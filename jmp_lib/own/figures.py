"""Figures of notebook 13: learning curves, ways side by side, parity, errors by element and by size."""

from __future__ import annotations

import numpy as np

from jmp_lib.own.evaluation import absolute_errors, errors_by_element, true_test
from jmp_lib.results.style import PALETTE, grid, log_axis, new_figure

COLOURS = {"pre-trained": "#0072B2", "from scratch": "#D55E00", "linear composition": "#009E73", "mean": "#999999"}
MARKERS = {"pre-trained": "D", "from scratch": "s"}


def learning_curves(data, records: list[dict]):
    """Validation MAE over updates, a panel per property, a line per arm and seed."""
    figure, axes = grid(len(data.properties), panel_height=2.6)
    for axis, name in zip(axes, data.properties):
        for record in records:
            rows = [(h["step"], h[f"val_{name}"]) for h in record["history"]]
            known = axis.get_legend_handles_labels()[1]
            axis.plot(*zip(*rows), color=COLOURS[record["arm"]], marker=MARKERS[record["arm"]],
                      label=record["arm"] if record["arm"] not in known else None)
        axis.set(xlabel="update", ylabel=f"validation MAE / {data.units[name]}", title=name)
        log_axis(axis, "y")
        axis.legend()
    return figure


def side_by_side(data, table):
    """Test MAE of every way with its 95 % interval, a panel per property."""
    figure, axes = grid(len(data.properties), columns=2, panel_height=2.0, width=14.0)
    for axis, name in zip(axes, data.properties):
        rows = table[table["property"] == name].reset_index(drop=True)
        low, high = rows["MAE"] - rows["95 % from"], rows["95 % to"] - rows["MAE"]
        axis.barh(rows.index, rows["MAE"], color=[COLOURS[w] for w in rows["way"]],
                  xerr=np.clip([low, high], 0, None), capsize=3)
        axis.set_yticks(rows.index, rows["way"])
        axis.invert_yaxis()
        axis.set(xlabel=f"test MAE / {data.units[name]}, bars: 95 % of the bootstrap", title=name)
    return figure


def parity(data, split, found: dict, ways=("from scratch", "pre-trained")):
    """Predicted against true values of the test part, a panel per property."""
    figure, axes = grid(len(data.properties), columns=3, panel_height=3.0, width=13.0)
    true = true_test(data, split)
    for axis, name in zip(axes, data.properties):
        for way in ways:
            axis.plot(true[name].ravel(), found[way][name].ravel(), MARKERS[way], color=COLOURS[way], markersize=3.5,
                      alpha=0.6, linewidth=0, label=way, rasterized=True)
        ends = [true[name].min(), true[name].max()]
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(xlabel=f"label / {data.units[name]}", ylabel=f"predicted / {data.units[name]}", title=name)
        axis.legend()
    return figure


def by_element_and_size(data, split, values: dict):
    """Left: test MAE by element (with counts); right: error of each test structure over its number of atoms."""
    table, name = errors_by_element(data, split, values), data.properties[-1]
    figure, (left, right) = new_figure(1, 2, width=max(8.0, 3.5 + 0.22 * len(table)), height=3.0,
                                       width_ratios=[max(1.0, len(table) / 14), 1.0])
    left.bar(table["element"], table["MAE"], color=PALETTE[0])
    left.set(ylabel=f"test MAE of {name} / {data.units[name]}", xlabel="element")
    left.tick_params(axis="x", labelsize=7 if len(table) < 25 else 5, rotation=0 if len(table) < 25 else 90)
    natoms = data.structures.natoms[split.test]
    errors = absolute_errors(values[name], true_test(data, split)[name], natoms)[:, 0]
    right.scatter(natoms, errors, s=14, alpha=0.6, linewidth=0, color=PALETTE[0])
    right.set(xlabel="atoms of the structure", ylabel=f"its absolute error / {data.units[name]}")
    return figure
