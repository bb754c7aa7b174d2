"""Values side by side: records of fine-tuning as one table, published values as another, and the gains between arms.

All values stand in the unit that the paper prints (meV/A for forces, meV for energies, ...).
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.data.tasks import FAMILIES, get_task
from jmp_lib.records import read_record, unpacked_errors
from jmp_lib.results.intervals import draws_by_task, middle, of_mean_gain
from jmp_lib.units import print_factor

NEEDED = ("task", "arm", "metric", "value", "unit", "data", "n_train", "n_test")  # fields of every record
ALL_TASKS_COLUMNS = ["task", "family", "arm", "metric", "value", "unit", "data", "n_train", "n_test", "record",
                     "n_val", "data_kind", "profile", "seed", "folds", "mean_over_folds", "n_parameters",
                     "wall_time_s", "trivial", "composition", "learnt"]  # what is written of the table
# may it stand beside others; SHA-256 of the weights it started from, or ""; errors and weights of the
# test structures (S,2)
BESIDES = ["comparable", "pretrained", "errors"]

PAPER = "paper (published data)"  # whose values a column or a bar shows
# new arm, reference arm
COMPARISONS = {f"{new} over {reference}": (new, reference) for new, reference in (
    ("JMP-S", "GN-OC-S"), ("JMP-L", "GN-OC-L"), ("JMP-L", "GN-OC-S"), ("GN-OC-L", "GN-OC-S"), ("JMP-L", "JMP-S"))}
PAIRS = dict(list(COMPARISONS.items())[:2])  # pre-trained over from scratch, of one size


def relative_improvement(reference, new):
    """(reference - new) / reference in %, for errors (lower is better); floats or Series. The paper's definition."""
    return 100.0 * (reference - new) / reference


def finetune_records(records_dir: str | Path) -> list[dict]:
    """All fine-tuning records under ``records_dir``, in the order of the tasks, arms and folds, each with ``fold``
    and ``record`` (path relative to the results folder). ``ValueError`` for a file that is none or misplaced."""
    records_dir, found = Path(records_dir), []
    order = {name: place for place, name in enumerate(facts.tasks()["id"])}
    for path in records_dir.glob("finetune/*/*.json"):
        record = read_record(path)
        if missing := [name for name in NEEDED if name not in record]:
            raise ValueError(f"{path} lacks {', '.join(missing)}; delete it and run {path.parent.name} again")
        name = re.fullmatch(r"(.+?)(?:\.fold(\d+))?", path.stem)
        task, arm = record["task"], record["arm"]
        if (task, arm) != (path.parent.name, name[1]) or task not in order or arm not in facts.ARMS:
            raise ValueError(f"{path} holds the record of {arm} on {task}; delete it and run again")
        found.append({**record, "fold": int(name[2] or 0), "record": path.relative_to(records_dir.parent).as_posix()})
    return sorted(found, key=lambda r: (order[r["task"]], facts.ARMS.index(r["arm"]), r["fold"]))


def in_printed_unit(record: dict, value: float | None) -> float:
    """``value`` of ``record`` in the unit that the paper prints; NaN for None. Raises ``ValueError``: unknown units."""
    if value is None:
        return float("nan")
    try:
        return value * print_factor(record["unit"], get_task(record["task"]).printed_unit)
    except ValueError as error:
        raise ValueError(f"the record of {record['arm']} on {record['task']}: {error}") from None


def records_table(records_dir: str | Path) -> pd.DataFrame:
    """One row per fine-tuning record (task, arm and fold), in printed units.

    ``trivial`` is the error of the trivial prediction (mean of the training labels, zero forces). Columns:
    ``ALL_TASKS_COLUMNS`` (blank where several records are needed), ``fold``, ``updates`` and ``BESIDES``. Empty
    when nothing was run.
    """
    tasks = facts.tasks().set_index("id")
    return pd.DataFrame(
        [{**r, "family": tasks.loc[r["task"], "family"], "value": in_printed_unit(r, r["value"]),
          "unit": tasks.loc[r["task"], "unit_printed"], "trivial": in_printed_unit(r, r.get("baseline")),
          "n_parameters": (r.get("model") or {}).get("n_parameters"), "comparable": is_comparable(r),
          "pretrained": ((r.get("start") or {}).get("pretrained") or {}).get("sha256", ""),
          "errors": unpacked_errors(r)}
         for r in finetune_records(records_dir)], columns=[*ALL_TASKS_COLUMNS, "fold", "updates", *BESIDES])


def all_tasks_table(records_dir: str | Path) -> pd.DataFrame:
    """One row per task and arm that has a record; MatBench values are those of fold 0, as in the paper's comparison
    (else of the first fold that was run). Columns: ``ALL_TASKS_COLUMNS``, ``BESIDES``.

    ``mean_over_folds`` is filled where all five were run. ``composition``: error of the linear model of the composition
    (NaN for forces). ``learnt`` is "no" where no arm is better than that (forces: than zero): such a task shows nothing
    for either arm.
    """
    table = records_table(records_dir)
    folds = table.groupby(["task", "arm"])["fold"].transform("nunique")
    means = table.groupby(["task", "arm"])["value"].transform("mean").where(folds == 5)
    table = table.assign(folds=folds, mean_over_folds=means).drop_duplicates(["task", "arm"], ignore_index=True)
    simple = baseline_table(Path(records_dir).parent).query("baseline == 'composition'").set_index("task")["value"]
    table["composition"] = table["task"].map(simple).astype(float)
    best, simplest = table.groupby("task")["value"].transform("min"), table["composition"].fillna(table["trivial"])
    table["learnt"] = (best < simplest).map({True: "yes", False: "no"}).mask(simplest.isna() | best.isna(), "")
    return table[[*ALL_TASKS_COLUMNS, *BESIDES]]


