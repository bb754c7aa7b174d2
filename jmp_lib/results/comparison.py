"""A run beside the shipped one: every claim and every mean improvement, the same sign or not, within noise or beyond.

Two runs of one profile differ, because sums are rounded in another order on another machine and training makes small
differences large. How far is noise is computed from the shipped records, never typed: ``s`` is the standard deviation
of the value of one task, and a mean over n tasks of two runs may differ by 2 s sqrt(2 / n), two standard errors.
``s`` is pooled over the seeds of the shipped variants where these have both arms; else it is the deviation of the
tasks from the mean of their family, which also holds what truly tells tasks apart, so that the limit is wide. About
one comparison of twenty lies beyond by chance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jmp_lib import facts
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.files import write_json
from jmp_lib.records import load_pretraining_records
from jmp_lib.results.claims import GAINS, Own, own_claim
from jmp_lib.results.pages import made_with, table, write_page
from jmp_lib.results.tables import save_table
from jmp_lib.results.values import COMPARISONS, finetune_records, gain
from jmp_lib.results.variants import gains_by_seed, variant_values


class Comparison(NamedTuple):
    rows: pd.DataFrame  # one per claim, and per pair of arms and family: _rows, and difference, same_sign, within_noise
    errors: pd.DataFrame  # one per task and arm that both runs have: task, arm, unit, shipped, run, change_percent
    missing: list[tuple[str, str]]  # (task, arm) of the shipped run alone
    other: list[str]  # words on runs that were made of other data


def compare(results_dir: str | Path, shipped_dir: str | Path) -> Comparison:
    """Compares what the records of two results folders give, on the tasks and arms that both have."""
    runs = [Own.of(Path(folder) / "records") for folder in (shipped_dir, results_dir)]
    for run, folder in zip(runs, (shipped_dir, results_dir)):
        run.table = run.table.dropna(subset=["value"])
        if run.table.empty:
            raise FileNotFoundError(f"{folder} holds no fine-tuning records to compare (those of smoke do not count)")
    missing = _limit_to_common(runs, "table", ["task", "arm"])
    _limit_to_common(runs, "speedup", ["task", "size"])
    errors = runs[0].table.merge(runs[1].table, on=["task", "arm"], suffixes=("", "_run"))
    other = [f"{row['task']} {row['arm']}: {name} is {row[f'{name}_run']}, shipped {row[name]}"
             for _, row in errors.iterrows()
             for name in ("data", "n_train", "n_test", "seed") if row[f"{name}_run"] != row[name]]
    errors = errors[["task", "arm", "unit", "value", "value_run"]].rename(columns={
        "value": "shipped", "value_run": "run"})
    errors["change_percent"] = 100 * (errors["run"] / errors["shipped"] - 1)
    names = ["kind", "name", "family", "unit", "tasks", "shipped", "run", "noise", "noise_from"]
    rows = pd.DataFrame(list(_rows(*runs, variant_values(shipped_dir))), columns=names)
    rows.insert(7, "difference", rows["run"] - rows["shipped"])
    rows["same_sign"] = np.sign(rows["run"]) == np.sign(rows["shipped"])
    rows["within_noise"] = (rows["difference"].abs() <= rows["noise"]).astype(object).where(
        rows["noise"].notna(), pd.NA)
    return Comparison(rows, errors, missing, other)


def _limit_to_common(runs: list[Own], table: str, keys: list[str]) -> list[tuple]:
    """Leaves the rows of both runs' ``table`` whose ``keys`` both have; the keys of the first alone."""
    first, second = (getattr(run, table).set_index(keys).index for run in runs)
    for run, index in zip(runs, (first, second)):
        setattr(run, table, getattr(run, table)[index.isin(first.intersection(second))])
    return sorted(first.difference(second))


def _rows(shipped: Own, run: Own, seeds: pd.DataFrame):
    """Claims, then mean improvements: kind, name, family, unit, tasks, shipped and run value, noise,
    and where that is from."""
    for claim in facts.claims().to_dict("records"):
        old, new = own_claim(claim, shipped), own_claim(claim, run)
        if not old or not new or claim["rule"] == "ablation":  # of the variants, which a run does not make
            continue
        tasks, noise, origin = old["own_tasks"], 0.0, "exact"
        if claim["rule"] in GAINS:
            spread, origin = _spread(shipped, claim["new"], claim["reference"], seeds)
            noise = _limit(spread, tasks)
        elif claim["rule"] == "count_best":
            noise, origin = tasks * _limit(_within_families((shipped.standing(claim) != "behind").astype(float)),
                                           tasks), "tasks"
        elif claim["rule"] == "speedup_of_totals":  # spread of a ratio of sums, to first order
            part = shipped.speedup[shipped.speedup["size"] == claim["new"][-1]].set_index("task")
            spent = part["jmp_steps"].fillna(part["jmp_steps_whole_run"])
            beyond = (part["scratch_steps"] - old["own_value"] * spent) / spent.mean()
            noise, origin = _limit(_within_families(beyond), tasks), "tasks"
        yield ("claim", claim["id"], claim["family"] or "all", claim["unit"], tasks, old["own_value"],
               new["own_value"], noise, origin)
    for name, (new, reference) in COMPARISONS.items():
        spread, origin = _spread(shipped, new, reference, seeds)
        for family in ("all", *FAMILIES):
            old, now = (gain(own.values, new, reference, "" if family == "all" else family).dropna()
                        for own in (shipped, run))
            if len(old):
                yield "family", name, family, "%", len(old), old.mean(), now.mean(), _limit(spread, len(old)), origin


