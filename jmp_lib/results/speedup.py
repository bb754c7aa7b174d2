"""Speed-up: how much sooner the pre-trained arm reaches what the from-scratch arm reaches at its best.

The target is the lowest validation error of the from-scratch run (GN-OC). Its cost is the time of that run until then;
the cost of the pre-trained arm (JMP) of the same size is its time until the first validation at or below the target.
Validation happens now and then, so the time of the JMP arm is an upper limit and the ratio a lower one. The paper
compares GPU-hours over all tasks in this way; which error it watches was not found.

Within one run the curves fall up to its end, because the learning rate does; so ``shortened`` asks it of fine-tunings
that have their whole schedule in a half, a quarter, an eighth of the updates.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.records import load_pretraining_records
from jmp_lib.results.intervals import of_ratio
from jmp_lib.results.values import (
    PAIRS,
    all_tasks_table,
    comparable,
    finetune_records,
    gain,
    in_printed_unit,
    own_values,
)

ARMS_OF = {new[-1]: (new, reference) for new, reference in PAIRS.values()}  # S and L -> JMP arm, from-scratch arm
BUDGETS = {"half": 2, "quarter": 4, "eighth": 8}  # variants of the pre-trained arms: how many times fewer updates
NUMBERS = ["target_val", "scratch_seconds", "scratch_steps", "jmp_seconds", "jmp_steps", "ratio_seconds", "ratio_steps",
           "jmp_seconds_whole_run", "jmp_steps_whole_run"]


def speedup_table(records_dir: str | Path) -> pd.DataFrame:
    """One row per task and size whose two arms were run (the first fold): target, costs and ratios.

    ``target_val`` is in the printed unit. ``jmp_*`` and ``ratio_*`` are NaN where the JMP arm never reaches the target
    (printed as ``-``). Empty when no pair was run.
    """
    runs = {(r["task"], r["arm"]): r for r in reversed(finetune_records(records_dir))}  # the first fold remains
    rows = []
    for task in facts.tasks().itertuples():
        for size, (new, reference) in ARMS_OF.items():
            scratch, jmp = runs.get((task.id, reference)), runs.get((task.id, new))
            if scratch is None or jmp is None or not (known := _validated(scratch)):
                continue
            best = min(known, key=lambda entry: entry["val_metric"])
            hit = next((entry for entry in _validated(jmp) if entry["val_metric"] <= best["val_metric"]), {})
            last = (jmp.get("history") or [{}])[-1]
            row = {"task": task.id, "family": task.family, "size": size, "unit": task.unit_printed,
                   "target_val": in_printed_unit(scratch, best["val_metric"])}
            for cost, field in (("seconds", "seconds"), ("steps", "step")):
                row |= {f"scratch_{cost}": best[field], f"jmp_{cost}": hit.get(field),
                        f"jmp_{cost}_whole_run": last.get(field), f"ratio_{cost}": _ratio(best[field], hit.get(field))}
            rows.append(row)
    return pd.DataFrame(rows, columns=["task", "family", "size", "unit", *NUMBERS]).astype(
        dict.fromkeys(NUMBERS, float))


def speedup_totals(table: pd.DataFrame) -> pd.DataFrame:
    """Per size: tasks compared and reached, and ratios of the summed costs.

    ``ratio_*_reached`` sums over the tasks that reach the target only; ``ratio_*_all`` sums over all and counts a task
    that never reaches it with its whole run, so it is still an upper limit of the true ratio; ``median_*`` is the
    median of the ratios per task. ``_from`` and ``_to``: 95 % interval of ``ratio_*_all``, tasks drawn anew.
    """
    rows, costs = [], ("seconds", "steps")
    for size, part in table.groupby("size", sort=False):
        hit = part.dropna(subset="jmp_seconds")
        rows.append({"size": size, "tasks": len(part), "tasks_reached": len(hit)})
        for cost in costs:
            spent = part[f"jmp_{cost}"].fillna(part[f"jmp_{cost}_whole_run"])
            low, high = of_ratio(part[f"scratch_{cost}"], spent)
            rows[-1] |= {f"ratio_{cost}_reached": _ratio(hit[f"scratch_{cost}"].sum(), hit[f"jmp_{cost}"].sum()),
                         f"ratio_{cost}_all": _ratio(part[f"scratch_{cost}"].sum(), spent.sum()),
                         f"ratio_{cost}_all_from": low, f"ratio_{cost}_all_to": high,
                         f"median_ratio_{cost}": hit[f"ratio_{cost}"].median()}
    names = [name for c in costs for name in (f"ratio_{c}_reached", f"ratio_{c}_all", f"ratio_{c}_all_from",
                                              f"ratio_{c}_all_to", f"median_ratio_{c}")]
    return pd.DataFrame(rows, columns=["size", "tasks", "tasks_reached", *names])


def shortened(results_dir: str | Path) -> pd.DataFrame:
    """Fine-tunings with ever fewer updates (the variants ``BUDGETS`` that were run) beside those with all: a row per
    task that has them all, size and budget.

    relative: lowest validation error over that of training from scratch with all updates; hit: update of the first
    validation that is as good, infinite without one; scratch_steps: that of training from scratch at its best; whole:
    all updates.
    """
    folders = {name: Path(results_dir) / "variants" / name / "records" for name in BUDGETS}
    runs = {name: {(r["task"], r["arm"][-1]): r for r in reversed(finetune_records(folder))}
            for name, folder in folders.items()
            if any(folder.glob("finetune/*/*.json"))}  # the first fold remains
    whole, found = {(r["task"], r["arm"]): r for r in reversed(finetune_records(Path(results_dir) / "records"))}, []
    for row in speedup_table(Path(results_dir) / "records").to_dict("records") if runs else ():
        every = ({"all": whole[row["task"], ARMS_OF[row["size"]][0]]}
                 | {name: of.get((row["task"], row["size"])) for name, of in runs.items()})
        for name, run in every.items() if None not in every.values() else ():
            errors = [(e["step"], in_printed_unit(run, e["val_metric"])) for e in _validated(run)]
            found.append({"task": row["task"], "unit": row["unit"], "size": row["size"],
                          "budget": name, "share": 1 / BUDGETS.get(name, 1),
                          "relative": min((error for _, error in errors), default=math.nan) / row["target_val"],
                          "hit": next((float(step) for step, error in errors if error <= row["target_val"]), math.inf),
                          "scratch_steps": row["scratch_steps"], "whole": row["jmp_steps_whole_run"]})
    return pd.DataFrame(found, columns=["task", "unit", "size", "budget", "share", "relative",
                                        "hit", "scratch_steps", "whole"])


def soonest(table: pd.DataFrame) -> pd.DataFrame:
    """Of ``shortened``, a row per size, of all tasks and of forces: tasks, on how many of them fine-tuning with each
    budget is as good, and by which ratio it is so sooner in the soonest of its runs, with the 95 % interval over
    tasks (as good in none: all updates count).
    """
    rows = []
    for size, part in table.groupby("size", sort=False):
        for of, tasks in (("all tasks", part), ("forces", part[part["unit"] == "meV/A"])):
            each = tasks.groupby("task", sort=False)[["hit", "scratch_steps", "whole"]].min()
            spent = each["hit"].where(each["hit"] < math.inf, each["whole"])
            low, high = of_ratio(each["scratch_steps"], spent)
            rows.append({"size": size, "of": of, "tasks": len(each),
                         **{name: int((of_budget["hit"] < math.inf).sum())
                            for name, of_budget in tasks.groupby("budget", sort=False)},
                         "ratio": _ratio(each["scratch_steps"].sum(), spent.sum()), "from": low, "to": high})
    return pd.DataFrame(rows, columns=["size", "of", "tasks", *table["budget"].unique(), "ratio", "from", "to"])


def longer(results_dir: str | Path) -> pd.DataFrame:
    """Trainings with eight times the updates (variant ``long``): a row per task and size with all of them, the update
    at which training from scratch is best, that at which fine-tuning is as good, how much sooner, and the gain in
    test error with as many and with the usual updates."""
    folders = [Path(results_dir, *variant, "records") for variant in ((), ("variants", "long"))]
    usual, eight = (own_values(comparable(all_tasks_table(folder))) for folder in folders)
    rows = [{"task": row.task, "size": row.size, "updates": row.jmp_steps_whole_run,
             "best from scratch": row.scratch_steps,
             "as good pre-trained": row.jmp_steps, "times sooner": row.ratio_steps,
             "gain / %": gain(eight, *ARMS_OF[row.size])[row.task],
             "gain, usual updates / %": gain(usual, *ARMS_OF[row.size])[row.task]}
            for row in speedup_table(folders[1]).itertuples(index=False)]
    return pd.DataFrame(rows, columns=["task", "size", "updates", "best from scratch", "as good pre-trained",
                                       "times sooner", "gain / %", "gain, usual updates / %"])


def cost_table(records_dir: str | Path) -> pd.DataFrame:
    """What each step costs in all: GPU-hours of the paper (second-hand), minutes of ours; a task that never reaches
    the target counts with its whole run. Both sizes of network together on our side, where the paper's is of one."""
    table, numbers = speedup_table(records_dir), facts.hyperparameters()
    once, hours = numbers["pretraining"]["gpu_hours"][0], numbers["finetuning"]["gpu_hours"]
    spent = table["jmp_seconds"].fillna(table["jmp_seconds_whole_run"])
    ours = (sum(r["wall_time_s"] for r in load_pretraining_records(Path(records_dir).parent)),
            table["scratch_seconds"].sum(), spent.sum())
    steps = ("pre-training, once", "from scratch until its best", "fine-tuning until as good")
    return pd.DataFrame({"step": steps,
                         "paper / GPU-hours": (once, hours["from_scratch"], hours["finetuning_until_equal"]),
                         "this workbook / minutes": [round(seconds / 60, 1) for seconds in ours]})


def machines(records: list[dict]) -> str:
    """The machines that the runs of ``records`` were computed on, in words."""
    return " and ".join(dict.fromkeys(name for record in records
                                      for name in [one["device"] for one in record["machines"]]))


def _validated(record: dict) -> list[dict]:
    """Entries of the learning curve with a finite validation error."""
    return [e for e in record.get("history") or []
            if e.get("val_metric") is not None and math.isfinite(e["val_metric"])]


def _ratio(scratch: float, jmp: float | None) -> float:
    return scratch / jmp if jmp else float("nan")
