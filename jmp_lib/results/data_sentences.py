"""What the figures of notebook 01 show, in sentences computed from the structures; ``sets`` are {name: structures}."""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import Markdown

from jmp_lib.data.statistics import PRETRAINING_SETS, family_of
from jmp_lib.results import pages


def elements(sets: dict) -> Markdown:
    """How many elements the pre-training sets hold, how many the others, and how many of these are new to the network."""
    seen, tasks = set(), set()
    for name, structures in sets.items():
        (seen if family_of(name) in PRETRAINING_SETS else tasks).update(int(z) for s in structures for z in s["atomic_numbers"])
    return Markdown(f"The sampled pre-training structures hold {len(seen)} elements, those of the tasks {len(tasks)}.  Of these "
                    f"{len(tasks - seen)} occur in no pre-training set: the network meets them for the first time in a task.")


def sizes(sets: dict) -> Markdown:
    """The sets with the smallest and the largest structures."""
    middle = pd.Series({name: np.median([len(s["pos"]) for s in structures]) for name, structures in sets.items()})
    return _between(middle, "The median structure has {} atoms in {} and {} in {}.", "In a force loss averaged over the atoms of a batch one of "
                    "the large ones would count {:.0f} times as much as one of the small ones.")


def forces(sets: dict) -> Markdown:
    """The sets with the smallest and the largest forces."""
    every = {name: np.concatenate([np.asarray(s["forces"], float).ravel() for s in structures]) for name, structures in sets.items()}
    rms = pd.Series({name: np.sqrt(np.mean(values**2)) for name, values in every.items()})
    return _between(rms, "The root mean square of a force component is {} eV Å⁻¹ in {} and {} eV Å⁻¹ in {}:", "{:.1f} times as large, which "
                    "is why every set is divided by its own.")


def limits(table: pd.DataFrame) -> Markdown:
    """On which sets the limit of the main graph cuts (``statistics.neighbour_counts``)."""
    over = [row["set"] for _, row in table.iterrows() if np.median(row["counts"]) > row["limit"]]
    return Markdown(f"On {len(over)} of {len(table)} sets half of the atoms or more have more neighbours than the limit keeps"
                    + (f": {', '.join(over)}." if over else "."))


def targets(values: dict, units: dict) -> Markdown:
    """Of labels in meV, the narrowest and the widest, by what the best constant is off."""
    off = pd.Series({name: np.abs(np.asarray(v, float) - np.median(v)).mean() for name, v in values.items() if units.get(name) == "meV"})
    return _between(off, "Of the targets in meV, the best constant is off by {} meV on average on {} and by {} meV on {}.", "So the same error "
                    "is much on one task and little on another: read it beside that of the constant.")


def _between(values: pd.Series, what: str, then: str) -> Markdown:
    """The lowest and the highest of ``values`` by set in ``what``; ``then`` may name their ratio. Nothing where there are fewer than two."""
    if len(values) < 2:
        return Markdown("Fewer than two sets are here to compare.")
    ends = [words for name in (values.idxmin(), values.idxmax()) for words in (pages.number(float(f"{values[name]:.2g}")), name)]
    return Markdown(f"{what.format(*ends)}  {then.format(values.max() / values.min())}")
