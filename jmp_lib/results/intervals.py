"""95 % intervals of what tables print: gains, means over tasks, counts of tasks, ratios of sums.
The one place for them.

A gain on one task is uncertain because its test part is small: test structures are drawn anew, the same ones for both
arms; of a trajectory (rMD17, MD22) blocks of frames, because frames that follow each other are alike. A mean over
tasks is uncertain because other tasks would give other gains: Student's t over tasks. Neither holds the spread over
seeds of a training, which the variants of a profile show. An interval is (low, high), NaN where it is not known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from jmp_lib.data.tasks import FAMILIES

DRAWS = 2000  # of a bootstrap
LEVEL = 0.95
FEWEST = 3  # tasks of a mean whose spread says something
UNKNOWN = (float("nan"), float("nan"))


def bootstrap(errors: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """MAE of DRAWS resamples of whole groups with replacement: (DRAWS,).

    errors (S,2): MAE of each structure and its weight (``losses.structure_errors``); groups (S,). The same groups and
    seed give the same draws, so that the results of two arms are paired.
    """
    _, index = np.unique(groups, return_inverse=True)
    count = index.max() + 1
    sums = np.bincount(index, errors[:, 0] * errors[:, 1], count)
    weights = np.bincount(index, errors[:, 1], count)
    drawn = np.random.default_rng(seed).integers(0, count, (DRAWS, count))
    return sums[drawn].sum(1) / weights[drawn].sum(1)


def blocks(count: int) -> np.ndarray:
    """Number of the block of each of ``count`` successive frames: blocks of count^(1/3) frames (Hall et
    al., 1995), (count,)."""
    return np.arange(count) // int(np.ceil(count ** (1 / 3)))


def middle(draws: np.ndarray) -> tuple[float, float]:
    """The interval that holds the middle LEVEL of ``draws``."""
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def gain_draws(new: np.ndarray | None, references: list[np.ndarray | None], family: str = "") -> np.ndarray | None:
    """Gains in % of the errors ``new`` (S,2) over ``references`` (the better of them) on DRAWS
    draws of test structures.

    Errors in the order of their rows of the set. None where some are not known or not of the same structures.
    """
    every = [new, *references]
    if not all(isinstance(errors, np.ndarray) for errors in every) or len({len(errors) for errors in every}) > 1:
        return None
    groups = blocks(len(new)) if family in FAMILIES and FAMILIES[family].trajectory else np.arange(len(new))
    drawn = [bootstrap(errors, groups) for errors in every]
    return 100 * (1 - drawn[0] / np.min(drawn[1:], axis=0))


def of_gain(new: np.ndarray | None, references: list[np.ndarray | None], family: str = "") -> tuple[float, float]:
    """Of the gain in % of ``gain_draws``."""
    draws = gain_draws(new, references, family)
    return UNKNOWN if draws is None else middle(draws)


def draws_by_task(all_tasks: pd.DataFrame, new: str, reference: str) -> dict[str, np.ndarray]:
    """``gain_draws`` of arm ``new`` over ``reference`` (joined by | : over the better) of every task that has them.

    ``all_tasks``: table of ``values.all_tasks_table``, whose records hold the errors of their test
    structures or do not.
    """
    errors = {(row.task, row.arm): row.errors for row in all_tasks.itertuples()}
    found = {task: gain_draws(errors.get((task, new)),
                              [errors.get((task, arm)) for arm in reference.split("|")], family)
             for task, family in dict(zip(all_tasks["task"], all_tasks["family"])).items()}
    return {task: draws for task, draws in found.items() if draws is not None}


def of_mean_gain(gains: pd.Series, draws: dict[str, np.ndarray]) -> tuple[float, float]:
    """Of the mean of ``gains`` by task: over tasks; of one task or two, which say nothing of others,
    over test structures."""
    if len(gains) < FEWEST and len(gains) and set(gains.index) <= set(draws):
        return middle(np.mean([draws[task] for task in gains.index], axis=0))
    return of_mean(gains)


def of_mean(values: pd.Series) -> tuple[float, float]:
    """Of a mean over tasks (Student's t); unknown for fewer than FEWEST."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) < FEWEST:
        return UNKNOWN
    half = stats.t.ppf(0.5 * (1 + LEVEL), len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean() - half), float(known.mean() + half)


def of_count(count: int, tasks: int) -> tuple[float, float]:
    """Of a number of tasks out of ``tasks`` (Wilson's interval of the share)."""
    share = stats.binomtest(int(count), int(tasks)).proportion_ci(LEVEL, "wilson")
    return float(share.low * tasks), float(share.high * tasks)


def of_ratio(above: pd.Series, below: pd.Series, seed: int = 0) -> tuple[float, float]:
    """Of sum(above) / sum(below) over tasks: tasks drawn anew; unknown for fewer than FEWEST."""
    if len(above) < FEWEST:
        return UNKNOWN
    drawn = np.random.default_rng(seed).integers(0, len(above), (DRAWS, len(above)))
    return middle(np.asarray(above, float)[drawn].sum(1) / np.asarray(below, float)[drawn].sum(1))


def words(value: float, low: float, high: float, unit: str = "", of: str = "") -> str:
    """A value with its interval, written as its unit is: "+20.6 [+13.0, +28.2]" (+ " %"), "1.40x [1.19,
    1.67]" (x), "34 of 40 [28, 37]" (tasks, ``of`` " of 40"); without brackets where the interval is not
    known, blank for no value."""
    if pd.isna(value):
        return ""
    form, zero, mark = {"x": (".2f", "-0.00", "x"), "tasks": (".0f", "-0", of)}.get(
        unit, ("+.1f", "-0.0", unit and f" {unit}"))
    text, *ends = (f"{number:{form}}" for number in (value, low, high))
    text, *ends = (word.replace("-", "") if word == zero else word for word in (text, *ends))
    return text + mark if pd.isna(low) else f"{text}{mark} [{', '.join(ends)}]"
