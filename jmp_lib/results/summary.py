"""The few lines that say how a profile's run went, for the README and the end of ``reproduce``.

    print(summary("results/mini"))
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd

from jmp_lib.records import read_record
from jmp_lib.results.values import all_tasks_table, comparable, own_values

SHOWN = ("JMP-S over GN-OC-S", "JMP-L over GN-OC-L", "GN-OC-L over GN-OC-S", "JMP-L over JMP-S")


def summary(results_dir: str | Path) -> str:
    """Markdown table of mean relative improvements and of the speed-up, read from the ``tables`` of a profile.

    Families and sizes that were not run are left out; without any (or in smoke, whose numbers mean nothing) a sentence says
    so.  Raises FileNotFoundError when the tables have not been written.
    """
    folder = Path(results_dir) / "tables"
    scaling, totals = pd.read_csv(folder / "scaling.csv"), pd.read_csv(folder / "speedup_totals.csv")
    rows = scaling.pivot(index="family", columns="comparison", values="own_mean_gain_percent")
    families = [name for name in dict.fromkeys(scaling["family"]) if rows.loc[name, list(SHOWN)].notna().any()]
    if not families:
        return "No two arms have values that may stand side by side."
    counts = scaling[scaling["family"] == "all"].set_index("comparison")
    lines = ["| mean improvement / % | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for family in families:
        name = "all tasks" if family == "all" else family
        lines.append(f"| {name} | " + " | ".join(_signed(rows.loc[family, c]) for c in SHOWN) + " |")
    improved = [f"{counts.loc[c, 'own_tasks_improved']:.0f} of {counts.loc[c, 'own_tasks']:.0f}" for c in SHOWN]
    lines.append("| tasks improved | " + " | ".join(improved) + " |")
    published = [_signed(counts.loc[c, "published_mean_gain_percent"]) for c in SHOWN]
    lines.append("| *paper, published data, all tasks* | " + " | ".join(published) + " |")
    return "\n".join([*lines, "", *(f"Speed-up, {line}" for line in speedup_lines(totals))])


def speedup_lines(totals: pd.DataFrame) -> list[str]:
    """A sentence for each size of ``speedup_totals``."""
    return [f"{row.size}: fine-tuning reaches the best validation error of training from scratch on {row.tasks_reached} of "
            f"{row.tasks} tasks, in total {row.ratio_seconds_all:.2f}x sooner in time and {row.ratio_steps_all:.2f}x in updates "
            "(tasks that never reach it counted with their whole run)." for row in totals.itertuples() if row.tasks]


def _signed(value: float) -> str:
    return "" if pd.isna(value) else f"{value:+.1f}"


def variant_summary(results_dir: str | Path) -> str:
    """Markdown tables of the variants: gains seed by seed, by number of training structures, by pre-training recipe.

    All are relative improvements in % over training from scratch with the same size of network.  Empty without variants.
    """
    from jmp_lib.results import variants

    values = variants.variant_values(results_dir)
    blocks = [_seeds(variants.gain_spread(values)), _sizes(variants.by_training_size(values)),
              _ablations(variants.ablations(values))]
    return "\n\n".join(block for block in blocks if block)


def baseline_summary(results_dir: str | Path) -> str:
    """Sentences on how the baselines of notebook 14 compare with the arms, counted from the records; empty without any."""
    from jmp_lib.baselines import baseline_table

    table = baseline_table(results_dir)
    if table.empty:
        return ""
    simple = table.pivot(index="task", columns="baseline", values="value")
    arms = own_values(comparable(all_tasks_table(Path(results_dir) / "records"))).loc[simple.index]
    lines = []
    if "mace" in simple:
        mace, of = simple["mace"].dropna(), arms.loc[simple["mace"].notna()]
        than = ", ".join(f"than {arm} on {(mace < of[arm]).sum()}" for arm in of)
        lines.append(f"MACE from scratch, same structures and as many seconds as GN-OC-L: of {len(mace)} tasks better {than}.")
    if "composition" in simple:
        known = simple["composition"].dropna()
        better = [task for task, value in known.items() if value < arms.loc[task].min()]
        lines.append(f"A linear model of the composition: better than all four arms on {len(better)} of {len(known)} tasks"
                     + (f" ({', '.join(better)})." if better else "."))
    return "\n".join(textwrap.fill(f"- {line}", 120, subsequent_indent="  ") for line in lines)


def computing_summary(results_dir: str | Path) -> str:
    """How many runs a profile and its variants have and the minutes of computing of their records, added up."""
    folder = Path(results_dir)
    found = [read_record(p) for p in (*folder.glob("records/**/*.json"), *folder.glob("variants/*/records/**/*.json"))]
    minutes = sum(record["wall_time_s"] for record in found) / 60
    return f"All {len(found)} runs, with pre-trainings and baselines, took {minutes:.0f} minutes of computing, added up."


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seeds(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    names = list(dict.fromkeys(table["comparison"]))
    cells = {(r.task, r.comparison): f"{r.mean:+.1f} ± {r.std:.1f} ({r.lowest:+.1f} to {r.highest:+.1f})"
             for r in table.itertuples()}
    return _table([f"improvement / %, mean ± deviation over {table['seeds'].max()} seeds (lowest to highest)", *names],
                  [[task, *(cells.get((task, name), "") for name in names)] for task in dict.fromkeys(table["task"])])


def _sizes(table: pd.DataFrame) -> str:
    columns = [c for c in table if c.endswith(" / %")]
    if table.empty:
        return ""
    rows = [[r["task"], str(r["n_train"]), *(f"{r[c]:+.1f}" for c in columns)] for _, r in table.iterrows()]
    return _table(["task", "training structures", *(c.replace(" / %", " / % improvement") for c in columns)], rows)


def _ablations(table: pd.DataFrame) -> str:
    shown = table[~table["variant"].str.startswith("GN-OC")]
    if shown.empty:
        return ""
    wide = shown.pivot(index="task", columns="variant", values="gain")
    names = ["base", *(c for c in wide if c != "base")]
    means = wide.mean()
    rows = [[str(task), *(f"{wide.loc[task, n]:+.1f}" for n in names)] for task in dict.fromkeys(shown["task"])]
    rows.append(["mean", *(f"{means[n]:+.1f}" for n in names)])
    return _table(["JMP-S over GN-OC-S / %", *("whole recipe" if n == "base" else n for n in names)], rows)
