"""Tables of the variants of a profile: spread over seeds, error against training structures, ablations.

Every function takes the ``variant_values`` of a results folder: test errors in the unit that the paper prints,
MatBench by its first fold that was run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import paths
from jmp_lib.facts import ARMS
from jmp_lib.results.intervals import of_gain, of_mean, words
from jmp_lib.results.values import PAIRS, all_tasks_table, gain, relative_improvement

BASE = "base"
# for profiles without a role
VARIANTS_SHOWN = {"seed": "published_small", "size": "published_small", "ablation": "mini-ablations"}
# role -> the column that tells it, the first that differs
ROLES = {"seed": "seed", "size": "n_train", "ablation": "pretrained"}
COLUMNS = ["task", "family", "arm", "value", "unit", "trivial", "seed", "n_train", "variant", "role", "errors"]


def beside(results_dir: str | Path, name: str) -> Path:
    """The results called ``name`` beside ``results_dir``; where there are none, those that ship."""
    own = Path(results_dir).parent / name
    return own if (own / "records").is_dir() else paths.shipped_dir(name)


def shown(results_dir: str | Path, role: str) -> Path:
    """The folder whose variants of ``role`` are shown for ``results_dir``: itself; where it has none that of
    VARIANTS_SHOWN beside it, else the shipped one."""
    own = [Path(results_dir), Path(results_dir).parent / VARIANTS_SHOWN[role]]
    found = [folder for folder in own if variant_values(folder)["role"].eq(role).any()]
    return found[0] if found else paths.shipped_dir(VARIANTS_SHOWN[role])


def variant_values(results_dir: str | Path) -> pd.DataFrame:
    """One row per task, arm and variant (``base``: the profile itself) of the tasks that some variant has; COLUMNS.

    role: base, seed (another seed), size (fewer training structures), ablation (another pre-training) or same
    (another budget). Empty when there are no variants.
    """
    base = all_tasks_table(Path(results_dir) / "records")
    found = [all_tasks_table(folder).assign(variant=folder.parent.name)
             for folder in sorted(Path(results_dir).glob("variants/*/records"))
             if any(folder.glob("finetune/*/*.json"))]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat(found).merge(base, on=["task", "arm"], suffixes=("", "_base"))
    changed = [rows[name].ne(rows[f"{name}_base"]) for name in ROLES.values()]
    rows["role"] = np.select(changed, list(ROLES), "same")
    base = base[base["task"].isin(rows["task"])].assign(variant=BASE, role=BASE)
    return pd.concat([base[COLUMNS], rows[COLUMNS]], ignore_index=True)


def spread(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) of the test error over seeds: task, unit, arm, seeds, mean, std."""
    rows = values[values["role"].isin([BASE, "seed"])]
    grouped = rows.groupby(["task", "unit", "arm"], sort=False)["value"].agg(seeds="count", mean="mean", std="std")
    return grouped[grouped["seeds"] > 1].reset_index()


def gains_by_seed(values: pd.DataFrame, new: str, reference: str) -> pd.Series:
    """Relative improvement in % of ``new`` over ``reference`` by (task, seed), of base and variants of other seeds."""
    wide = values[values["role"].isin([BASE, "seed"])].pivot(index=["task", "seed"], columns="arm", values="value")
    return gain(wide.reindex(columns=list(ARMS)), new, reference).dropna()


def seed_gains(values: pd.DataFrame) -> pd.DataFrame:
    """Relative improvement in % of every seed where a task has several: task, seed, gain, comparison."""
    found = {name: gains_by_seed(values, *pair).rename("gain").reset_index() for name, pair in PAIRS.items()}
    table = pd.concat([gains.assign(comparison=name) for name, gains in found.items()], ignore_index=True)
    return table[table.groupby(["comparison", "task"])["seed"].transform("count") > 1].reset_index(drop=True)


def gain_spread(values: pd.DataFrame) -> pd.DataFrame:
    """Relative improvement in % over seeds: task, comparison, seeds, mean, std, lowest, highest."""
    grouped = seed_gains(values).groupby(["task", "comparison"], sort=False)["gain"]
    return grouped.agg(seeds="count", mean="mean", std="std", lowest="min", highest="max").reset_index()


def by_training_size(values: pd.DataFrame) -> pd.DataFrame:
    """Test errors of the arms by number of training structures, with both gains in % and their intervals (from, to):
    one row per task and number."""
    tasks = values.loc[values["role"] == "size", "task"].unique()
    rows = values[values["role"].isin([BASE, "size"]) & values["task"].isin(tasks)]
    wide, errors = (rows.pivot(index=["task", "unit", "n_train"], columns="arm", values=name).sort_index()
                    for name in ("value", "errors"))
    wide.columns.name, families = None, wide.index.get_level_values("task").map(dict(zip(rows["task"], rows["family"])))
    for name, (new, reference) in PAIRS.items():
        if {new, reference} <= set(wide):
            wide[f"{name} / %"] = gain(wide, new, reference)
            wide[[f"{name} from", f"{name} to"]] = [of_gain(pair[new], [pair[reference]], family)
                                                    for pair, family in zip(errors.to_dict("records"), families)]
    return wide.reset_index()


def ablations(values: pd.DataFrame) -> pd.DataFrame:
    """Test errors of pre-training ablations beside the whole recipe and from scratch, and gains over scratch in %.

    Columns: task, unit, arm, variant (GN-OC-S: from scratch; base: the whole recipe), value, gain,
    from and to of its interval.
    """
    found, columns = [], ["task", "unit", "arm", "variant", "value", "gain", "from", "to"]
    kept = values[["task", "unit", "arm", "variant", "value", "errors", "family", "role"]]
    for (task, arm), rows in kept[kept["role"] == "ablation"].groupby(["task", "arm"], sort=False):
        base, scratch = (kept[(kept["role"] == BASE) & (kept["task"] == task)].set_index("arm", drop=False),
                         f"GN-OC-{arm[-1]}")
        if {scratch, arm} <= set(base.index):
            table = pd.concat([base.loc[[scratch]].assign(variant=scratch), base.loc[[arm]], rows]).assign(arm=arm)
            table["gain"] = relative_improvement(base.loc[scratch, "value"], table["value"])
            known, family = base.loc[scratch, "errors"], rows["family"].iloc[0]
            table[["from", "to"]] = [of_gain(errors, [known], family) for errors in table["errors"]]
            found.append(table[columns])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def mean_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over training from scratch of every variant of ``ablations``, with its interval over tasks:
    variant, tasks, mean."""
    rows = table[~table["variant"].str.startswith("GN-OC")].groupby("variant", sort=False)["gain"]
    return pd.DataFrame([{"variant": name.replace(BASE, "whole recipe"), "tasks": len(gains),
                          "mean improvement / % [95 %]": words(gains.mean(), *of_mean(gains))} for name, gains in rows])
