"""What the figures of notebook 14 show, in sentences computed from the data, predictions and tables beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import Markdown

from jmp_lib.own.evaluation import true_test
from jmp_lib.results.intervals import words
from jmp_lib.results.style import significant


def learning(data, records: list[dict]) -> Markdown:
    """Learning curves: the best of either arm, by property; of the first seed."""
    first = {record["arm"]: record["history"] for record in reversed(records)}
    said = []
    for name in data.properties:
        best = {arm: min(history, key=lambda point: point[f"val_{name}"]) for arm, history in first.items()}
        each = (f"{significant(point[f'val_{name}'])} {arm} (update {point['step']})" for arm, point in best.items())
        said.append(f"Best validation error of {name} / {data.units[name]}: {', '.join(each)}.")
    return Markdown("  ".join(said))


def gains(data, table: pd.DataFrame) -> Markdown:
    """What pre-training gained (``evaluation.gain``), by property, with the interval."""
    column = next(name for name in table if str(name).endswith("/ %"))
    said = []
    for _, row in table.iterrows():
        gain, ends = row[column], [row["95 % from"], row["95 % to"]]
        change = words(gain, *ends, "%") if gain > 0 else words(-gain, -ends[1], -ends[0], "%")
        said.append(f"{row['property'].capitalize()}: pre-training {'lowers' if gain > 0 else 'raises'} the test error by "
                    f"{change.replace('+', '')}; chance alone {'does not explain' if row['beyond chance'] == 'yes' else 'may explain'} that.")
    return Markdown("  ".join(said))


def relaxed(table: pd.DataFrame) -> Markdown:
    """Relaxations (``use.relaxation``): which networks end at rest, and the largest force that the others leave."""
    said = []
    for _, row in table.iterrows():
        left = row["largest force / eV/Å"]
        end = f"at rest after {row['steps']} steps" if row["converged"] == "yes" else "atoms are driven into each other" if pd.isna(left) else \
            f"not at rest after {row['steps']} steps, the largest force is {significant(left, 2)} eV/Å"
        said.append(f"{row['network'].capitalize()}: {end}.")
    return Markdown("  ".join(said))


def parity(data, split, found: dict, ways=("from scratch", "pre-trained")) -> Markdown:
    """Parity: how well predictions follow the labels, by property."""
    said, true = [], true_test(data, split)
    for name in data.properties:
        follows = {way: np.corrcoef(true[name].ravel(), found[way][name].ravel())[0, 1] for way in ways}
        said.append(f"{name} " + " and ".join(f"{value:.2f} {way}" for way, value in follows.items()))
    return Markdown(f"Correlation of label and prediction: {'; '.join(said)}.")


def elements(table: pd.DataFrame) -> Markdown:
    """Errors by element (``evaluation.errors_by_element``): the largest and the smallest."""
    if len(table) < 2:
        return Markdown("There is one element, or none.")
    high, low = (table.loc[place] for place in (table["MAE"].idxmax(), table["MAE"].idxmin()))
    return Markdown(f"Largest on {high['element']} ({significant(high['MAE'])} {high['unit']}), smallest on {low['element']} "
                    f"({significant(low['MAE'])} {low['unit']}).")


def drift(table: pd.DataFrame) -> Markdown:
    """Dynamics (``use.dynamics_table``): what a network gains or loses of energy; one trajectory each, so without an interval."""
    return Markdown("Energy per atom and picosecond, one trajectory each: " + "; ".join(
        f"{row['network']} " + (f"{row['drift / meV per atom and ps']:+.0f} meV" if row["bonds hold"] == "yes" else
                                f"breaks the molecule after {row['picoseconds']:g} ps") for _, row in table.iterrows()) + ".")


def volumes(table: pd.DataFrame) -> Markdown:
    """Equation of state (``use.equation_of_state_table``): the volume of each network beside that of the labels."""
    found = table.set_index("network")["volume / Å³ per atom"]
    exact = float(found.get("labels", float("nan")))
    said = [f"{name} " + ("no volume" if pd.isna(value) else f"{value:.1f} Å³" + f" ({100 * (value / exact - 1):+.1f} %)" * (exact > 0))
            for name, value in found.drop("labels", errors="ignore").items()]
    return Markdown(f"Volume per atom beside that of the labels: {'; '.join(said)}.")