def not_learnt(all_tasks: pd.DataFrame) -> list[str]:
    """The tasks of ``all_tasks_table`` on which no arm is better than a linear model of the composition."""
    return list(all_tasks.loc[all_tasks["learnt"] == "no", "task"].unique())


def is_comparable(record: dict) -> bool:
    """Whether the numbers of a record may stand beside others, as its profile says; older records do not say it."""
    return record.get("comparable", record.get("profile") != "smoke")


def comparable(all_tasks: pd.DataFrame) -> pd.DataFrame:
    """``all_tasks_table`` without the rows of profiles whose numbers never stand beside others (smoke)."""
    return all_tasks[all_tasks["comparable"].astype(bool)]


def reduced(all_tasks: pd.DataFrame) -> str:
    """", reduced" where published training parts are smaller than the official ones, else nothing."""
    published = all_tasks[all_tasks["data_kind"] == "published"]
    official = published["task"].map(facts.tasks().set_index("id")["n_train"])
    return ", reduced" if (published["n_train"] < official).any() else ""


def own_values(all_tasks: pd.DataFrame) -> pd.DataFrame:
    """Tasks x arms from ``all_tasks_table`` (all 40 tasks and four arms; NaN where nothing was run)."""
    wide = all_tasks.pivot_table(index="task", columns="arm", values="value", aggfunc="first")
    return wide.reindex(index=list(facts.tasks()["id"]), columns=list(facts.ARMS)).astype(float)


def published_values(five_fold_mean: bool = False) -> pd.DataFrame:
    """Tasks x models of tables 2-5, NaN where nothing is printed; MatBench by fold 0, or by the mean over the folds."""
    table = facts.published()
    table = table[table["statistic"].isin(["value", "mean" if five_fold_mean else "fold0"])]
    wide = table.pivot(index="task", columns="model", values="value")
    return wide.reindex(index=list(facts.tasks()["id"]), columns=list(dict.fromkeys(facts.published()["model"])))


def gain(values: pd.DataFrame, new: str, reference: str, family: str = "") -> pd.Series:
    """Relative improvement in % of ``new`` over ``reference`` (joined by | : over the better) by task; NaN:
    not both run.

    ``values``: tasks x models. ``family`` limits the tasks.
    """
    if family:
        values = values[[get_task(task).family == family for task in values.index]]
    return relative_improvement(values[reference.split("|")].min(axis=1, skipna=False), values[new])


def gains(all_tasks: pd.DataFrame, new: str, reference: str) -> pd.DataFrame:
    """Relative improvement in % of ``new`` over ``reference`` by task, all 40: own of ``all_tasks_table``, from and
    to of its interval, published (MatBench fold 0)."""
    ends = {task: middle(draws) for task, draws in draws_by_task(all_tasks, new, reference).items()}
    table = pd.DataFrame({"own": gain(own_values(all_tasks), new, reference),
                          "published": gain(published_values(), new, reference)})
    return table.join(pd.DataFrame.from_dict(ends, orient="index", columns=["from", "to"], dtype=float))


def gains_summary(values: pd.DataFrame, without: list[str] = (), all_tasks: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean gain in % with its interval over tasks, tasks improved and tasks compared, per comparison and family, over
    all tasks (family ``all``) and, where there are tasks ``without``, over all but those (``learnt``).

    ``all_tasks``: the table of ``values``, of which a mean of one task or two gets the interval over test structures,
    and ``tasks_surely`` is the number of tasks whose own interval lies above zero (NaN where it is not known).
    """
    rows = []
    for name, pair in COMPARISONS.items():
        draws = {} if all_tasks is None else draws_by_task(all_tasks, *pair)
        for family in ("all", *(["learnt"] if len(without) else []), *FAMILIES):
            gains = gain(values, *pair, family if family in FAMILIES else "").dropna()
            gains = gains.drop(without, errors="ignore") if family == "learnt" else gains
            low, high = of_mean_gain(gains, draws)
            surely = [middle(draws[task])[0] > 0 for task in gains.index.intersection(list(draws))]
            rows.append({"comparison": name, "family": family, "mean_gain_percent": gains.mean(), "mean_gain_from": low,
                         "mean_gain_to": high, "tasks_improved": int((gains > 0).sum()), "tasks": len(gains),
                         "tasks_surely": sum(surely) if surely else float("nan")})
    return pd.DataFrame(rows)


def baseline_table(results_dir: str | Path) -> pd.DataFrame:
    """One row per record of a baseline: task, baseline, value, unit, updates, seconds (blank where
    nothing is trained)."""
    rows = [read_record(path) for path in sorted((Path(results_dir) / "records" / "baselines").glob("*.json"))]
    return pd.DataFrame(rows, columns=["task", "arm", "value", "unit", "updates", "seconds"]).rename(
        columns={"arm": "baseline"})
