"""Every claim of ``facts/claims.csv``: as printed, recomputed from the published tables, and ours.

A claim names its rule; ``recompute`` applies the rule to the published tables. Our column applies the same rule to our
records, whatever data they were computed on, and says which. Claims without a rule are listed with blank cells.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.records import read_record
from jmp_lib.results.speedup import speedup_table, speedup_totals
from jmp_lib.results.values import all_tasks_table, comparable, own_values, published_values, reduced, relative_improvement


def mean_gain(values: pd.DataFrame, reference: str, new: str, family: str = "") -> tuple[float, int]:
    """Mean relative improvement in % of ``new`` over ``reference`` (joined by | : the better), and the number of tasks.

    ``values``: tasks x models. ``family`` limits the tasks.
    """
    gains = relative_improvement(_of_family(values[reference.split("|")].min(axis=1, skipna=False), family),
                                 _of_family(values[new], family)).dropna()
    return gains.mean(), len(gains)


def gain_over_external(values: pd.DataFrame, new: str, family: str, skip: tuple = ("qm9_r2",)) -> tuple[float, int]:
    """Mean relative improvement in % of ``new`` over the lowest value of a model that is not one of the four arms."""
    others = values.drop(columns=[arm for arm in facts.ARMS if arm in values]).min(axis=1)
    gains = relative_improvement(_of_family(others, family), _of_family(values[new], family)).drop(list(skip)).dropna()
    return gains.mean(), len(gains)


def count_best(values: pd.DataFrame, new: str, against: list[str] | None = None) -> dict[str, int]:
    """Tasks where ``new`` is strictly best, tied with the best, and compared at all, against the models ``against``.

    By default against every other model but JMP-S (the paper counts the large model against previous work).
    """
    against = [m for m in values if m not in (new, "JMP-S")] if against is None else against
    best = values[against].min(axis=1)
    both = best.notna() & values[new].notna()
    return {"best": int((values[new] < best)[both].sum()), "tied": int((values[new] == best)[both].sum()),
            "tasks": int(both.sum())}


def recompute(claim) -> tuple[float, str]:
    """(value, words) of one claim from the published tables and the facts; (NaN, "") for a claim without a rule."""
    rule = claim["rule"]
    if rule in ("mean_gain", "mean_gain_over_better"):
        value, tasks = mean_gain(published_values(), claim["reference"], claim["new"], claim["family"])
        return value, f"{value:+.2f} % over {_tasks(tasks)}"
    if rule == "gain_over_external":
        value, tasks = gain_over_external(published_values(), claim["new"], claim["family"])
        return value, f"{value:+.2f} % over {_tasks(tasks)}"
    if rule == "count_best":
        count = count_best(published_values(five_fold_mean=True), claim["new"])
        return count["best"] + count["tied"], f"{count['best']} best + {count['tied']} tied of {count['tasks']}"
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
        raise ValueError(f"claims.csv: claim {claim['id']} has the unknown rule {rule!r}; mend it in jmp_lib/facts/claims.csv")
    return float("nan"), ""


def agrees(claim, recomputed: float) -> str:
    """``yes`` when the recomputed value lies within the claim's tolerance (half of its last printed digit), else ``no``.

    Blank where nothing is printed or nothing can be recomputed.
    """
    if claim["printed_value"] == "" or pd.isna(recomputed):
        return ""
    return "yes" if abs(recomputed - claim["printed_value"]) <= claim["tolerance"] else "no"


def claims_table(records_dir: str | Path | None = None) -> pd.DataFrame:
    """One row per claim: published, recomputed from the published tables, agrees, own, own tasks, own data, note.

    Without records (or before any run) the own columns are blank.
    """
    own = _own(Path(records_dir)) if records_dir is not None else None
    rows = []
    for claim in facts.claims().to_dict("records"):
        value, words = recompute(claim)
        row = {"id": claim["id"], "claim": claim["claim"], "published": claim["printed"],
               "published_where": claim["where_printed"], "recomputed_value": value,
               "recomputed_from_published": words, "agrees": agrees(claim, value),
               "own_value": float("nan"), "own": "", "own_tasks": "", "own_data": "",
               "definition": claim["definition"], "note": claim["note"]}
        if own and claim["own"] == "yes":
            row.update(_own_claim(claim, own))
        rows.append(row)
    return pd.DataFrame(rows)


def _own(records_dir: Path) -> dict | None:
    """What our records hold; None when there are none."""
    table = comparable(all_tasks_table(records_dir))
    if table.empty:
        return None
    pretraining = {path.stem: read_record(path) for path in sorted(records_dir.glob("pretrain/*.json"))}
    kinds = " and ".join(dict.fromkeys(str(kind) for kind in table["data_kind"].dropna()))
    profiles = " and ".join(dict.fromkeys(str(name) for name in table["profile"].dropna()))
    return {"table": table, "values": own_values(table), "speedup": speedup_totals(speedup_table(records_dir)),
            "pretraining": pretraining, "data": f"{kinds} data{reduced(table)}, profile {profiles}"}


def _own_claim(claim: dict, own: dict) -> dict:
    """The own columns of one claim; empty when the runs it needs are missing."""
    rule, values, nothing = claim["rule"], own["values"], {}
    if rule in ("mean_gain", "mean_gain_over_better"):
        value, tasks = mean_gain(values, claim["reference"], claim["new"], claim["family"])
        words = f"{value:+.2f} %"
    elif rule == "count_best":
        count = count_best(values, claim["new"], [arm for arm in facts.ARMS if arm != claim["new"]])
        value, tasks = count["best"] + count["tied"], count["tasks"]
        words = f"{count['best']} best + {count['tied']} tied of {tasks}, among our four arms"
    elif rule == "speedup_of_totals":
        part = own["speedup"][own["speedup"]["size"] == claim["new"][-1]]
        if part.empty:
            return nothing
        total = part.iloc[0]
        value, tasks = total["ratio_seconds_reached"], int(total["tasks_reached"])
        words = f"{value:.1f}x over the {tasks} of {total['tasks']} tasks that reach it" if tasks else "never reached"
    elif rule == "parameters":
        record = own["pretraining"].get(claim["new"].split("_")[0])
        if record is None:
            return nothing
        number = record["model"]["n_parameters"]
        return {"own_value": number / 1e6, "own": f"{number:,} in our pre-training model", "own_data": own["data"]}
    elif rule == "count_runs":
        value = int(own["table"].loc[own["table"]["arm"] == "JMP-L", "folds"].sum())
        return {"own_value": value, "own": f"{value} of JMP-L", "own_data": own["data"]}
    else:
        return nothing
    return {"own_value": value, "own": words, "own_tasks": tasks, "own_data": own["data"]} if tasks else nothing


def _of_family(series: pd.Series, family: str) -> pd.Series:
    return series[series.index.str.startswith(f"{family}_")] if family else series


def _tasks(number: int) -> str:
    return f"{number} task" + ("" if number == 1 else "s")
