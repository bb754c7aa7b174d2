"""Facts of the JMP paper, its official release and what others made of it, as plain tables. Nothing here is computed
by this project, except one column of third_party.csv, which says so.

==========================  ======================================================================================
``tasks.csv``               the 40 fine-tuning tasks: units, splits, heads, settings of the run script and, where they
                            differ, of the packaged configs
``published_results.csv``   tables 2-5 as printed, one row per table, task, model and statistic
``third_party.csv``         what others measured of JMP on the same tasks and folds, with where it stands
``claims.csv``              headline claims: printed value and the rule of ``jmp_lib.results.claims`` that recomputes it
``datasets.csv``            pre-training and fine-tuning data sets
``downloads.csv``           what a user needs to fetch: address, file, size, checksum, layout, licence
``catalog.yaml``            the data sets that are fetched by name: which files, where they go, who reads them
``hyperparameters.yaml``    the recipe, every value with its origin
==========================  ======================================================================================
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

FOLDER = Path(__file__).resolve().parent
ARMS = ("GN-OC-S", "GN-OC-L", "JMP-S", "JMP-L")

_MORE_TASKS: list[pd.DataFrame] = []


@cache
def _read(name: str, **dtype) -> pd.DataFrame:
    """A CSV file of this folder."""
    return pd.read_csv(FOLDER / name, keep_default_na=False, na_values=[""], dtype=dtype)


def _values(name: str) -> pd.DataFrame:
    """A table of values, with their text as ``printed``."""
    table = _read(name, value=str)
    return table.assign(printed=table["value"].fillna(""), value=table["value"].astype(float))


def add_tasks(path: str | Path) -> None:
    """Let ``tasks()`` end with the rows of another table of the same columns (tasks of a family from outside)."""
    _MORE_TASKS.append(_read(str(Path(path).resolve())))


def tasks() -> pd.DataFrame:
    """The 40 tasks, one row each, in the order of the paper's tables.

    ``label`` is the key of the labels in a structure, ``unit_in_loader`` their unit, ``unit_printed`` the unit of the
    paper's table; ``mean`` and ``std`` are published normalisers in the loader's unit; ``cutoff`` is in Å; columns that
    end in ``_run_script`` and ``_packaged`` are the two official settings. Empty cells (nothing published) are NaN.
    """
    return pd.concat([_read("tasks.csv"), *_MORE_TASKS], ignore_index=True).copy()


def published() -> pd.DataFrame:
    """Tables 2-5 in long form: table, task, model, statistic (value, fold0 or mean), value, unit, bold, note, printed.

    ``value`` is NaN where the paper prints a dash or nothing; ``printed`` is its text ("0.020"). Source: the printed
    tables, digit by digit.
    """
    return _values("published_results.csv").astype({"bold": bool})


def third_party() -> pd.DataFrame:
    """What others measured of JMP, in the units of the paper's tables: task, statistic, model, value,
    printed, source, note."""
    return _values("third_party.csv")


def claims() -> pd.DataFrame:
    """Headline claims: printed value, where it is printed, definition, and the rule that recomputes it."""
    table = _read("claims.csv").astype(object)
    return table.where(table.notna(), "")


def datasets() -> pd.DataFrame:
    """The four pre-training data sets and the fine-tuning data sets (the paper's table 1, rebuilt
    from other sources)."""
    return _read("datasets.csv").copy()


def hyperparameters() -> dict:
    """The recipe of pre-training and fine-tuning; each entry is stated with its origin."""
    return yaml.safe_load((FOLDER / "hyperparameters.yaml").read_text())