def _limit(spread: float, tasks: int) -> float:
    """How far two means over ``tasks`` tasks may be apart by noise: two standard errors of their difference."""
    return 2 * spread * np.sqrt(2 / tasks)


def _spread(shipped: Own, new: str, reference: str, seeds: pd.DataFrame) -> tuple[float, str]:
    """(standard deviation of the gain of one task in %, where it is from: ``seeds`` or ``tasks``)."""
    if set(reference.split("|")) | {new} <= set(seeds["arm"]):
        variances = gains_by_seed(seeds, new, reference).groupby("task").var()
        if variances.notna().any():
            return float(np.sqrt(variances.mean())), "seeds"
    return _within_families(gain(shipped.values, new, reference).dropna()), "tasks"


def _within_families(values: pd.Series) -> float:
    """Standard deviation of ``values`` (by task) from the mean of their family; NaN when no family has two tasks."""
    families = facts.tasks().set_index("id")["family"].reindex(values.index)
    free = len(values) - families.nunique()
    squares = (values - values.groupby(families).transform("mean")).pow(2).sum()
    return float(np.sqrt(squares / free)) if free else float("nan")


def comparison_text(found: Comparison) -> str:
    """A few lines for the terminal: the means over all tasks, what lies beyond noise, and how noise was computed."""
    rows, errors, change = found.rows, found.errors, found.errors["change_percent"].abs()
    worst, beyond = errors.loc[change.idxmax()], rows[rows["within_noise"].eq(False)]
    words = {"seeds": "of the shipped seeds", "tasks": "of the shipped tasks within their families"}
    origins = [words[name] for name in words if (rows["noise_from"] == name).any()]
    lines = ["This run beside the shipped one:"]
    lines += [f"  {row.name:<21} {row.run:+6.1f} %, shipped {row.shipped:+6.1f} % (noise ± {row.noise:.1f})"
              for row in rows.query("kind == 'family' and family == 'all'").itertuples()]
    lines += [f"  test errors of {len(errors)} runs: half of them within {change.median():.1f} % of the shipped ones, "
              f"the farthest {worst['change_percent']:+.0f} % ({worst['task']} {worst['arm']})",
              f"  {len(rows) - len(beyond)} of {len(rows)} means and claims within noise, "
              f"{rows['same_sign'].sum()} with the same sign" + (":" if len(beyond) else ".")]
    lines += [f"    beyond: {row.name}, {row.family}: {row.run:+.1f}, shipped {row.shipped:+.1f} "
              f"(noise ± {row.noise:.1f} {row.unit})" for row in beyond.itertuples()]
    if missing := [" ".join(key) for key in found.missing]:
        lines += [f"  not run here: {', '.join(missing[:3])}" + f" and {len(missing) - 3} more" * (len(missing) > 3)]
    if found.other:
        lines += [f"  not of the same data or seed ({len(found.other)}), so they may differ by more: {found.other[0]}"]
    return "\n".join([*lines, "  noise: two standard errors of a difference of two runs, from the spread "
                      f"{' and '.join(origins)}; 1 of 20 is beyond by chance. All of it: "
                      "comparison.html, comparison.json"])


def write_comparison(results_dir: str | Path, shipped_dir: str | Path) -> str:
    """Writes the certificate of a run beside the shipped one (``comparison.html`` and ``.json``: every claim, mean and
    test error, with the machine of both runs; ``tables/comparison.csv``: the claims and means); returns its words."""
    folder, found = Path(results_dir), compare(results_dir, shipped_dir)
    words = comparison_text(found)
    made = {name: made_with([*load_pretraining_records(place), *finetune_records(Path(place) / "records")])
            for name, place in (("this run", folder), ("shipped run", shipped_dir))}
    beyond = found.rows[found.rows["within_noise"].eq(False)]
    certificate = {"profile": folder.name, "compared": len(found.rows),
                   "within_noise": int(found.rows["within_noise"].eq(True).sum()),
                   "same_sign": int(found.rows["same_sign"].sum()), "beyond_noise": beyond["name"].tolist(),
                   "made_with": made, "not_run_here": [" ".join(key) for key in found.missing],
                   "of_other_data": found.other, "claims_and_means": json.loads(found.rows.to_json(orient="records")),
                   "test_errors": json.loads(found.errors.to_json(orient="records"))}
    write_json(folder / "comparison.json", certificate)
    save_table(found.rows, folder / "tables" / "comparison.csv")
    rows = found.rows.assign(**{name: found.rows[name].map({True: "yes", False: "no"}).fillna("not known")
                                for name in ("same_sign", "within_noise")})
    rows["name"] = rows["name"].replace(facts.claims().set_index("id")["claim"].to_dict())
    write_page(folder / "comparison.html", "comparison", title=f"This run of {folder.name} beside the shipped one",
               words=words, rows=table(rows[["name", *rows.columns.drop("name")]]
                                       .rename(columns=lambda name: name.replace("_", " ")), words=True), made=made,
               errors=table(found.errors.rename(columns={"change_percent": "change / %"})))
    return words
