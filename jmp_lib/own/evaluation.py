"""Honest numbers: baselines without a network, bootstrap intervals over test structures or groups, errors by element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from jmp_lib.baselines.composition import linear_composition
from jmp_lib.data.splits import Split
from jmp_lib.own.dataset import OwnData

DRAWS = 2000


def true_test(data: OwnData, split: Split) -> dict[str, np.ndarray]:
    """Labels of the test part: (S,) or, for forces, (ΣN,3)."""
    part = data.structures.subset(split.test)
    return {n: part.forces.astype(float) if n == "forces" else part.scalars[n] for n in data.properties}


def baselines(data: OwnData, split: Split, reduction: str = "mean") -> dict[str, dict[str, np.ndarray]]:
    """Predictions of the test part without a network: the training mean (forces: zero), and a ridge regression on the
    composition (fractions; counts where the property grows with size), its strength chosen on the training part."""
    extensive = data.forces or reduction == "sum"
    train, test = data.structures.subset(split.train), data.structures.subset(split.test)
    numbers = [[s["atomic_numbers"] for s in part] for part in (train, test)]
    made: dict[str, dict[str, np.ndarray]] = {"mean": {}, "linear composition": {}}
    for name in data.properties:
        if name == "forces":
            made["mean"][name] = made["linear composition"][name] = np.zeros_like(test.forces, dtype=float)
            continue
        values = train.scalars[name]
        made["mean"][name] = np.full(len(test), values.mean())
        made["linear composition"][name] = linear_composition(numbers[0], values, numbers[1], extensive)
    return made


def network_predictions(records: list[dict], out_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """{arm: {property: predictions}} of the first seed of every arm."""
    made = {}
    for record in records:
        if record["arm"] not in made:
            with np.load(Path(out_dir) / record["files"]["predictions"]["file"], allow_pickle=False) as arrays:
                made[record["arm"]] = {n: arrays[f"predicted_{n}"] for n in record["unit"]}
    return made


def absolute_errors(predicted: np.ndarray, true: np.ndarray, natoms: np.ndarray) -> np.ndarray:
    """Mean absolute error of each structure and its weight in the MAE: (S,2); forces weigh by atoms."""
    error = np.abs(predicted - true)
    if error.ndim == 1:
        return np.column_stack([error, np.ones(len(error))])
    ends = np.cumsum(natoms)
    return np.column_stack([[e.mean() for e in np.split(error, ends[:-1])], natoms])


def bootstrap(errors: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """MAE of DRAWS resamples of whole groups with replacement: (DRAWS,).  ``errors`` (S,2) as above, groups (S,)."""
    _, index = np.unique(groups, return_inverse=True)
    count = index.max() + 1
    sums = np.bincount(index, errors[:, 0] * errors[:, 1], count)
    weights = np.bincount(index, errors[:, 1], count)
    drawn = np.random.default_rng(seed).integers(0, count, (DRAWS, count))
    return sums[drawn].sum(1) / weights[drawn].sum(1)


def compare(data: OwnData, split: Split, found: dict, records: list[dict], groups: np.ndarray) -> pd.DataFrame:
    """One row per property and way of predicting: MAE, 95 % interval, spread over seeds, and gain over the first row.

    groups (S,) of all structures: what the bootstrap draws.  Seeds: mean and standard deviation of the runs.
    """
    rows, true, natoms = [], true_test(data, split), data.structures.natoms[split.test]
    for name in data.properties:
        for way, values in found.items():
            errors = absolute_errors(values[name], true[name], natoms)
            low, high = np.percentile(bootstrap(errors, groups[split.test]), [2.5, 97.5])
            seeds = [r["value"][name] for r in records if r["arm"] == way]
            rows.append({"property": name, "way": way, "MAE": np.average(errors[:, 0], weights=errors[:, 1]),
                         "95 % from": low, "95 % to": high, "unit": data.units[name], "seeds": len(seeds) or None,
                         "mean of seeds": np.mean(seeds) if seeds else None,
                         "std of seeds": np.std(seeds, ddof=1) if len(seeds) > 1 else None, "test structures": len(errors)})
    return pd.DataFrame(rows)


def gain(data: OwnData, split: Split, found: dict, groups: np.ndarray, new="pre-trained", base="from scratch") -> pd.DataFrame:
    """How much lower the MAE of ``new`` is than that of ``base``, in %, with the 95 % interval of a paired bootstrap."""
    rows, true, natoms = [], true_test(data, split), data.structures.natoms[split.test]
    for name in data.properties:
        draws = [bootstrap(absolute_errors(found[way][name], true[name], natoms), groups[split.test]) for way in (new, base)]
        change = 100 * (1 - draws[0] / draws[1])
        exact = [np.abs(found[way][name] - true[name]).mean() for way in (new, base)]
        low, high = np.percentile(change, [2.5, 97.5])
        rows.append({"property": name, f"{new} over {base} / %": 100 * (1 - exact[0] / exact[1]), "95 % from": low,
                     "95 % to": high, "beyond chance": "yes" if low > 0 or high < 0 else "no"})
    return pd.DataFrame(rows)


def errors_by_element(data: OwnData, split: Split, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """MAE by element: of the atoms of that element (forces) or of the structures that hold it."""
    name = data.properties[-1]
    part, true = data.structures.subset(split.test), true_test(data, split)[name]
    error = np.abs(values[name] - true)
    rows = []
    for number in part.elements:
        chosen = part.atomic_numbers == number if error.ndim == 2 else \
            np.array([number in s["atomic_numbers"] for s in part])
        rows.append({"element": chemical_symbols[number], "MAE": error[chosen].mean(), "unit": data.units[name],
                     "atoms" if error.ndim == 2 else "structures": int(chosen.sum())})
    return pd.DataFrame(rows)
