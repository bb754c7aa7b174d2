"""Means and deviations of the train parts, beside those the official release trains with.

The train part's own statistics are what this package normalises with; the published ones (facts/tasks.csv, and per
MatBench fold facts/hyperparameters.yaml) say whether data, units, signs and splits are those of the release. Where they
differ, :data:`EXPLANATIONS` says why, as far as it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import facts, units
from jmp_lib.data import qm9
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS, Task, get_task, load_task_data

# measured and published are the same number when they differ by less than this part of the deviation
SAME = 1e-5
# and agree within sampling when they differ by less than so many standard errors
SAMPLING = 4.0

# cause -> why published statistics differ from those of the train part
EXPLANATIONS = {
    "spice": "the published force deviation is that of the gradient times the energy factor alone, in eV/bohr; forces "
    "here are in eV/Å, larger by 1.8897",
    "matbench": "the published statistics are not those of the official folds but of another, unstated selection of "
    "structures",
    "qmof": "the published statistics are of another version or selection of QMOF than the structures at hand",
    "qm9 reference": "the published mean is that after least-squares references as fitted; those published are rounded "
    "to five digits, which shifts the mean by tenths of an eV",
    "part": "only a part of the set is at hand, and it is no random sample of it",
}


def compare(data_root: str | Path, task_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """Published against measured statistics of the train parts of all tasks (or ``task_ids``) whose files are at hand.

    One row for each task, fold and quantity (``mean``, ``std``, of the referenced target; ``energy mean``, ``energy
    std``): task, fold, quantity, unit, published, measured, n_train, verdict (``the same``, ``within sampling`` or
    why they differ). Tasks without files have one row with the reason in ``verdict``.
    """
    rows = []
    for task in [get_task(task_id) for task_id in task_ids] if task_ids is not None else TASKS.values():
        for fold in range(task.n_folds):
            try:
                data = load_task_data(task.id, "published", data_root, fold=fold)
            except (ValueError, FileNotFoundError) as error:
                rows.append({"task": task.id, "fold": fold, "verdict": f"no data: {error}"})
                continue
            parts = (data.train, data.val, data.test)
            whole = sum(map(len, parts)) == task.n_total
            other = whole and task.family == "matbench" and _of_another_selection(task, parts)
            for quantity, unit, published, measured, sigma in _pairs(task, fold, data.train):
                verdict = _verdict(task, quantity, published, measured, sigma, len(data.train), whole)
                verdict = EXPLANATIONS["matbench"] if other and quantity == "mean" else verdict
                rows.append(
                    {"task": task.id, "fold": fold, "quantity": quantity, "unit": unit, "published": published,
                     "measured": measured, "n_train": len(data.train), "verdict": verdict}
                )  # fmt: skip
    columns = ["task", "fold", "quantity", "unit", "published", "measured", "n_train", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def train_statistics(train: StructureSet, task: Task) -> dict[str, float]:
    """Mean and deviation of the target of a train part, in the label's unit; energy mean and std where it has energy.

    Forces: mean 0 by definition, deviation over all components. QM9 targets with official per-element references
    (:func:`jmp_lib.data.qm9.atom_references`) have them subtracted first, as the published statistics do.
    """
    if task.is_force_task:
        forces = train.forces.astype(np.float64)
        measured = {"mean": 0.0, "std": float(np.sqrt(np.mean(forces**2)))}
    else:
        values = train.scalars[task.label]
        reference = qm9.atom_references().get(task.label) if task.family == "qm9" else None
        if reference is not None:
            values = values - np.add.reduceat(reference[train.atomic_numbers], train.offsets[:-1])
        measured = {"mean": float(values.mean()), "std": float(values.std())}
    if "energy" in train.scalars:
        energy = train.scalars["energy"]
        measured |= {"energy mean": float(energy.mean()), "energy std": float(energy.std())}
    return measured


def published_statistics(task: Task, fold: int = 0) -> dict[str, float]:
    """What the official release trains with: mean and std of the target, energy mean and std where listed."""
    if task.family == "matbench":
        mean, std = facts.hyperparameters()["matbench_normalisation"][task.suffix][fold]
        return {"mean": mean, "std": std}
    row = facts.task(task.id)
    named = {"mean": "mean", "std": "std", "energy mean": "energy_mean", "energy std": "energy_std"}
    return {key: float(row[column]) for key, column in named.items() if not pd.isna(row[column])}


def _pairs(task: Task, fold: int, train: StructureSet) -> Iterator[tuple[str, str, float, float, float]]:
    """(quantity, unit, published, measured, deviation of the quantity's distribution)."""
    measured, published = train_statistics(train, task), published_statistics(task, fold)
    for quantity, value in published.items():
        if quantity == "mean" and task.is_force_task or quantity not in measured:
            continue
        of_energy = quantity.startswith("energy")
        yield (
            quantity,
            "eV" if of_energy else task.label_unit,
            value,
            measured[quantity],
            measured["energy std" if of_energy else "std"],
        )


def _of_another_selection(task: Task, parts: tuple[StructureSet, ...]) -> bool:
    """Whether the published means of a MatBench task, averaged over its folds, are not those of the folds' train parts.

    The five folds' parts without test average to the whole set's mean; what the validation parts take away leaves a
    standard error of deviation * sqrt(0.1 / 0.9 / (0.8 n) / 5).
    """
    values = np.concatenate([part.scalars[task.label] for part in parts])
    published = np.mean([published_statistics(task, fold)["mean"] for fold in range(task.n_folds)])
    error = values.std() * np.sqrt(0.1 / 0.9 / (0.8 * len(values)) / task.n_folds)
    return bool(abs(published - values.mean()) > SAMPLING * np.sqrt(2) * error)


def _verdict(task: Task, quantity: str, published: float, measured: float, sigma: float, n: int, whole: bool) -> str:
    difference = abs(measured - published)
    if difference <= SAME * sigma:
        return "the same"
    if task.family == "spice" and quantity == "std":
        in_bohr = measured * units.BOHR
        if abs(in_bohr - published) <= SAME * published:
            return f"the same in eV/bohr ({in_bohr:.8f}): {EXPLANATIONS['spice']}"
    # of a mean of n values; the deviation of n values is known a little better than that
    if difference <= SAMPLING * sigma / np.sqrt(n):
        return "within sampling"
    if task.family == "qm9" and quantity == "mean" and task.label in ("U0", "U", "H", "G"):
        return EXPLANATIONS["qm9 reference"]
    if task.family == "qmof":
        return EXPLANATIONS["qmof"]
    if not whole:
        return EXPLANATIONS["part"]
    return EXPLANATIONS["matbench"] if task.family == "matbench" else "not explained"
