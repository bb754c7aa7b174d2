"""The paper's tables 2-5 and the comparisons, published and own values in separate, labelled columns.

    write_tables("results/mini")           # every table as CSV

Tasks that were not run stay blank. Own values on mini data are not comparable with published ones: other labels,
fewer structures, a smaller model; the columns ``own data`` and ``own n_train`` say which. Values of the ``smoke``
profile are listed in ``all_tasks.csv`` and left blank everywhere else.
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase

import pandas as pd
from markupsafe import Markup

from jmp_lib import facts
from jmp_lib.files import write_atomically
from jmp_lib.results import intervals, values
from jmp_lib.results.claims import claims_table, scoreboard
from jmp_lib.results.speedup import speedup_table, speedup_totals
from jmp_lib.results.style import shared_words, short_task, significant
from jmp_lib.results.values import COMPARISONS, all_tasks_table, comparable, gain, own_values, published_values

NOTES = {"spice": "published values may have been measured in eV/bohr and be 1.89 times too small; ours are in meV/Å",
         "qmof": "the unit is not printed in the paper; the data set is in eV"}
NOT_LEARNT = "not learnt here: no arm is better than a linear model of the composition"
TITLES = {2: "Table 2: QM9, MAE", 3: "Table 3: rMD17, force MAE",
          4: "Table 4: MatBench (fold 0 and mean over five folds) and QMOF, MAE",
          5: "Table 5: MD22 and SPICE, force MAE"}
STATISTICS = {"fold0": "fold 0", "mean": "mean of 5 folds", "value": ""}


def paper_table(number: int, all_tasks: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 2, 3, 4 or 5 of the paper: one row per task (and statistic), columns ``published MODEL`` and ``own ARM``
    (blank without the ``all_tasks`` of ``all_tasks_table``), in table 4 between them what others measured of JMP.

    The own five-fold mean is shown only where all five folds were run.
    """
    printed, others = facts.published().query("table == @number"), _others(number)
    all_tasks = pd.DataFrame(columns=values.ALL_TASKS_COLUMNS) if all_tasks is None else comparable(all_tasks)
    tasks = facts.tasks().set_index("id")
    rows = []
    for (task_id, statistic), models in printed.groupby(["task", "statistic"], sort=False):
        task, own = tasks.loc[task_id], all_tasks[all_tasks["task"] == task_id].set_index("arm")
        column = "mean_over_folds" if statistic == "mean" else "value"
        own = own[own["mean_over_folds"].notna()] if statistic == "mean" else own
        folds = ("" if statistic == "mean"
                 else "; ".join(dict.fromkeys(own["record"].str.extract(r"fold(\d)\.json")[0].dropna())))
        rows.append({
            "task": task_id, "target": task["target"], "statistic": statistic, "unit": task["unit_printed"],
            **models.set_index("model")["value"].reindex(printed["model"].unique()).add_prefix("published "),
            **{model: part["value"].get((task_id, statistic)) for model, part in others.items()},
            **own[column].reindex(facts.ARMS).add_prefix("own "),
            **{f"own {name}": "; ".join(own[name].astype(str).unique()) for name in ("data", "n_train", "n_test")},
            "own fold": folds,
            "note": "; ".join(filter(None, [NOTES.get(task["family"], ""),
                                            NOT_LEARNT if (own["learnt"] == "no").any() else ""]))})
    return pd.DataFrame(rows)


