"""Every claim of ``facts/claims.csv``: as printed, recomputed from the published tables, and ours.

A claim names its rule; ``recompute`` applies the rule to the published tables. Our column applies the same rule to our
records, whatever data they were computed on, and says which. Claims without a rule are listed with blank cells. The few
that a reader asks for first are the scoreboard, with a verdict from our interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.data.tasks import TASKS
from jmp_lib.records import load_pretraining_records
from jmp_lib.results import intervals, values, variants
from jmp_lib.results.speedup import speedup_table, speedup_totals

GAINS = ("mean_gain", "mean_gain_over_better", "gain_over_external")  # rules: mean relative improvement
NO_EFFECT = {"%": 0.0, "x": 1.0}  # unit -> the value of a claim that holds for nothing


def gains_of(claim: dict, errors: pd.DataFrame) -> pd.Series:
    """Relative improvement in % by task that a claim of one of the rules ``GAINS`` is the mean of;
    errors: tasks x models.

    gain_over_external: over the lowest value of a model that is not one of the four arms, without QM9's R2.
    """
    if claim["rule"] == "gain_over_external":
        errors = errors.assign(external=errors.drop(columns=[*facts.ARMS]).min(axis=1)).drop("qm9_r2")
    return values.gain(errors, claim["new"], claim["reference"] or "external", claim["family"]).dropna()


def standing(errors: pd.DataFrame, new: str, against: list[str] | None = None) -> pd.Series:
    """``best``, ``tied`` or ``behind`` by task: ``new`` among the models ``against``; tasks that have
    no two are left out.

    By default against every other model but JMP-S (the paper counts the large model against previous work).
    """
    best = errors[[m for m in errors if m not in (new, "JMP-S")] if against is None else against].min(axis=1)
    words = pd.Series("behind", errors.index).mask(errors[new] == best, "tied").mask(errors[new] < best, "best")
    return words[best.notna() & errors[new].notna()]


def recompute(claim: dict) -> tuple[float, str]:
    """(value, words) of one claim from the published tables and the facts; (NaN, "") for a claim without a rule."""
    rule, numbers = claim["rule"], facts.hyperparameters()
    if rule in GAINS:
        gains = gains_of(claim, values.published_values())
        return gains.mean(), f"{gains.mean():+.2f} % over {len(gains)} task" + "s" * (len(gains) != 1)
    if rule == "count_best":
        found = standing(values.published_values(five_fold_mean=True), claim["new"])
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
        runs = sum(task.n_folds for task in TASKS.values())
        return runs, f"{runs} from the tasks and their folds"
    if rule and rule != "ablation":  # the paper's table of ablations was not found
        raise ValueError(f"claim {claim['id']} has the unknown rule {rule!r}; mend it in jmp_lib/facts/claims.csv")
    return float("nan"), ""


@dataclass
class Own:
    """What the records of one folder hold."""

    table: pd.DataFrame  # of all tasks
    speedup: pd.DataFrame
    pretraining: dict  # size -> record
    baselines: pd.DataFrame  # errors, tasks x baselines
    ablations: pd.DataFrame  # those that are shown beside them
    ablation_data: str  # of these, in words

    @classmethod
    def of(cls, records_dir: str | Path) -> Own:
        """From the records in a folder; numbers of the smoke profile are left out."""
        folder = Path(records_dir).parent
        shown = variants.shown(folder, "ablation")
        table, tried = (values.comparable(values.all_tasks_table(place / "records")) for place in (folder, shown))
        return cls(table, speedup_table(records_dir),
                   {record["size"]: record for record in load_pretraining_records(folder)},
                   values.baseline_table(folder).pivot(index="task", columns="baseline", values="value"),
                   variants.ablations(variants.variant_values(shown)), data_words(tried))

    @property
    def values(self) -> pd.DataFrame:
        return values.own_values(self.table)

    def standing(self, claim: dict, baselines: bool = True) -> pd.Series:
        """The standing of the claim's arm among our four, and beside the ``baselines`` that were run."""
        errors = self.values.join(self.baselines) if baselines else self.values
        return standing(errors, claim["new"], [model for model in errors if model != claim["new"]])


def data_words(all_tasks: pd.DataFrame) -> str:
    """Which data and profiles the values of ``all_tasks`` are of."""
    kinds, profiles = (" and ".join(all_tasks[name].dropna().astype(str).unique()) for name in ("data_kind", "profile"))
    return f"{kinds} data{values.reduced(all_tasks)}, profile {profiles}"


def claims_table(records_dir: str | Path | None = None) -> pd.DataFrame:
    """One row per claim: as printed, recomputed from the published tables, and (blank without records)
    ours with its interval.

    agrees: whether the recomputed value lies within the claim's tolerance (half of its last printed digit),
    where there is one.
    """
    own = Own.of(records_dir) if records_dir is not None else None
    rows = []
    for claim in facts.claims().to_dict("records"):
        value, words = recompute(claim)
        known = claim["printed_value"] != "" and not pd.isna(value)
        close = known and abs(value - claim["printed_value"]) <= claim["tolerance"]
        where = claim["printed"] and claim["where_printed"]
        rows.append({"id": claim["id"], "claim": claim["claim"],
                     "published": claim["printed"] + f" ({where})" * bool(where), "recomputed_value": value,
                     "recomputed_from_published": words, "agrees": ("yes" if close else "no") if known else "",
                     "own_value": float("nan"), "own_from": float("nan"), "own_to": float("nan"),
                     "own": "", "own_tasks": "", "own_data": "", "definition": claim["definition"],
                     "note": claim["note"], **(own_claim(claim, own) if own is not None else {})})
    return pd.DataFrame(rows)


