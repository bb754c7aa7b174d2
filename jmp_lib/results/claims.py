"""Every claim of ``facts/claims.csv``: as printed, recomputed from the published tables, and ours.

A claim names its rule; ``recompute`` applies the rule to the published tables. Our column applies the same rule to our
records, whatever data they were computed on, and says which. Claims without a rule are listed with blank cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.records import load_pretraining_records
from jmp_lib.results.speedup import speedup_table, speedup_totals
from jmp_lib.results.values import all_tasks_table, comparable, gain, own_values, published_values, reduced

GAINS = ("mean_gain", "mean_gain_over_better")  # rules: mean relative improvement


def gain_over_external(values: pd.DataFrame, new: str, family: str, skip: tuple = ("qm9_r2",)) -> pd.Series:
    """Relative improvement in % of ``new`` over the lowest value of a model that is not one of the four arms, by task."""
    others = values.drop(columns=[arm for arm in facts.ARMS if arm in values]).min(axis=1)
    return gain(values[[new]].assign(others=others), new, "others", family).drop(list(skip))


def standing(values: pd.DataFrame, new: str, against: list[str] | None = None) -> pd.Series:
    """``best``, ``tied`` or ``behind`` by task: ``new`` among the models ``against``; tasks that have no two are left out.

    By default against every other model but JMP-S (the paper counts the large model against previous work).
    """
    against = [m for m in values if m not in (new, "JMP-S")] if against is None else against
    best = values[against].min(axis=1)
    words = pd.Series("behind", values.index).mask(values[new] == best, "tied").mask(values[new] < best, "best")
    return words[best.notna() & values[new].notna()]


def recompute(claim) -> tuple[float, str]:
    """(value, words) of one claim from the published tables and the facts; (NaN, "") for a claim without a rule."""
    rule = claim["rule"]
    if rule in (*GAINS, "gain_over_external"):
        gains = gain(published_values(), claim["new"], claim["reference"], claim["family"]) if rule in GAINS else \
            gain_over_external(published_values(), claim["new"], claim["family"])
        value, tasks = gains.mean(), gains.count()
        return value, f"{value:+.2f} % over {tasks} task" + ("" if tasks == 1 else "s")
    if rule == "count_best":
        found = standing(published_values(five_fold_mean=True), claim["new"])
        return (found != "behind").sum(), _counts(found)
    if rule == "speedup_of_totals":
        hours = facts.hyperparameters()["finetuning"]["gpu_hours"]
        value = hours["from_scratch"] / hours["finetuning_until_equal"]
        return value, f"{hours['from_scratch']} / {hours['finetuning_until_equal']} GPU-hours = {value:.1f}x"
    if rule == "pretraining_total":
        sizes = facts.datasets()["n_train_paper"].dropna() / 1e6
        return sizes.sum(), " + ".join(f"{size:.0f}" for size in sizes) + f" = {sizes.sum():.0f}M"
    if rule == "parameters":
        value, origin = facts.hyperparameters()["models"]["parameters"][claim["new"]]
        return value / 1e6, f"{value:,} ({claim['new'].split('_', 1)[1].replace('_', ' ')} model, {origin})"
    if rule == "count_runs":
        runs = sum(len(facts.fold_counts(task)) for task in facts.tasks()["id"])
        return runs, f"{runs} from the tasks and their folds"
    if rule:
        raise ValueError(f"claim {claim['id']} has the unknown rule {rule!r}; mend it in jmp_lib/facts/claims.csv")
    return float("nan"), ""


def agrees(claim, recomputed: float) -> str:
    """``yes`` when the recomputed value lies within the claim's tolerance (half of its last printed digit), else ``no``.

    Blank where nothing is printed or nothing can be recomputed.
    """
    if claim["printed_value"] == "" or pd.isna(recomputed):
        return ""
    return "yes" if abs(recomputed - claim["printed_value"]) <= claim["tolerance"] else "no"


@dataclass
class Own:
    """What the records of one folder hold: the table of all tasks, the speed-ups, the pre-trainings {size: record}."""

    table: pd.DataFrame
    speedup: pd.DataFrame
    pretraining: dict

    @classmethod
    def of(cls, records_dir: str | Path) -> Own:
        """From the records in a folder; numbers of the smoke profile are left out."""
        return cls(comparable(all_tasks_table(records_dir)), speedup_table(records_dir),
                   {record["size"]: record for record in load_pretraining_records(Path(records_dir).parent)})

    @property
    def values(self) -> pd.DataFrame:
        return own_values(self.table)

    @property
    def data(self) -> str:
        """Which data and profiles the values are of."""
        kinds, profiles = (" and ".join(self.table[name].dropna().astype(str).unique()) for name in ("data_kind", "profile"))
        return f"{kinds} data{reduced(self.table)}, profile {profiles}"


def claims_table(records_dir: str | Path | None = None) -> pd.DataFrame:
    """One row per claim: published, recomputed from the published tables, agrees, own, own tasks, own data, note.

    Without records (or before any run) the own columns are blank.
    """
    own = Own.of(records_dir) if records_dir is not None else None
    rows = []
    for claim in facts.claims().to_dict("records"):
        value, words = recompute(claim)
        row = {"id": claim["id"], "claim": claim["claim"], "published": claim["printed"],
               "published_where": claim["where_printed"], "recomputed_value": value,
               "recomputed_from_published": words, "agrees": agrees(claim, value),
               "own_value": float("nan"), "own": "", "own_tasks": "", "own_data": "",
               "definition": claim["definition"], "note": claim["note"]}
        if own is not None and not own.table.empty and claim["own"] == "yes":
            row.update(own_claim(claim, own))
        rows.append(row)
    return pd.DataFrame(rows)


def own_claim(claim: dict, own: Own) -> dict:
    """The own columns of one claim; empty when the runs it needs are missing."""
    rule, tasks = claim["rule"], ""
    if rule in GAINS:
        gains = gain(own.values, claim["new"], claim["reference"], claim["family"])
        value, tasks = gains.mean(), gains.count()
        words = f"{value:+.2f} %"
    elif rule == "count_best":
        found = standing(own.values, claim["new"], [arm for arm in facts.ARMS if arm != claim["new"]])
        value, tasks = (found != "behind").sum(), len(found)
        words = f"{_counts(found)}, among our four arms"
    elif rule == "speedup_of_totals":
        totals = speedup_totals(own.speedup).set_index("size")
        if claim["new"][-1] not in totals.index:
            return {}
        total = totals.loc[claim["new"][-1]]
        value, tasks = total["ratio_seconds_reached"], int(total["tasks_reached"])
        words = f"{value:.1f}x over the {tasks} of {total['tasks']:.0f} tasks that reach it" if tasks else "never reached"
    elif rule == "parameters" and claim["new"].split("_")[0] in own.pretraining:
        number = own.pretraining[claim["new"].split("_")[0]]["model"]["n_parameters"]
        value, words = number / 1e6, f"{number:,} in our pre-training model"
    elif rule == "count_runs":
        value = int(own.table.loc[own.table["arm"] == "JMP-L", "folds"].sum())
        words = f"{value} of JMP-L"
    else:
        return {}
    return {} if tasks == 0 else {"own_value": value, "own": words, "own_tasks": tasks, "own_data": own.data}


def _counts(standings: pd.Series) -> str:
    return f"{(standings == 'best').sum()} best + {(standings == 'tied').sum()} tied of {len(standings)}"
