"""Figures of the results: learning curves, parity, arms side by side, gains, scaling, speed-up.

``records`` are the dictionaries that pre-training and fine-tuning write (``jmp_lib.records``);
``table`` is the data frame of all tasks and arms (``jmp_lib.results.tables``).
"""

from __future__ import annotations

import numpy as np

from .style import (
    ARM_COLOURS,
    ARM_MARKERS,
    ARMS,
    PALETTE,
    SET_MARKERS,
    grid,
    legend_below,
    log_axis,
    new_figure,
    rows_tight,
    short_task,
    unit_text,
)

PAPER = "paper (published data)"
PAPER_COLOUR = "#999999"


def learning_curves(records: list[dict]):
    """Validation metric over optimiser steps, one panel per task, one line per arm."""
    tasks = list(dict.fromkeys(r["task"] for r in records))
    figure, axes = grid(len(tasks))
    for axis, task in zip(axes, tasks):
        for record in _in_order(records, task):
            steps = [h["step"] for h in record["history"] if h.get("val_metric") is not None]
            values = [h["val_metric"] for h in record["history"] if h.get("val_metric") is not None]
            axis.plot(steps, values, color=ARM_COLOURS[record["arm"]], marker=ARM_MARKERS[record["arm"]],
                      markevery=max(1, len(steps) // 6), label=record["arm"])
            axis.set_ylabel(f"validation MAE / {unit_text(record['unit'])}", fontsize=7)
        axis.set(title=short_task(task), xlabel="optimiser step")
        log_axis(axis, "y")
    _one_legend(figure, axes)
    return figure


def parity(records: list[dict], predictions: dict, arm: str = "JMP-L"):
    """Predicted against true values on the test part, one panel per task.

    ``predictions`` {task: (true, predicted)} in the unit of the record (forces: all components).
    """
    shown = [r for r in records if r["arm"] == arm and r["task"] in predictions]
    figure, axes = grid(max(len(shown), 1))
    if not shown:
        axes[0].set_title(f"no predictions of {arm} here")
    for axis, record in zip(axes, shown):
        true, predicted = (np.asarray(v, float).ravel() for v in predictions[record["task"]])
        thin = slice(None, None, max(1, true.size // 4000))
        axis.scatter(true[thin], predicted[thin], s=4 if true.size > 300 else 16, alpha=0.5, linewidth=0,
                     color=ARM_COLOURS[arm], rasterized=True)
        low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        unit = unit_text(record["unit"])
        axis.set_title(f"{short_task(record['task'])}\nMAE {record['value']:.3g} {unit}", fontsize=8)
        axis.set_xlabel(f"label / {unit}", fontsize=7)
        axis.set_ylabel(f"{arm} / {unit}", fontsize=7)
    return figure


def arms_by_task(table):
    """Test error of every arm relative to the first one (GN-OC-S when run), one row per task; left is better."""
    wide = table.pivot_table(index="task", columns="arm", values="value", sort=False, observed=True)
    first = next(arm for arm in ARMS if arm in wide)
    figure, (axis,) = new_figure(width=6.5, height=0.22 * len(wide) + 1.2)
    places = np.arange(len(wide))
    ratios = wide.div(wide[first], axis=0)
    axis.hlines(places, ratios.min(axis=1), ratios.max(axis=1), color="#bbbbbb", linewidth=1)
    for arm in [a for a in ARMS if a in ratios]:
        axis.plot(ratios[arm], places, ARM_MARKERS[arm], color=ARM_COLOURS[arm], label=arm)
    axis.axvline(1.0, color="black", linewidth=0.6)
    axis.set_yticks(places, wide.index)
    rows_tight(axis, len(wide))
    axis.set_xlabel(f"test error relative to {first} (no unit; left is better)")
    log_axis(axis, "x")
    legend_below(figure, axis)
    return figure


def gains(own, published, title: str = "JMP-L over GN-OC-L"):
    """Relative improvement per task in %, own beside published; both are Series indexed by task id.

    The name of ``own`` says which data its values are from, as :func:`jmp_lib.views.gains` sets it. The published bars
    are left out where all of them are blank (smoke profile).
    """
    figure, (axis,) = new_figure(width=6.5, height=0.24 * max(len(own), 1) + 1.4)
    places, ours, theirs = np.arange(len(own)), own.to_numpy(float), published.reindex(own.index).to_numpy(float)
    axis.barh(places - 0.2, ours, 0.4, color=PALETTE[0], label=own.name or "this workbook")
    if not np.isnan(theirs).all():
        axis.barh(places + 0.2, theirs, 0.4, color=PAPER_COLOUR, label=PAPER)
    axis.set_yticks(places, own.index)
    axis.axvline(0.0, color="black", linewidth=0.8)
    rows_tight(axis, len(own))
    lowest = np.nanmin(np.concatenate([ours, theirs, [0.0]]))
    axis.set(xlabel="relative improvement / % (right is better)", title=title, xlim=(max(lowest * 1.1, -150), 105))
    legend_below(figure, axis)
    return figure


def scaling(table):
    """Mean relative improvement over all tasks, own beside published; ``table`` of results.tables.scaling_table."""
    means = table[table["family"] == "all"]
    figure, (axis,) = new_figure(width=6.5, height=0.45 * len(means) + 1.2)
    places = np.arange(len(means))
    for offset, column, colour, label in ((-0.2, "own_mean_gain_percent", PALETTE[0], "this workbook"),
                                          (0.2, "published_mean_gain_percent", PAPER_COLOUR, PAPER)):
        lengths = means[column].to_numpy(float)
        bars = axis.barh(places + offset, np.nan_to_num(lengths), 0.4, color=colour, label=label)
        axis.bar_label(bars, ["none" if np.isnan(v) else f"{v:+.1f}" for v in lengths], padding=3, fontsize=7)
    axis.set_yticks(places, means["comparison"])
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.margins(x=0.15)
    rows_tight(axis, len(means))
    axis.set_xlabel("mean relative improvement over all tasks / % (right is better)")
    legend_below(figure, axis)
    return figure


def speedup(ratios, total: float, published: float = 12.0):
    """Time ratio from scratch / fine-tuning per task (Series by task id, NaN: never reached), and of the totals."""
    figure, (axis,) = new_figure(width=6.5, height=0.2 * max(len(ratios), 4) + 1.2)
    lengths = ratios.to_numpy(float)
    places = np.arange(len(lengths))
    hit = ~np.isnan(lengths)
    axis.barh(places[hit], lengths[hit] - 1.0, left=1.0, color=PALETTE[0])
    for place in places[~hit]:
        axis.annotate("not reached", (1.0, place), (3, 0), textcoords="offset points", va="center", fontsize=7,
                      zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axis.set_yticks(places, ratios.index)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.axvline(published, color="#777777", linestyle="--", label=f"{PAPER}, totals: {published:g}x")
    if np.isfinite(total):
        axis.axvline(total, color=PALETTE[5], label=f"this workbook, totals: {total:.1f}x")
    rows_tight(axis, len(lengths))
    left, right = 0.8 * np.min(lengths[hit], initial=1.0), 1.2 * np.max(lengths[hit], initial=1.0)
    axis.set(xlabel="time from scratch / time of fine-tuning to the same validation error (no unit)",
             xlim=(min(0.5, left), max(20.0, right)))
    log_axis(axis, "x")
    legend_below(figure, axis)
    return figure


def pretraining_curves(records: list[dict]):
    """Validation errors per pre-training set over steps; one column per model size, energies above forces."""
    figure, axes = new_figure(2, len(records), width=4.2 * len(records) + 1.0, height=5.0)
    for column, record in enumerate(records):
        steps = [h["step"] for h in record["history"]]
        for row, kind in ((0, "energy"), (1, "force")):
            axis = axes[row * len(records) + column]
            for number, name in enumerate(record["data"]):
                axis.plot(steps, [h[f"{name}_{kind}_mae"] for h in record["history"]], color=PALETTE[number],
                          marker=SET_MARKERS[number], label=name)
            axis.set(xlabel="optimiser step",
                     ylabel="energy MAE / eV" if kind == "energy" else "force MAE / eV Å$^{-1}$")
            log_axis(axis, "y")
        axes[column].set_title(f"{record['size']} ({record['model']['n_parameters']:,} parameters)")
    _one_legend(figure, axes)
    return figure


def pretraining_loss(records: list[dict]):
    """Mean training loss between validations and learning rate over steps, one line per model size."""
    figure, (left, right) = new_figure(1, 2, width=8.0, height=2.8)
    for record in records:
        arm = {"small": "JMP-S", "large": "JMP-L"}[record["size"]]
        steps = [h["step"] for h in record["history"]]
        for axis, key in ((left, "train_loss"), (right, "lr")):
            axis.plot(steps, [h[key] for h in record["history"]], color=ARM_COLOURS[arm], marker=ARM_MARKERS[arm],
                      label=record["size"])
            axis.set_xlabel("optimiser step")
    left.set_ylabel("training loss (no unit)")
    log_axis(left, "y")
    right.set_ylabel("learning rate (no unit)")
    left.legend()
    return figure


def _in_order(records: list[dict], task: str) -> list[dict]:
    return sorted((r for r in records if r["task"] == task), key=lambda r: ARMS.index(r["arm"]))


def _one_legend(figure, axes) -> None:
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=max(1, len(handles)))