def printed_table(number: int, all_tasks: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """``paper_table`` as text for readers, and its notes (letter, words): which data ours are of,
    what is odd in the paper.

    Published values have the paper's digits and bold type, ours three significant digits and the best of a row bold.
    An own value that is not of fold 0 is marked.
    """
    printed, others = facts.published().query("table == @number"), _others(number)
    models, rows, letters = printed["model"].unique(), [], {}
    printed = dict(iter(printed.set_index("model").groupby(["task", "statistic"])))
    for row in paper_table(number, all_tasks).to_dict("records"):
        name, value = short_task(row["task"]), printed[row["task"], row["statistic"]]
        own = pd.Series({arm: row[f"own {arm}"] for arm in facts.ARMS})
        notes = [row["note"],
                 *(f"{m}: {words}" for m, words in value.loc[value["printed"] != "", "note"].dropna().items())]
        told = {model: part.loc[row["task"], row["statistic"]] for model, part in others.items()
                if (row["task"], row["statistic"]) in part.index}
        notes += [f"{model}: {found['source']}, {found['note']}" for model, found in told.items()]
        if row["own data"]:
            notes.append(f"ours: {shared_words(row['task'], row['own data'])}, "
                         f"{row['own n_train']} training and {row['own n_test']} test structures"
                         + f"; fold {row['own fold']} instead of 0" * bool(row["own fold"]))
        marks = ",".join(letters.setdefault(note, ascii_lowercase[len(letters)]) for note in notes if note)
        rows.append({
            "task": Markup("{}<sup>{}</sup>").format(name, marks) if marks else name,
            **({"": STATISTICS[row["statistic"]]} if number == 4 else {}), "unit": row["unit"],
            **{f"published {m}": _bold(value["printed"].get(m, ""), value["bold"].get(m)) for m in models},
            **{f"{model} (fold 0)": told[model]["printed"] if model in told else "" for model in others},
            **{f"own {arm}": _bold(significant(error), error == own.min()) for arm, error in own.items()}})
    return pd.DataFrame(rows), [(letter, note) for note, letter in letters.items()]


def _bold(text: str, bold: bool) -> str:
    return Markup("<b>{}</b>").format(text) if bold and text else text


def _others(number: int) -> dict[str, pd.DataFrame]:
    """What others measured of JMP, for table 4 alone: rows by (task, statistic) for each model."""
    return dict(iter(facts.third_party().set_index(["task", "statistic"]).groupby("model"))) if number == 4 else {}


def folds_table(records_dir: str | Path) -> pd.DataFrame:
    """Test errors fold by fold of the MatBench tasks of which several were run, and what pre-training gained, in %."""
    runs = comparable(values.records_table(records_dir))
    runs = runs[runs.groupby("task")["fold"].transform("nunique") > 1]
    wide = runs.pivot(index=["task", "unit", "fold"], columns="arm", values="value").reindex(columns=list(facts.ARMS))
    return wide.assign(**{f"{name} / %": gain(wide, *pair) for name, pair in values.PAIRS.items()}).reset_index()


def gains_table(all_tasks: pd.DataFrame) -> pd.DataFrame:
    """Relative improvement in % per task, published (MatBench fold 0) and own with its interval,
    for every comparison."""
    all_tasks = comparable(all_tasks)
    table = facts.tasks().set_index("id")[["family"]].rename_axis("task")
    table["learnt"] = all_tasks.groupby("task")["learnt"].first()
    for name, pair in COMPARISONS.items():
        names = [f"published {name} / %", f"own {name} / %", f"own {name} from", f"own {name} to"]
        table[names] = values.gains(all_tasks, *pair)[["published", "own", "from", "to"]]
    return table.reset_index()


def scaling_table(all_tasks: pd.DataFrame) -> pd.DataFrame:
    """``gains_summary`` of published and own values, in columns ``published_*`` and ``own_*``: one row per comparison
    and family."""
    keys, all_tasks = ["comparison", "family"], comparable(all_tasks)
    without = values.not_learnt(all_tasks)
    published = values.gains_summary(published_values(),
                                     without).drop(columns="tasks_surely").set_index(keys).add_prefix("published_")
    own = values.gains_summary(own_values(all_tasks), without, all_tasks).set_index(keys).add_prefix("own_")
    return published.join(own).reset_index()


def own_cells(scaling: pd.DataFrame) -> list[str]:
    """Own means of ``scaling_table`` in words, "+20.6 [+13.0, +28.2]"; blank where nothing was run."""
    return [intervals.words(r.own_mean_gain_percent, r.own_mean_gain_from, r.own_mean_gain_to)
            for r in scaling.itertuples()]


def means_table(scaling: pd.DataFrame) -> pd.DataFrame:
    """``scaling_table`` for readers: a row per family, a column per comparison, published and own with its interval."""
    cells = scaling.assign(own=own_cells(scaling), published=[intervals.words(mean, *intervals.UNKNOWN)
                                                              for mean in scaling["published_mean_gain_percent"]])
    halves = [cells.pivot(index="family", columns="comparison", values=half)[list(COMPARISONS)].add_prefix(f"{half} ")
              for half in ("published", "own")]
    return pd.concat(halves, axis=1).loc[scaling["family"].unique()].reset_index()


def write_tables(results_dir: str | Path) -> list[Path]:
    """Writes every table of the records in ``results_dir`` to its folder ``tables`` as CSV; returns the files."""
    records_dir, folder = Path(results_dir) / "records", Path(results_dir) / "tables"
    all_tasks, speedup = all_tasks_table(records_dir), speedup_table(records_dir)
    made = {"all_tasks": all_tasks[values.ALL_TASKS_COLUMNS],
            **{f"table{number}": paper_table(number, all_tasks) for number in TITLES},
            "claims": claims_table(records_dir), "scoreboard": scoreboard(records_dir),
            "gains_by_task": gains_table(all_tasks), "scaling": scaling_table(all_tasks), "speedup": speedup,
            "speedup_totals": speedup_totals(speedup)}
    return [save_table(table, folder / f"{name}.csv", "-" if name == "speedup" else "") for name, table in made.items()]


def save_table(table: pd.DataFrame, path: Path, blank: str = "") -> Path:
    """Atomically writes a CSV (blank cells stay blank, or show ``blank``); returns its path."""
    with write_atomically(path) as stream:
        stream.write(table.to_csv(index=False, float_format="%.8g", na_rep=blank, lineterminator="\n"))
    return path
