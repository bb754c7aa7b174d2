"""What the figures of notebook 01 show, in sentences computed from the structures; ``sets`` are {name: structures}."""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import Markdown

from jmp_lib.data.statistics import PRETRAINING_SETS, family_of
from jmp_lib.results.style import significant


def elements(sets: dict) -> Markdown:
    """How many elements the pre-training sets hold, how many the others, and how many of these are new to the network."""
    seen, tasks = set(), set()
    for name, structures in sets.items():
        (seen if family_of(name) in PRETRAINING_SETS else tasks).update(int(z) for s in structures for z in s["atomic_numbers"])
    return Markdown(f"The sampled pre-training structures hold {len(seen)} elements, those of the tasks {len(tasks)}, of which "
                    f"{len(tasks - seen)} occur in no pre-training set: the network meets them for the first time in a task.")


def sizes(sets: dict) -> Markdown:
    """The sets with the smallest and the largest structures."""
    middle = pd.Series({name: np.median([len(s["pos"]) for s in structures]) for name, structures in sets.items()})
    return _between(middle, "atoms per structure in the median", "Averaged over the atoms of a batch, one of the largest would count {:.0f} "
                    "times as much as one of the smallest.")


def forces(sets: dict) -> Markdown:
    """The sets with the smallest and the largest forces."""
    every = {name: np.concatenate([np.asarray(s["forces"], float).ravel() for s in structures]) for name, structures in sets.items()}
    rms = pd.Series({name: np.sqrt(np.mean(values**2)) for name, values in every.items()})
    return _between(rms, "eV Å⁻¹ of force components (root mean square)", "Set by set they differ by a factor of {:.1f}.")


def limits(table: pd.DataFrame) -> Markdown:
    """On which sets the limit of the main graph cuts (``statistics.neighbour_counts``)."""
    over = [row["set"] for _, row in table.iterrows() if np.median(row["counts"]) > row["limit"]]
    return Markdown(f"The limit cuts at half of the atoms or more on {len(over)} of {len(table)} sets" + (f": {', '.join(over)}." if over else "."))


def targets(values: dict, units: dict) -> Markdown:
    """Of labels in meV, the narrowest and the widest, by what the best constant is off."""
    off = pd.Series({name: np.abs(np.asarray(v, float) - np.median(v)).mean() for name, v in values.items() if units.get(name) == "meV"})
    return _between(off, "meV that the best constant is off on average", "An error of a network says something only beside that of its task.")


def _between(values: pd.Series, what: str, then: str) -> Markdown:
    """The lowest and the highest of ``values`` by set; ``then`` may name their ratio. Nothing where there are fewer than two."""
    if len(values) < 2:
        return Markdown("Fewer than two sets are here to compare.")
    low, high = (f"{significant(end, 2)} ({name})" for end, name in ((values.min(), values.idxmin()), (values.max(), values.idxmax())))
    return Markdown(f"From {low} to {high} {what}.  {then.format(values.max() / values.min())}")
