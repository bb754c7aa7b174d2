"""Figures of the notebooks, drawn by seaborn from tidy tables: data, learning curves, parity, arms, gains, variants.

``records`` are the dictionaries that pre-training and fine-tuning write (``jmp_lib.records``), ``sets`` are
{name: structures}; every function returns a matplotlib figure, which ``jmp_lib.results.style.save`` writes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from ase import Atoms
from ase.data import chemical_symbols
from ase.visualize.plot import plot_atoms
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from jmp_lib.data.normalise import element_counts, fit_linear_reference
from jmp_lib.data.tasks import get_task
from jmp_lib.facts import ARMS
from jmp_lib.results import style
from jmp_lib.results.style import ARM_COLOURS, PALETTE, axis_label, grid, legend_below, log_axis, new_figure, short_task
from jmp_lib.results.values import PAPER

PAPER_COLOUR = "#999999"
GAIN = "relative improvement / % (right is better)"
BOX = {"orient": "h", "whis": (5, 95), "showfliers": False, "color": PALETTE[4], "linecolor": "black", "linewidth": 0.9}


# results

def learning_curves(records: list[dict]):
    """Validation metric over optimiser steps, one panel per task, one line per arm."""
    table = _history(records, "task", "arm", "unit").dropna(subset="val_metric")
    every = max(1, table.groupby(["task", "arm"]).size().max() // 6) if len(table) else 1
    return _panels(table, "step", "val_metric", "optimiser step", "validation MAE", markevery=every)


def parity(records: list[dict], predictions: dict, arm: str = "JMP-L", compositions: dict | None = None):
    """Predicted against true values of the test part, one panel per task, both axes alike.

    ``predictions`` {task: (true, predicted)} in the unit of the record (forces: all components); ``compositions``
    {task: (S,)} is what both are shown without (:func:`jmp_lib.results.views.composition_parts`).
    """
    shown = [r for r in records if r["arm"] == arm and r["task"] in predictions]
    figure, axes = grid(len(shown), panel_height=2.4)
    if not shown:
        axes[0].set_title(f"no predictions of {arm} here")
    for axis, record in zip(axes, shown):
        part = (compositions or {}).get(record["task"], 0.0)
        true, predicted = (np.asarray(v, float).ravel() - part for v in predictions[record["task"]])
        less = " less composition" * (np.ndim(part) > 0)
        if np.ndim(part) == 0 and abs(true.mean()) > 2 * np.ptp(true):  # numbers all alike say nothing on an axis
            true, predicted, less = true - true.mean(), predicted - true.mean(), " less the mean"
        thin = slice(None, None, max(1, true.size // 4000))
        sns.scatterplot(x=true[thin], y=predicted[thin], s=4 if true.size > 300 else 16, alpha=0.5, linewidth=0,
                        color=ARM_COLOURS[arm], rasterized=True, ax=axis)
        ends = min(true.min(), predicted.min()), max(true.max(), predicted.max())
        margin = 0.04 * (ends[1] - ends[0])
        axis.set(xlim=(ends[0] - margin, ends[1] + margin), ylim=(ends[0] - margin, ends[1] + margin), box_aspect=1)
        axis.axline((ends[0], ends[0]), slope=1, color="black", linewidth=0.8)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(4, min_n_ticks=3))
        axis.tick_params(labelsize=7)  # four numbers of five digits side by side
        axis.set_title(f"{short_task(record['task'])}\nMAE {style.significant(record['value'])} "
                       f"{style.unit_text(record['unit'])}", fontsize=8.5)
        axis.set_xlabel(axis_label(f"label{less}", record["unit"]), fontsize=8)
        axis.set_ylabel(axis_label(f"{arm}{less}", record["unit"]).replace(" / ", "\n/ " if less else " / "),
                        fontsize=8)
    return figure


def arms_by_task(table: pd.DataFrame):
    """Test error of every arm relative to the first one (GN-OC-S when run), one row per task; left is better."""
    wide = table.pivot_table(index="task", columns="arm", values="value", sort=False, observed=True)
    first = next(arm for arm in ARMS if arm in wide)
    ratios = wide.div(wide[first], axis=0)
    figure, axis = _rows_figure(len(wide), 0.22)
    axis.hlines(ratios.index, ratios.min(axis=1), ratios.max(axis=1), color="#bbbbbb", linewidth=1)
    rows = ratios.melt(ignore_index=False, value_name="ratio").reset_index()
    sns.scatterplot(rows, x="ratio", y="task", s=26, linewidth=0, **_arms_of(rows), ax=axis, zorder=2)
    return _finished(axis, len(wide), f"test error relative to {first} (no unit; left is better)", at=1.0, log=True)


def gains(table: pd.DataFrame, title: str = "JMP-L over GN-OC-L"):
    """Relative improvement per task in %, own with its interval beside published; ``table`` as of ``views.gains``.

    The published bars are left out where all of them are blank (smoke profile).
    """
    ours, theirs = table.columns[0], table[PAPER]
    shown = [ours, *([PAPER] if theirs.notna().any() else [])]
    rows = table.rename_axis("task").reset_index().melt(["task", "from", "to"], shown, "of", "gain")
    figure, axis = _rows_figure(len(table), 0.24, 1.4)
    _bars(axis, rows, "task", "of", {ours: PALETTE[0], PAPER: PAPER_COLOUR})
    _finished(axis, len(table), GAIN)
    axis.set(title=title, xlim=(max(1.1 * np.nanmin([0.0, *table[ours], *table["from"], *theirs]), -150), 105))
    return figure


def scaling(table: pd.DataFrame):
    """Mean relative improvement over all tasks, own with its interval beside published; ``table`` of
    results.tables.scaling_table."""
    names = {"own_mean_gain_percent": "this workbook", "published_mean_gain_percent": PAPER,
             "own_mean_gain_from": "from", "own_mean_gain_to": "to"}
    means = table[table["family"] == "all"].rename(columns=names)
    colours = {"this workbook": PALETTE[0], PAPER: PAPER_COLOUR}
    rows = means.melt(["comparison", "from", "to"], list(colours), "of", "gain").fillna({"gain": 0.0})
    figure, axis = _rows_figure(len(means), 0.45, 1.2)
    _bars(axis, rows, "comparison", "of", colours)
    for bars, of, ends in zip(axis.containers, colours, (means["to"], means[PAPER])):
        for bar, value, end in zip(bars, means[of], ends.fillna(means[of]).fillna(0.0)):
            axis.annotate("none" if np.isnan(value) else f"{value:+.1f}",
                          (max(end, 0.0), bar.get_y() + bar.get_height() / 2), (3, 0),
                          textcoords="offset points", va="center", fontsize=7)
    axis.margins(x=0.15)
    return _finished(axis, len(means), f"mean {GAIN}".replace("improvement", "improvement over all tasks"))


def large_over_small(table: pd.DataFrame):
    """What a larger network gains on every task, from scratch beside pre-trained; a panel for ours
    and one for the paper.

    ``table`` of ``views.large_over_small``: task, of (from scratch, pre-trained), data, gain, from, to.
    """
    data, tasks = table["data"].unique(), table["task"].nunique()
    figure, axes = new_figure(1, max(len(data), 1), width=9.0, height=0.3 * max(tasks, 1) + 1.3, sharey=True)
    lowest = max(1.05 * np.nanmin([0.0, *table["gain"], *table["from"]]), -150)
    colours = {"from scratch": ARM_COLOURS["GN-OC-L"], "pre-trained": ARM_COLOURS["JMP-L"]}
    for axis, name in zip(axes, data):
        _bars(axis, table[table["data"] == name], "task", "of", colours)
        axis.set(title=name, xlim=(lowest, 100))
        _finished(axis, tasks, GAIN.replace("improvement", "improvement of L over S"), legend=False)
    return legend_below(figure, axes)


def speedup(table: pd.DataFrame, totals: pd.Series, published: float = 12.0):
    """Cost from scratch / cost of fine-tuning until the same validation error by task, in updates and,
    second panel, in time.

    table: rows of one size of ``speedup_table``; totals: its row of ``speedup_totals``. Updates do not
    depend on the machine.
    """
    figure, axes = new_figure(1, 2, width=9.0, height=0.2 * max(len(table), 4) + 1.25, sharey=True)
    for axis, cost, words in zip(axes, ("steps", "seconds"), ("updates", "time on this machine")):
        ratios, total = table[f"ratio_{cost}"], totals.get(f"ratio_{cost}_all", float("nan"))
        rows = pd.DataFrame({"task": table["task"], "beyond": ratios - 1.0})
        sns.barplot(rows, x="beyond", y="task", left=1.0, color=PALETTE[0], saturation=1,
                    width=0.8, linewidth=0, ax=axis)
        for place in np.flatnonzero(ratios.isna()):
            axis.annotate("not reached", (1.0, place), (3, 0), textcoords="offset points", va="center", fontsize=7,
                          zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axis.axvline(published, color="#777777", linestyle="--", label=f"{PAPER}, totals: {published:g}x")
        if np.isfinite(total):
            axis.axvline(total, color=PALETTE[5], label="this workbook, totals over all tasks")
        axis.set_xlim(np.nanmin([0.5, 0.8 * ratios.min()]), np.nanmax([20.0, 1.2 * ratios.max()]))
        axis.set_title(words + (f", in total {total:.2f}x" if np.isfinite(total) else ""))
        _finished(axis, len(table), f"{words} from scratch / of fine-tuning (no unit)", at=1.0, log=True, legend=False)
    return legend_below(figure, axes)


def pretraining_curves(records: list[dict]):
    """Validation errors per pre-training set over steps, where they are trained; one column per model size,
    energies above forces."""
    figure, axes = new_figure(2, len(records), width=4.2 * len(records) + 1.0, height=5.0)
    for column, record in enumerate(records):
        sets = list(record["data"])
        for row, (kind, unit) in enumerate((("energy", "eV"), ("force", "eV/A"))):
            names = {f"{name}_{kind}_mae": name for name in sets if record["loss_scales"][name][kind]}
            rows = _history([record])[["step", *names]].rename(columns=names).melt("step", None, "set", "MAE")
            axis = axes[row * len(records) + column]
            _lines(axis, rows, "step", "MAE", hue="set", style="set", palette=dict(zip(sets, PALETTE)),
                   markers=dict(zip(sets, style.SET_MARKERS)))
            axis.set(xlabel="optimiser step", ylabel=axis_label(f"{kind} MAE", unit))
            log_axis(axis, "y")
        axes[column].set_title(f"{record['size']} ({record['model']['n_parameters']:,} parameters)")
    return legend_below(figure, axes)


def pretraining_loss(records: list[dict]):
    """Mean training loss between validations and learning rate over steps, one line per model size."""
    figure, axes = new_figure(1, 2, width=8.0, height=2.8)
    table = _history([{**r, "arm": {"small": "JMP-S", "large": "JMP-L"}[r["size"]]} for r in records], "arm", "size")
    for axis, key, words in zip(axes, ("train_loss", "lr"), ("training loss", "learning rate")):
        _lines(axis, table, "step", key, **_arms_of(table))
        axis.set(xlabel="optimiser step", ylabel=f"{words} (no unit)")
    log_axis(axes[0], "y")
    return legend_below(figure, axes)


def live_pretraining(losses: pd.DataFrame, errors: pd.DataFrame):
    """The first updates, trained live, over the recorded run: training loss above, held-out force
    errors below, by size.

    losses, errors: ``views.live_losses``, ``views.live_errors``.
    """
    sizes, sets = list(losses["size"].unique()), list(errors["set"].unique())
    runs = {"recorded": {"linestyle": "--", "linewidth": 1.0}, "live": {"linestyle": "-", "linewidth": 2.2}}
    figure, axes = new_figure(2, len(sizes), width=4.2 * len(sizes) + 1.0, height=5.4)
    for column, size in enumerate(sizes):
        above, below = axes[column], axes[len(sizes) + column]
        for run, line in runs.items():
            loss, error = (part[(part["size"] == size) & (part["run"] == run)] for part in (losses, errors))
            sns.lineplot(loss, x="update", y="loss", color="black", label=run, errorbar=None, ax=above, **line)
            sns.lineplot(error, x="update", y="ratio", hue="set", hue_order=sets, palette=PALETTE[:len(sets)],
                         marker="o", markersize=4, markeredgewidth=0, errorbar=None,
                         legend=run == "live", ax=below, **line)
        below.axhline(1.0, color="black", linewidth=0.8)
        above.set(title=size, xlabel="update", ylabel="training loss (no unit)")
        below.set(xlabel="update", ylabel="held-out force MAE\n(zero forces: 1)")
        for axis in (above, below):
            log_axis(axis, "x"), log_axis(axis, "y")
            axis.set_xlim(*above.get_xlim())
    return legend_below(figure, axes)


# variants of a profile: the tables of jmp_lib.results.variants

def by_training_size(table: pd.DataFrame):
    """Test error against number of training structures, one panel per task, one line per arm; both axes logarithmic."""
    rows = table.melt(["task", "unit", "n_train"], [arm for arm in ARMS if arm in table], "arm", "value")
    figure = _panels(rows, "n_train", "value", "training structures", "test MAE", panel_height=2.4)
    for axis, (_, part) in zip(figure.axes, table.groupby("task", sort=False)):
        log_axis(axis, "x")
        axis.set_xticks(part["n_train"], [str(n) for n in part["n_train"]])
        axis.xaxis.minorticks_off()
    return figure


def shortened(table: pd.DataFrame):
    """Lowest validation error of ever shorter fine-tunings over that of training from scratch with all updates,
    logarithmic: a panel per size, the median of each family with its lowest and highest task; ``table`` of
    ``speedup.shortened``."""
    rows = table.assign(family=[get_task(name).family for name in table["task"]], updates=100 * table["share"])
    figure, axes = new_figure(1, max(rows["size"].nunique(), 1), width=9.0, height=3.0, sharey=True)
    for axis, (size, part) in zip(axes, rows.groupby("size", sort=False)):
        colours = dict(zip(part["family"].unique(), PALETTE))
        sns.pointplot(part, x="updates", y="relative", hue="family", palette=colours, estimator="median",
                      errorbar=("pi", 100), dodge=0.3, markersize=4, linewidth=1.2, err_kws={"linewidth": 1},
                      formatter="{:g}".format, ax=axis)
        axis.axhline(1.0, color="#777777", linewidth=1, linestyle="--", label="as good")
        axis.set(title=f"JMP-{size}", xlabel="updates / % of those from scratch",
                 ylabel="validation error / from scratch")
        log_axis(axis, "y")
    return legend_below(figure, axes)


def gain_spread(table: pd.DataFrame):
    """Relative improvement by pre-training, mean over seeds with lowest and highest as a line; one row per task.

    ``table``: one row per task, comparison and seed (``variants.seed_gains``).
    """
    tasks = table["task"].nunique()
    figure, axis = _rows_figure(tasks, 0.4)
    if tasks:
        seeds = table.groupby(["comparison", "task"]).size().groupby("comparison").max()
        rows = table.assign(of=[f"{name}, {seeds[name]} seeds" for name in table["comparison"]])
        colours = {of: ARM_COLOURS[of[:5]] for of in rows["of"]}
        sns.pointplot(rows, x="gain", y="task", hue="of", palette=colours, errorbar=("pi", 100), linestyle="none",
                      dodge=0.26 if len(colours) > 1 else False, markersize=5, err_kws={"linewidth": 2}, ax=axis)
    return _finished(axis, tasks, GAIN)


def ablations(table: pd.DataFrame):
    """Relative improvement over training from scratch by pre-training recipe, one group of bars per task."""
    shown = table[~table["variant"].str.startswith("GN-OC")].replace({"variant": {"base": "whole recipe"}})
    figure, axis = _rows_figure(len(shown), 0.14, 1.6)
    _bars(axis, shown, "task", "variant", dict(zip(shown["variant"].unique(), PALETTE)))
    return _finished(axis, shown["task"].nunique(),
                     GAIN.replace("improvement", "improvement over training from scratch"))


# data

def element_heatmap(sets: dict):
    """Share of the structures of each set that hold each element, in %; ``sets`` {name: structures}."""
    counts = 100 * pd.DataFrame({name: (element_counts([s["atomic_numbers"] for s in part]) > 0).mean(axis=0)
                                 for name, part in sets.items()}).T
    used = counts.loc[:, counts.any()].rename(columns=dict(enumerate(chemical_symbols)))
    figure, (axis,) = new_figure(width=max(6.0, 0.145 * used.shape[1] + 1.2), height=0.24 * len(used) + 1.5)
    sns.heatmap(used.where(used > 0), cmap="cividis", norm=LogNorm(0.5, 100), xticklabels=True, yticklabels=True,
                ax=axis, cbar_kws={"label": "structures with it / % (white: none)", "format": "{x:g}",
                                   "location": "bottom", "shrink": 0.4})
    axis.tick_params(axis="x", labelsize=6.5, rotation=0, length=0)
    axis.set_xlabel("element")
    return figure


def atoms_per_structure(sets: dict):
    """Box plot of the number of atoms per structure of each set (whiskers: 5th and 95th percentile)."""
    figure, (axis,) = new_figure(width=7.0, height=0.24 * len(sets) + 1.0)
    table = pd.DataFrame([(name, len(s["pos"])) for name, structures in sets.items() for s in structures],
                         columns=["set", "atoms"])
    sns.boxplot(table, x="atoms", y="set", **BOX, ax=axis)
    axis.set(xlabel="atoms per structure", ylabel="")
    log_axis(axis, "x")
    return figure


def label_distributions(sets: dict):
    """Energy per atom after subtracting fitted element energies, and force components, of sets with both labels.

    Both panels show the inner 99 % of the values, so that a few broken bonds do not squeeze the rest.
    """
    figure, axes = new_figure(1, 2, width=8.0, height=2.9)
    energies, forces = {}, {}
    for name, structures in sets.items():
        numbers = [s["atomic_numbers"] for s in structures]
        counts = element_counts(numbers)
        elements = int(counts.any(axis=0).sum())
        label = f"{name} (forces only: {len(structures)} structures, {elements} elements)"
        if len(structures) > 2 * elements:  # else the element energies fit every energy exactly
            label, total = name, np.array([float(s["energy"]) for s in structures])
            energies[label] = (total - counts @ fit_linear_reference(numbers, total)) / counts.sum(1)
        forces[label] = np.concatenate([np.asarray(s["forces"]).ravel() for s in structures])
    colours = dict(zip(forces, PALETTE))
    words = ("(energy − fitted element energies) / atoms, inner 99 % / eV", "force component, inner 99 % / eV Å⁻¹")
    for axis, values, label in zip(axes, (energies, forces), words):
        inner = {name: v[np.abs(v) <= np.percentile(np.abs(v), 99)] for name, v in values.items()}
        rows = pd.DataFrame({name: pd.Series(v) for name, v in inner.items()})
        sns.histplot(rows, palette=[colours[name] for name in rows], bins=40, stat="density", common_norm=False,
                     common_bins=False, element="step", fill=False, linewidth=1.0, legend=values is forces, ax=axis)
        axis.set(xlabel=label, ylabel="density")
        log_axis(axis, "y")
    handles = axes[1].get_legend().legend_handles
    axes[1].get_legend().remove()
    figure.legend(handles, list(forces), loc="outside upper center", ncols=4)
    return figure


def neighbour_counts(table: pd.DataFrame, what: str = "official"):
    """Box plot of the neighbours of an atom within its cutoff (whiskers: 5th and 95th percentile), one row for
    each set of ``table`` (columns set, counts, cutoff / Å, limit); diamonds: limit of the main graph. ``what``:
    whose cutoffs they are.
    """
    figure, (axis,) = new_figure(width=7.0, height=0.26 * len(table) + 1.2)
    table = table.assign(row=[f"{name} ({cutoff:g} Å)" for name, cutoff in zip(table["set"], table["cutoff / Å"])])
    rows = table.explode("counts").astype({"counts": float})
    sns.boxplot(rows, x="counts", y="row", **BOX, ax=axis)
    sns.scatterplot(table, x="limit", y="row", marker="D", s=26, color=PALETTE[5], linewidth=0, zorder=3,
                    label="limit of the main graph", ax=axis)
    axis.set(xlabel=f"neighbours of an atom within the cutoff ({what})", ylabel="")
    log_axis(axis, "x")
    sns.move_legend(axis, "lower left", bbox_to_anchor=(0, 1.0))
    return figure


def target_distributions(sets: dict, units: dict):
    """One histogram per property: ``sets`` {task: values}, ``units`` {task: unit}; of values far from zero,
    less their mean."""
    figure, axes = grid(len(sets), panel_height=2.05)
    for axis, (name, values) in zip(axes, sets.items()):
        values = np.asarray(values, float)
        far = bool(np.abs(values).max() > 1e5)  # total energies
        sns.histplot(x=values - far * values.mean(), bins=40, element="step", color=PALETTE[0],
                     alpha=1.0, linewidth=0, ax=axis)
        axis.set(title=name, xlabel=axis_label("label" + " less the mean" * far, units.get(name, "unitless")),
                 ylabel="structures")
    return figure


def pictures(structures: dict):
    """One drawing per structure ({title: structure}): molecules face on, periodic ones with their cell."""
    figure, axes = grid(len(structures), columns=5, panel_height=2.0)
    for axis, (title, structure) in zip(axes, structures.items()):
        periodic = bool(np.any(np.asarray(structure["pbc"])))
        atoms = Atoms(numbers=np.asarray(structure["atomic_numbers"]), positions=np.asarray(structure["pos"]),
                      cell=np.asarray(structure["cell"]) if periodic else None, pbc=np.asarray(structure["pbc"]))
        if not periodic:  # largest extents in the plane of the picture
            centred = atoms.positions - atoms.positions.mean(0)
            atoms.positions = centred @ np.linalg.svd(centred)[2].T
        plot_atoms(atoms, axis, rotation="-75x,15y" if periodic else "", radii=0.6 if periodic else 0.9,
                   show_unit_cell=2 if periodic else 0)
        axis.set_title(f"{title}\n{atoms.get_chemical_formula()}", fontsize=8)
        axis.set_axis_off()
    return figure


def embedding_scatter(points: pd.DataFrame, by: str):
    """t-SNE points coloured by ``by`` ("set", "domain" or "element"); ``points`` has columns x, y,
    set, domain, element.

    Of the elements the nine most frequent ones have a colour.
    """
    figure, (axis,) = new_figure(width=7.6, height=5.0)
    groups = sorted(points[by].unique()) if by == "set" else [d for d in style.DOMAIN_COLOURS if d in set(points[by])]
    if by == "element":
        frequent = list(points[by].value_counts().index[:9])
        groups, points = ([*frequent, "others"],
                          points.assign(element=points[by].where(points[by].isin(frequent), "others")))
    colours = style.DOMAIN_COLOURS if by == "domain" else dict(zip(groups, PALETTE * len(groups)))
    if by == "element":
        colours["others"] = "#cccccc"
    sns.scatterplot(points, x="x", y="y", hue=by, style=by, hue_order=groups, style_order=groups, palette=colours,
                    markers=dict(zip(groups, style.SET_MARKERS * len(groups))), s=14, alpha=0.7, linewidth=0, ax=axis)
    axis.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
    sns.move_legend(axis, "center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.5, title=by)
    return figure


# pieces

def _history(records: list[dict], *names: str) -> pd.DataFrame:
    """The learning curves of ``records`` as one tidy table, with the fields ``names`` of each record."""
    rows = [{**entry, **{name: record[name] for name in names}} for record in records for entry in record["history"]]
    return pd.DataFrame(rows, columns=None if rows else ["step", "val_metric", "train_loss", "lr", *names])


def _arms_of(rows: pd.DataFrame) -> dict:
    """Colours and markers of the arms in ``rows``, in the one order that all figures have."""
    arms = [arm for arm in ARMS if arm in set(rows["arm"])]
    return {"hue": "arm", "style": "arm", "palette": ARM_COLOURS, "markers": style.ARM_MARKERS, "hue_order": arms,
            "style_order": arms}


def _lines(axis, rows: pd.DataFrame, x: str, y: str, **semantics) -> None:
    if len(rows):
        sns.lineplot(rows, x=x, y=y, dashes=False, markeredgewidth=0, errorbar=None, ax=axis, **semantics)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 4, 5, 10], min_n_ticks=3))


def _panels(rows: pd.DataFrame, x: str, y: str, xlabel: str, quantity: str, panel_height: float = 2.1, **lines):
    """One panel per task of ``rows``, one line per arm; ``quantity`` in the unit of the task on a logarithmic axis."""
    figure, axes = grid(rows["task"].nunique(), panel_height=panel_height)
    if rows.empty:
        axes[0].set_title("nothing was run")
    for axis, (task, part) in zip(axes, rows.groupby("task", sort=False)):
        _lines(axis, part, x, y, **_arms_of(part), **lines)
        axis.set(title=short_task(task), xlabel=xlabel)
        axis.set_ylabel(axis_label(quantity, part["unit"].iloc[0]), fontsize=8)
        log_axis(axis, "y")
    return legend_below(figure, axes)


def _rows_figure(rows: int, height: float, more: float = 1.25):
    """A figure with one row of ``height`` inches per task, ``more`` besides, and its axes."""
    figure, (axis,) = new_figure(width=6.5, height=height * max(rows, 1) + more)
    return figure, axis


def _finished(axis, rows: int, xlabel: str, at: float = 0.0, log: bool = False, legend: bool = True):
    """The figure of ``axis`` with a line at no change, the first row on top and the legend below."""
    axis.axvline(at, color="black", linewidth=0.8)
    if not rows:
        axis.set_title("nothing was run")
    axis.set_xlabel(xlabel)
    style.rows_tight(axis, rows)
    if log:
        log_axis(axis, "x", least=2.0)
    return legend_below(axis.figure, [axis]) if legend else axis.figure


def _bars(axis, rows: pd.DataFrame, y: str, hue: str, palette: dict) -> None:
    """Horizontal bars of ``gain`` in %, with a line over those whose interval (``from``, ``to``) is known;
    the paper gives none."""
    if rows.empty:
        return
    hues = [of for of in palette if of in set(rows[hue])]
    sns.barplot(rows, x="gain", y=y, hue=hue, hue_order=hues, palette=palette, saturation=1,
                linewidth=0, errorbar=None, ax=axis)
    for bars, of in zip(axis.containers, hues):
        part = rows[rows[hue] == of].set_index(y).reindex(rows[y].unique()).dropna(subset="gain")
        known = part["from"].notna().to_numpy()
        if of != PAPER and known.any():
            middle = np.array([bar.get_y() + bar.get_height() / 2 for bar in bars])[known]
            axis.hlines(middle, part["from"][known], part["to"][known], color="black", linewidth=0.9, zorder=3)
