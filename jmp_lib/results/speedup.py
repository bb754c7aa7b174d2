"""Speed-up: how much sooner the pre-trained arm reaches what the from-scratch arm reaches at its best.

The target is the lowest validation error of the from-scratch run (GN-OC). Its cost is the time of that run until then;
the cost of the pre-trained arm (JMP) of the same size is its time until the first validation at or below the target.
Validation happens now and then, so the time of the JMP arm is an upper limit and the ratio a lower one. The paper compares
GPU-hours over all tasks in this way; which error it watches was not found.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.results.values import finetune_records, in_printed_unit

PAIRS = {"S": ("GN-OC-S", "JMP-S"), "L": ("GN-OC-L", "JMP-L")}
COLUMNS = ["task", "family", "size", "unit", "target_val", "scratch_seconds", "scratch_steps", "jmp_seconds",
           "jmp_steps", "ratio_seconds", "ratio_steps", "jmp_seconds_whole_run", "jmp_steps_whole_run"]


def first_at_or_below(history: list[dict], target: float) -> dict | None:
    """The first entry of ``history`` whose ``val_metric`` is at or below ``target``; None when there is none."""
    return next((entry for entry in _validated(history) if entry["val_metric"] <= target), None)


def speedup_table(records_dir: str | Path) -> pd.DataFrame:
    """One row per task and size whose two arms were run (the first fold): target, costs and ratios.

    ``target_val`` is in the printed unit. ``jmp_*`` and ``ratio_*`` are NaN where the JMP arm never reaches the target
    (printed as ``-``). Empty when no pair was run.
    """
    runs = {}
    for r in finetune_records(records_dir):  # in the order of the folds
        runs.setdefault((r["task"], r["arm"]), r)
    rows = []
    for task in facts.tasks().itertuples():
        for size, (scratch_arm, jmp_arm) in PAIRS.items():
            scratch, jmp = runs.get((task.id, scratch_arm)), runs.get((task.id, jmp_arm))
            if scratch is None or jmp is None or not _validated(scratch.get("history") or []):
                continue
            best = min(_validated(scratch["history"]), key=lambda entry: entry["val_metric"])
            hit = first_at_or_below(jmp.get("history") or [], best["val_metric"]) or {}
            last = (jmp.get("history") or [{}])[-1]
            rows.append({
                "task": task.id, "family": task.family, "size": size, "unit": task.unit_printed,
                "target_val": in_printed_unit(scratch, best["val_metric"]),
                "scratch_seconds": best["seconds"], "scratch_steps": best["step"],
                "jmp_seconds": hit.get("seconds"), "jmp_steps": hit.get("step"),
                "ratio_seconds": _ratio(best["seconds"], hit.get("seconds")),
                "ratio_steps": _ratio(best["step"], hit.get("step")),
                "jmp_seconds_whole_run": last.get("seconds"), "jmp_steps_whole_run": last.get("step"),
            })
    table = pd.DataFrame(rows, columns=COLUMNS)
    numbers = COLUMNS[4:]
    return table.astype({name: float for name in numbers})


def speedup_totals(table: pd.DataFrame) -> pd.DataFrame:
    """Per size: tasks compared and reached, and ratios of the summed costs.

    ``ratio_*_reached`` sums over the tasks that reach the target only; ``ratio_*_all`` sums over all and counts a task
    that never reaches it with its whole run, so it is still an upper limit of the true ratio; ``median_*`` is the
    median of the ratios per task.
    """
    rows = []
    for size in PAIRS:
        part = table[table["size"] == size]
        if part.empty:
            continue
        hit = part[part["jmp_seconds"].notna()]
        row = {"size": size, "tasks": len(part), "tasks_reached": len(hit)}
        for cost in ("seconds", "steps"):
            spent = part[f"jmp_{cost}"].fillna(part[f"jmp_{cost}_whole_run"])
            row[f"ratio_{cost}_reached"] = _ratio(hit[f"scratch_{cost}"].sum(), hit[f"jmp_{cost}"].sum())
            row[f"ratio_{cost}_all"] = _ratio(part[f"scratch_{cost}"].sum(), spent.sum())
            row[f"median_ratio_{cost}"] = hit[f"ratio_{cost}"].median()
        rows.append(row)
    names = [f"{kind}_{cost}{end}" for cost in ("seconds", "steps")
             for kind, end in (("ratio", "_reached"), ("ratio", "_all"), ("median_ratio", ""))]
    return pd.DataFrame(rows, columns=["size", "tasks", "tasks_reached", *names])


def _validated(history: list[dict]) -> list[dict]:
    """Entries with a finite validation error."""
    return [e for e in history if e.get("val_metric") is not None and math.isfinite(e["val_metric"])]


def _ratio(scratch: float | None, jmp: float | None) -> float:
    return scratch / jmp if scratch is not None and jmp else float("nan")
