"""Figures of notebook 14, and under each the sentence that says what it shows, computed from the data,
predictions and tables beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.ticker import MaxNLocator

from jmp_lib.own.evaluation import errors_by_element, true_test
from jmp_lib.results.intervals import words
from jmp_lib.results.style import PALETTE, axis_label, grid, log_axis, new_figure, significant
from jmp_lib.train.losses import structure_errors

COLOURS = {"pre-trained": "#0072B2", "from scratch": "#D55E00", "linear composition": "#009E73", "mean": "#999999",
           "before fine-tuning": "#56B4E9", "labels": "#000000"}
MARKERS = {"pre-trained": "D", "from scratch": "s", "before fine-tuning": "^", "labels": "o"}
ARMS = ("from scratch", "pre-trained")


def learning_curves(data, records: list[dict]):
    """Validation MAE over updates, a panel per property, a line per arm and seed."""
    rows = pd.DataFrame([{"arm": r["arm"], "seed": r["seed"], **point} for r in records for point in r["history"]])
    figure, axes = grid(len(data.properties), panel_height=2.6)
    for axis, name in zip(axes, data.properties):
        sns.lineplot(rows, x="step", y=f"val_{name}", hue="arm", style="arm", units="seed", estimator=None,
                     dashes=False, palette=COLOURS, markers=MARKERS, ax=axis)
        axis.set(xlabel="update", ylabel=axis_label("validation MAE", data.units[name]), title=name)
        axis.legend(title=None)
        log_axis(axis, "y")
    return figure


def best_of_curves(data, records: list[dict]) -> Markdown:
    """Learning curves: the best of either arm, by property; of the first seed."""
    first = {record["arm"]: record["history"] for record in reversed(records)}
    said = []
    for name in data.properties:
        best = {arm: min(history, key=lambda point: point[f"val_{name}"]) for arm, history in first.items()}
        each = (f"{significant(point[f'val_{name}'])} {arm} (update {point['step']})" for arm, point in best.items())
        said.append(f"Best validation error of {name} / {data.units[name]}: {', '.join(each)}.")
    return Markdown("  ".join(said))


def side_by_side(data, table: pd.DataFrame):
    """Test MAE of every way with its 95 % interval (``evaluation.compare``), a panel per property."""
    figure, axes = grid(len(data.properties), columns=2, panel_height=2.0, width=14.0)
    for axis, name in zip(axes, data.properties):
        rows = table[table["property"] == name].reset_index(drop=True)
        low, high = rows["MAE"] - rows["95 % from"], rows["95 % to"] - rows["MAE"]
        sns.barplot(rows, x="MAE", y="way", hue="way", palette=COLOURS, saturation=1, legend=False, ax=axis)
        axis.errorbar(rows["MAE"], rows.index, xerr=np.clip([low, high], 0, None),
                      fmt="none", ecolor="black", capsize=3)
        axis.set(xlabel=f"{axis_label('test MAE', data.units[name])}, bars: 95 % of the bootstrap",
                 ylabel="", title=name)
    return figure


def gained(table: pd.DataFrame) -> Markdown:
    """What pre-training gained (``evaluation.gain``), by property, with the interval."""
    column, said = next(name for name in table if str(name).endswith("/ %")), []
    for _, row in table.iterrows():
        gain, ends = row[column], [row["95 % from"], row["95 % to"]]
        change = words(gain, *ends, "%") if gain > 0 else words(-gain, -ends[1], -ends[0], "%")
        explains = "does not explain" if row["beyond the draw"] == "yes" else "may explain"
        lower, seeds = row["lower with seeds"].split(" of ")
        of_seeds = "more seeds would tell" if seeds == "1" else f"the error is lower with {lower} of {seeds} seeds"
        said.append(f"{row['property']}: pre-training {'lowers' if gain > 0 else 'raises'} the test error by "
                    f"{change.replace('+', '')}; which structures were tested {explains} that; {of_seeds}.")
    return Markdown("  ".join(said))


def parity(data, split, found: dict):
    """Predicted against true values of the test part, a panel per property."""
    figure, axes = grid(len(data.properties), columns=3, panel_height=3.0, width=13.0)
    true = true_test(data, split)
    for axis, name in zip(axes, data.properties):
        label, unit = true[name].ravel(), data.units[name]
        for arm in ARMS:
            sns.scatterplot(x=label, y=found[arm][name].ravel(), marker=MARKERS[arm], color=COLOURS[arm], s=14,
                            alpha=0.6, linewidth=0, label=arm, rasterized=True, ax=axis)
        axis.plot([label.min(), label.max()], [label.min(), label.max()], color="black", linewidth=0.8)
        axis.set(xlabel=axis_label("label", unit), ylabel=axis_label("predicted", unit), title=name)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    return figure


def correlations(data, split, found: dict) -> Markdown:
    """Parity: how well predictions follow the labels, by property."""
    said, true = [], true_test(data, split)
    for name in data.properties:
        follows = {arm: np.corrcoef(true[name].ravel(), found[arm][name].ravel())[0, 1] for arm in ARMS}
        said.append(f"{name} " + " and ".join(f"{value:.2f} {arm}" for arm, value in follows.items()))
    return Markdown(f"Correlation of label and prediction: {'; '.join(said)}.")


def by_element_and_size(data, split, values: dict):
    """Left: test MAE by element; right: error of each test structure over its number of atoms, or, where all have the
    same number, over its first label."""
    table, name = errors_by_element(data, split, values), data.properties[-1]
    figure, (left, right) = new_figure(1, 2, width=max(8.0, 3.5 + 0.22 * len(table)), height=3.2,
                                       width_ratios=[max(1.0, len(table) / 14), 1.0])
    sns.barplot(table, x="element", y="MAE", color=PALETTE[0], saturation=1, ax=left)
    left.set(ylabel=axis_label(f"test MAE of {name}", data.units[name]), xlabel="element")
    left.tick_params(axis="x", labelsize=8, rotation=0 if len(table) < 18 else 90)
    natoms, true, first = data.structures.natoms[split.test], true_test(data, split), data.properties[0]
    errors, sized = structure_errors(values[name], true[name], natoms)[:, 0], len(np.unique(natoms)) > 1
    sns.scatterplot(x=natoms if sized else true[first].ravel(), y=errors, s=14, alpha=0.6,
                    linewidth=0, color=PALETTE[0], ax=right)
    right.xaxis.set_major_locator(MaxNLocator(5, integer=sized))
    right.set(xlabel="atoms of the structure" if sized else axis_label(f"{first} of the structure", data.units[first]),
              ylabel=axis_label("its absolute error", data.units[name]))
    return figure


def elements(table: pd.DataFrame) -> Markdown:
    """Errors by element (``evaluation.errors_by_element``): the largest and the smallest, where they differ."""
    if len(table) < 2:
        return Markdown("There is one element, or none.")
    high, low = (table.loc[place] for place in (table["MAE"].idxmax(), table["MAE"].idxmin()))
    if significant(high["MAE"]) == significant(low["MAE"]):
        return Markdown(f"The same on all elements ({significant(high['MAE'])} {high['unit']}).")
    return Markdown(f"Largest on {high['element']} ({significant(high['MAE'])} {high['unit']}), "
                    f"smallest on {low['element']} ({significant(low['MAE'])} {low['unit']}).")


def relaxed(table: pd.DataFrame) -> Markdown:
    """Relaxations (``use.relaxation``): which networks end at rest, and the largest force that the others leave."""
    said = []
    for _, row in table.iterrows():
        left = row.get("largest force / eV/Å", float("nan"))  # no column where no network ends
        end = (f"at rest after {row['steps']} steps" if row["converged"] == "yes"
               else "atoms are driven into each other" if pd.isna(left) else \
               f"not at rest after {row['steps']} steps, the largest force is {significant(left, 2)} eV/Å")
        said.append(f"{row['network'].capitalize()}: {end}.")
    return Markdown("  ".join(said))


def _networks(table: pd.DataFrame, ylabel: str, **lines):
    """A line per network of ``table``; the figure and its axes."""
    figure, (axis,) = new_figure(width=6.5, height=2.8)
    sns.lineplot(table, hue="network", palette=COLOURS, errorbar=None, ax=axis, **lines)
    axis.set(ylabel=ylabel)
    axis.legend(title=None)
    return figure, axis


def drift(table: pd.DataFrame):
    """Total energy over time in dynamics without a thermostat, a line per network (``use.dynamics``)."""
    figure, axis = _networks(table, "total energy less the first\n/ meV per atom",
                             x="time / ps", y="drift / meV per atom")
    axis.axhline(0.0, color="black", linewidth=0.8)
    return figure


def drifts(table: pd.DataFrame) -> Markdown:
    """Dynamics (``use.dynamics_table``): what a network gains or loses of energy; one trajectory each,
    so without an interval."""
    return Markdown("Energy per atom and picosecond, one trajectory each: " + "; ".join(
        f"{row['network']} " + (f"{row['drift / meV per atom and ps']:+.0f} meV" if row.get("bonds hold") != "no" else
                                f"breaks bonds after {row['picoseconds']:g} ps") for _, row in table.iterrows()) + ".")


def equation_of_state(table: pd.DataFrame):
    """Energy over volume, less the lowest of each line, a line per network (``use.equation_of_state``)."""
    energy = table["energy / eV per atom"]
    above = 1000 * (energy - energy.groupby(table["network"]).transform("min"))
    return _networks(table.assign(above=above), "energy above the lowest\n/ meV per atom", x="volume / Å³ per atom",
                     y="above", style="network", markers=MARKERS, dashes=False)[0]


def volumes(table: pd.DataFrame) -> Markdown:
    """Equation of state (``use.equation_of_state_table``): the volume of each network, beside that of the
    labels if it is known."""
    found = table.set_index("network")["volume / Å³ per atom"]
    exact = float(found.get("labels", float("nan")))
    said = [f"{name} " + ("no volume" if pd.isna(value)
                          else f"{value:.1f} Å³" + f" ({100 * (value / exact - 1):+.1f} %)" * (exact > 0))
            for name, value in found.drop("labels", errors="ignore").items()]
    return Markdown(f"Volume per atom{' beside that of the labels' * (exact > 0)}: {'; '.join(said)}.")
