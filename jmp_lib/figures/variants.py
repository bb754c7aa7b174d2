"""Figures of the variants of a profile; the tables are those of :mod:`jmp_lib.results.variants`."""

from __future__ import annotations

import numpy as np

from .style import (
    ARM_COLOURS,
    ARM_MARKERS,
    ARMS,
    PALETTE,
    grid,
    legend_below,
    log_axis,
    new_figure,
    rows_tight,
    short_task,
    unit_text,
)

PAIR_COLOURS = {"JMP-S over GN-OC-S": ARM_COLOURS["JMP-S"], "JMP-L over GN-OC-L": ARM_COLOURS["JMP-L"]}


def by_training_size(table):
    """Test error against number of training structures, one panel per task, one line per arm; both axes logarithmic."""
    tasks = list(dict.fromkeys(table["task"]))
    figure, axes = grid(max(len(tasks), 1), columns=4, panel_height=2.4)
    for axis, task in zip(axes, tasks):
        rows = table[table["task"] == task]
        for arm in [a for a in ARMS if a in rows]:
            axis.plot(rows["n_train"], rows[arm], color=ARM_COLOURS[arm], marker=ARM_MARKERS[arm], label=arm)
        axis.set(title=short_task(task), xlabel="training structures")
        axis.set_ylabel(f"test MAE / {unit_text(rows['unit'].iloc[0])}", fontsize=7)
        log_axis(axis, "x")
        log_axis(axis, "y")
        axis.set_xticks(rows["n_train"], [str(n) for n in rows["n_train"]])
        axis.minorticks_off()
    if tasks:
        legend_below(figure, axes[0])
    else:
        axes[0].set_title("no variants with fewer training structures")
    return figure


def gain_spread(table):
    """Relative improvement by pre-training, mean over seeds with lowest and highest as a line; one row per task."""
    tasks = list(dict.fromkeys(table["task"]))
    figure, (axis,) = new_figure(width=6.5, height=0.4 * max(len(tasks), 1) + 1.3)
    for shift, (name, rows) in zip((-0.13, 0.13), table.groupby("comparison", sort=False)):
        places = np.array([tasks.index(task) for task in rows["task"]]) + shift
        axis.hlines(places, rows["lowest"], rows["highest"], color=PAIR_COLOURS[name], linewidth=2)
        axis.plot(rows["mean"], places, "o", color=PAIR_COLOURS[name], label=f"{name}, {rows['seeds'].max()} seeds")
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(tasks)), tasks)
    axis.set_xlabel("relative improvement / % (right is better)")
    rows_tight(axis, len(tasks))
    if len(table):
        legend_below(figure, axis)
    else:
        axis.set_title("no variants with other seeds")
    return figure


def ablations(table):
    """Relative improvement over training from scratch by pre-training recipe, one group of bars per task."""
    shown = table[~table["variant"].str.startswith("GN-OC")]
    tasks, variants = list(dict.fromkeys(shown["task"])), list(dict.fromkeys(shown["variant"]))
    figure, (axis,) = new_figure(width=6.5, height=0.14 * max(len(shown), 1) + 1.6)
    width = 0.8 / max(len(variants), 1)
    for place, variant in enumerate(variants):
        rows = shown[shown["variant"] == variant]
        where = np.array([tasks.index(task) for task in rows["task"]]) + (place - (len(variants) - 1) / 2) * width
        name = "whole recipe" if variant == "base" else variant
        axis.barh(where, rows["gain"], width * 0.9, color=PALETTE[place % len(PALETTE)], label=name)
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(tasks)), tasks)
    axis.set_xlabel("relative improvement over training from scratch / % (right is better)")
    rows_tight(axis, len(tasks))
    if variants:
        legend_below(figure, axis)
    else:
        axis.set_title("no ablations")
    return figure
