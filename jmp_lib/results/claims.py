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

GAINS = ("mean_gain", "mean_gain_over_better", "gain_over_external")  # rules: mean relative improvement


def gains_of(claim: dict, values: pd.DataFrame) -> pd.Series:
    """Relative improvement in % by task that a claim of one of the rules ``GAINS`` is the mean of.

    gain_over_external: over the lowest value of a model that is not one of the four arms, without QM9's R2.
    """
    if claim["rule"] == "gain_over_external":
        values = values.assign(external=values.drop(columns=[*facts.ARMS]).min(axis=1)).drop("qm9_r2")
    return gain(values, claim["new"], claim["reference"] or "external", claim["family"]).dropna()


def standing(values: pd.DataFrame, new: str, against: list[str] | None = None) -> pd.Series:
    """``best``, ``tied`` or ``behind`` by task: ``new`` among the models ``against``; tasks that have no two are left out.

    By default against every other model but JMP-S (the paper counts the large model against previous work).
    """
    against = [m for m in values if m not in (new, "JMP-S")] if against is None else against
    best = values[against].min(axis=1)
    words = pd.Series("behind", values.index).mask(values[new] == best, "tied").mask(values[new] < best, "best")
    return words[best.notna() & values[new].notna()]


def recompute(claim: dict) -> tuple[float, str]:
    """(value, words) of one claim from the published tables and the facts; (NaN, "") for a claim without a rule."""
    rule, numbers = claim["rule"], facts.hyperparameters()
    if rule in GAINS:
        gains = gains_of(claim, published_values())
        return gains.mean(), f"{gains.mean():+.2f} % over {len(gains)} task" + "s" * (len(gains) != 1)
    if rule == "count_best":
        found = standing(published_values(five_fold_mean=True), claim["new"])
        return (found != "behind").sum(), _counts(found)
    if rule == "speedup_of_totals":
        hours = numbers["finetuning"]["gpu_hours"]
        value = hours["from_scratch"] / hours["finetuning_until_equal"]
        return value, f"{hours['from_scratch']} / {hours['finetuning_until_equal']} GPU-hours = {value:.1f}x"
    if rule == "pretraining_total":
        sizes = facts.datasets()["n_train_paper"].dropna() / 1e6
        return sizes.sum(), " + ".join(f"{size:.0f}" for size in sizes) + f" = {sizes.sum():.0f}M"
    if rule == "parameters":
        value, origin = numbers["models"]["parameters"][claim["new"]]
        return value / 1e6, f"{value:,} ({claim['new'].split('_', 1)[1].replace('_', ' ')} model, {origin})"
    if rule == "count_runs":
        runs = sum(len(facts.fold_counts(task)) for task in facts.tasks()["id"])
        return runs, f"{runs} from the tasks and their folds"
    if rule:
        raise ValueError(f"claim {claim['id']} has the unknown rule {rule!r}; mend it in jmp_lib/facts/claims.csv")
    return float("nan"), ""


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

    def standing(self, claim: dict) -> pd.Series:
        """The standing of the claim's arm among our four."""
        return standing(self.values, claim["new"], [arm for arm in facts.ARMS if arm != claim["new"]])


def claims_table(records_dir: str | Path | None = None) -> pd.DataFrame:
    """One row per claim: published, recomputed from the published tables, agrees, own, own tasks, own data, note.

    agrees: ``yes`` when the recomputed value lies within the claim's tolerance (half of its last printed digit), else
    ``no``; blank where nothing is printed or nothing can be recomputed. Without records the own columns are blank.
    """
    own = Own.of(records_dir) if records_dir is not None else None
    rows = []
    for claim in facts.claims().to_dict("records"):
        value, words = recompute(claim)
        known = claim["printed_value"] != "" and not pd.isna(value)
        close = known and abs(value - claim["printed_value"]) <= claim["tolerance"]
        rows.append({"id": claim["id"], "claim": claim["claim"], "published": claim["printed"],
                     "published_where": claim["where_printed"], "recomputed_value": value, "recomputed_from_published": words,
                     "agrees": ("yes" if close else "no") if known else "", "own_value": float("nan"), "own": "",
                     "own_tasks": "", "own_data": "", "definition": claim["definition"], "note": claim["note"],
                     **(own_claim(claim, own) if own is not None else {})})
    return pd.DataFrame(rows)


def own_claim(claim: dict, own: Own) -> dict:
    """The own columns of one claim; empty when it has none or the runs it needs are missing."""
    rule, tasks = claim["rule"], ""
    if own.table.empty or claim["own"] != "yes":
        return {}
    if rule in GAINS:
        gains = gains_of(claim, own.values)
        value, tasks, words = gains.mean(), len(gains), f"{gains.mean():+.2f} %"
    elif rule == "count_best":
        found = own.standing(claim)
        value, tasks, words = (found != "behind").sum(), len(found), f"{_counts(found)}, among our four arms"
    elif rule == "speedup_of_totals":
        totals = speedup_totals(own.speedup[own.speedup["size"] == claim["new"][-1]])
        if totals.empty:
            return {}
        value, tasks, count = totals.loc[0, ["ratio_seconds_reached", "tasks_reached", "tasks"]]
        words = f"{value:.1f}x over the {tasks} of {count} tasks that reach it" if tasks else "never reached"
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