def own_claim(claim: dict, own: Own) -> dict:
    """The own columns of one claim; empty when it has none or the runs it needs are missing."""
    rule, tasks, ends, data = claim["rule"], "", intervals.UNKNOWN, ""
    if own.table.empty or claim["own"] != "yes":
        return {}
    if rule in GAINS:
        gains, without = gains_of(claim, own.values), values.not_learnt(own.table)
        value, tasks = gains.mean(), len(gains)
        ends = intervals.of_mean_gain(gains, intervals.draws_by_task(own.table, claim["new"], claim["reference"]))
        words, learnt = intervals.words(value, *ends, "%"), gains.drop(without, errors="ignore")
        if claim["family"] == "" and len(learnt) < tasks:
            words += (f"; {intervals.words(learnt.mean(), *intervals.of_mean(learnt), '%')} over the "
                      f"{len(learnt)} that were learnt")
    elif rule == "ablation":
        wide = own.ablations.pivot(index=["task", "arm"], columns="variant", values="value")
        if not {claim["new"], claim["reference"]} <= set(wide):
            return {}
        gains = values.gain(wide, claim["new"], claim["reference"]).dropna()
        value, tasks, ends, data = gains.mean(), len(gains), intervals.of_mean(gains), own.ablation_data
        words = intervals.words(value, *ends, "%")
    elif rule == "count_best":
        found, among = own.standing(claim), own.standing(claim, baselines=False)
        value, tasks = (found != "behind").sum(), len(found)
        ends = intervals.of_count(value, tasks) if tasks else ends
        words = f"{_counts(among)}, among our four arms"
        if len(own.baselines):
            words = f"{_counts(found)}, beside our arms and baselines ({words})"
    elif rule == "speedup_of_totals":
        totals = speedup_totals(own.speedup[own.speedup["size"] == claim["new"][-1]])
        if totals.empty:
            return {}
        row = totals.iloc[0]
        value, tasks, ends = (row["ratio_steps_all"], row["tasks"],
                              (row["ratio_steps_all_from"], row["ratio_steps_all_to"]))
        words = (f"{intervals.words(value, *ends, 'x')} in updates over all {tasks} tasks, "
                 f"{row['ratio_seconds_all']:.2f}x in time; {row['ratio_steps_reached']:.2f}x and "
                 f"{row['ratio_seconds_reached']:.2f}x over the {row['tasks_reached']} that reach it")
    elif rule == "parameters" and claim["new"].split("_")[0] in own.pretraining:
        number = own.pretraining[claim["new"].split("_")[0]]["model"]["n_parameters"]
        value, words = number / 1e6, f"{number:,} in our pre-training model"
    elif rule == "count_runs":
        value = int(own.table.loc[own.table["arm"] == "JMP-L", "folds"].sum())
        words = f"{value} of JMP-L"
    else:
        return {}
    return {} if tasks == 0 else {"own_value": value, "own_from": ends[0], "own_to": ends[1], "own": words,
                                  "own_tasks": tasks, "own_data": data or data_words(own.table)}


def scoreboard(records_dir: str | Path) -> pd.DataFrame:
    """The claims that a reader asks for first, where we have a value of our own; notebook:
    the one that has the evidence.

    paper: as printed, else recomputed from the printed tables.
    """
    facts_of = facts.claims().set_index("id").query("scoreboard != ''")
    table = claims_table(records_dir).set_index("id").loc[facts_of.index].query("own != ''")
    rows = []
    for name, row in table.iterrows():
        claim = facts_of.loc[name]
        printed = claim["printed_value"] if claim["printed_value"] != "" else row["recomputed_value"]
        own = intervals.words(row["own_value"], row["own_from"], row["own_to"],
                              claim["unit"], f" of {row['own_tasks']}")
        rows.append({"claim": row["claim"],
                     "paper": claim["printed"] or f"{row['recomputed_value']:+.1f} %, recomputed",
                     "where": claim["scoreboard"], "own": own, "agrees": verdict(claim, printed, row),
                     "data": row["own_data"], "notebook": claim["notebook"]})
    return pd.DataFrame(rows, columns=["claim", "paper", "where", "own", "agrees", "data", "notebook"])


def verdict(claim: pd.Series, printed: float, row: pd.Series) -> str:
    """Whether our value agrees with the paper's, as ``agreement`` says; a number of tasks: the same share,
    fewer or more.

    An ablation is compared by its sign, because the paper's is against another base.
    """
    value, low, high = row["own_value"], row["own_from"], row["own_to"]
    if claim["unit"] not in NO_EFFECT:  # a number of tasks, as a share of those that were run
        printed *= row["own_tasks"] / len(facts.tasks())
        return "yes" if low <= printed <= high else "fewer" if value < printed else "more"
    found = agreement(value, low, high, printed, NO_EFFECT[claim["unit"]])
    if claim["rule"] == "ablation":
        found = "in sign" if found == "yes" else found.partition(",")[0]
    return found + (" (no interval)" if pd.isna(low) and found != "no" else "")


def agreement(value: float, low: float, high: float, printed: float, none: float = 0.0) -> str:
    """How our value agrees with the ``printed`` one: undecided (its interval holds ``none``, the value of no effect),
    yes (holds the printed value), no (another side of ``none``), else "in sign, smaller" or "in sign, larger".
    Without interval by the value alone."""
    if low <= none <= high:
        return "undecided"
    if low <= printed <= high:
        return "yes"
    if (value > none) != (printed > none):
        return "no"
    return f"in sign, {'smaller' if abs(value - none) < abs(printed - none) else 'larger'}"


def _counts(standings: pd.Series) -> str:
    return f"{(standings == 'best').sum()} best + {(standings == 'tied').sum()} tied of {len(standings)}"
