"""The few lines that say how a profile's run went, for the README and the end of ``reproduce``.

    print(summary("results/mini"))
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd

from jmp_lib.results import variants
from jmp_lib.results.claims import scoreboard
from jmp_lib.results.intervals import UNKNOWN, of_mean, words
from jmp_lib.results.speedup import BUDGETS, speedup_table, speedup_totals
from jmp_lib.results.tables import own_cells, scaling_table
from jmp_lib.results.values import (
    PAIRS,
    all_tasks_table,
    baseline_table,
    comparable,
    gain,
    gains_summary,
    not_learnt,
    own_values,
    published_values,
)

NETWORKS = {"mace": "MACE", "schnet": "SchNet"}  # baselines that are networks
SHOWN = ["JMP-S over GN-OC-S", "JMP-L over GN-OC-L", "GN-OC-L over GN-OC-S", "JMP-L over JMP-S"]


def summary(results_dir: str | Path) -> str:
    """Markdown table of mean relative improvements with their intervals, and of the speed-up, from the records of a
    profile; a sentence where there are none (or in smoke, whose numbers mean nothing)."""
    records_dir = Path(results_dir) / "records"
    all_tasks, totals = all_tasks_table(records_dir), speedup_totals(speedup_table(records_dir))
    scaling, without = scaling_table(all_tasks), not_learnt(comparable(all_tasks))
    scaling["cell"] = own_cells(scaling)
    rows = scaling[scaling["own_tasks"] > 0]
    if rows.empty:
        return "No two arms have values that may stand side by side."
    over_all = scaling[scaling["family"] == "all"].set_index("comparison").loc[SHOWN]
    table = rows.pivot(index="family", columns="comparison",
                       values="cell").loc[rows["family"].unique()].reindex(columns=SHOWN)
    learnt = f"the {rows.loc[rows['family'] == 'learnt', 'own_tasks'].max():.0f} learnt"
    table = table.fillna("").rename({"all": "all tasks", "learnt": learnt}).rename_axis("mean improvement / % [95 %]")
    table.loc["tasks improved"] = [
        f"{n:.0f} of {of:.0f}" + (f", {surely:.0f} beyond chance" if surely == surely else "")
        for n, of, surely in over_all[["own_tasks_improved", "own_tasks", "own_tasks_surely"]].values]
    table.loc["*paper, published data, all tasks*"] = [words(mean, *UNKNOWN)
                                                       for mean in over_all["published_mean_gain_percent"]]
    ran = own_values(comparable(all_tasks)).dropna(how="all").index
    if len(ran) < len(published_values()):
        same = gains_summary(published_values().loc[ran]).query("family == 'all'").set_index("comparison").loc[SHOWN]
        table.loc[f"*paper, the same {len(ran)} tasks*"] = [words(mean, *UNKNOWN) for mean in same["mean_gain_percent"]]
    said = ["Not learnt, because no arm is better than a linear model of the composition (forces: than none): "
            f"{', '.join(without)}.", ""] if without else []
    below = [*said, *(f"- Speed-up, {line}" for line in speedup_lines(totals))]
    return "\n".join([markdown(table, "---"), "",
                      *(textwrap.fill(line, 118, subsequent_indent="  " * line.startswith("-")) for line in below)])


def scoreboard_summary(results_dir: str | Path, folder: str = "") -> str:
    """The scoreboard as a Markdown table, with links to the executed notebooks in ``folder``;
    empty without a claim of ours."""
    table = scoreboard(Path(results_dir) / "records")
    if table.empty:
        return ""
    links = [f"[{name}]({folder}notebooks/{name}.ipynb)" for name in table.pop("notebook")]
    data = table.pop("data")  # said where it is not that of most rows
    table["own"] += [", of our arms and baselines" if "previous best" in claim else "" for claim in table["claim"]]
    table["own"] += [f" ({words.split(', ')[-1]})" if words != data.mode()[0] else "" for words in data]
    table = table.assign(evidence=links).rename(columns={"own": "this workbook [95 %]", "where": "in the paper"})
    return markdown(table.set_index("claim"))


def speedup_lines(totals: pd.DataFrame) -> list[str]:
    """A sentence for each size of ``speedup_totals``."""
    return [f"{row.size}: fine-tuning reaches the best validation error of training from "
            f"scratch on {row.tasks_reached} of {row.tasks} tasks. Over all, in updates "
            f"{words(row.ratio_steps_all, row.ratio_steps_all_from, row.ratio_steps_all_to, 'x')} sooner and in time "
            f"{row.ratio_seconds_all:.2f}x (a task that never reaches it counted with its whole run, which is too "
            f"little); over those that reach it {row.ratio_steps_reached:.2f}x and {row.ratio_seconds_reached:.2f}x."
            for row in totals.itertuples() if row.tasks]


def longer_summary(table: pd.DataFrame) -> str:
    """A sentence on the table of ``longer``: whether training from scratch came to rest, and what the gain
    and the lead become."""
    if table.empty:
        return ""
    rest = (table["best from scratch"] < table["updates"]).sum()
    said = ["With eight times the updates training from scratch is at its best before the last of them in "
            f"{rest} of {len(table)} cases."]
    for size, part in table.groupby("size", sort=False):
        now, before = (part[name].mean() for name in ("gain / %", "gain, usual updates / %"))
        said.append(f"JMP-{size} is {now:.0f} % better on average over {len(part)} tasks, "
                    f"where it was {before:.0f} % with the usual updates, and as "
                    f"good as training from scratch in the median {part['times sooner'].median():.1f} times sooner.")
    return " ".join(said)


def soonest_lines(table: pd.DataFrame) -> list[str]:
    """A sentence for each row of ``soonest``."""
    named = {"all": "as many", **{name: f"{'an' if name == 'eighth' else 'a'} {name} of them" for name in BUDGETS}}
    return [f"{row['size']}, {row['of']}: fine-tuning is as good (in validation error) "
            "as training from scratch with all updates on "
            + ", ".join(f"{row[name]} of {row['tasks']} with {what}" for name, what in named.items() if name in table)
            + f"; in the soonest of these runs it is as good {words(row['ratio'], row['from'], row['to'], 'x')} sooner "
            "(in none: all updates count)." for row in table.to_dict("records")]


def variant_summary(results_dir: str | Path) -> str:
    """Markdown tables of the variants: gains in % over training from scratch with the same size of network, seed by
    seed, by number of training structures, by pre-training recipe. Empty without variants."""
    values, blocks = variants.variant_values(results_dir), []
    if len(seeds := variants.gain_spread(values)):
        most = seeds["seeds"].max()
        cells = [f"{r.mean:+.1f} ± {r.std:.1f} ({r.lowest:+.1f} to {r.highest:+.1f})"
                 + f", {r.seeds} seeds" * int(r.seeds < most)
                 for r in seeds.itertuples()]
        wide = seeds.assign(cell=cells).pivot(index="task", columns="comparison", values="cell").fillna("")
        title = f"improvement / %, mean ± deviation over {most} seeds (lowest to highest)"
        blocks.append(wide.loc[seeds["task"].unique(), seeds["comparison"].unique()].rename_axis(title))
    if len(sizes := variants.by_training_size(values)):
        cells = {f"{name} / % improvement": [words(*row)
                                             for row in sizes[[f"{name} / %", f"{name} from", f"{name} to"]].values]
                 for name in PAIRS if f"{name} / %" in sizes}
        blocks.append(pd.DataFrame({"task": sizes["task"], "training structures": sizes["n_train"],
                                    **cells}).set_index("task"))
    if len(shown := variants.ablations(values).query("not variant.str.startswith('GN-OC')", engine="python")):
        shown = shown.assign(cell=[words(r.gain, r.low, r.high)
                                   for r in shown.rename(columns={"from": "low", "to": "high"}).itertuples()])
        wide = shown.pivot(index="task", columns="variant", values="cell").loc[shown["task"].unique()]
        means = shown.groupby("variant")["gain"]
        wide.loc["mean"] = pd.Series({name: words(gains.mean(), *of_mean(gains)) for name, gains in means})
        wide = wide[["base", *wide.columns.drop("base")]].rename(columns={"base": "whole recipe"})
        blocks.append(wide.fillna("").rename_axis("JMP-S over GN-OC-S / %"))
    return "\n\n".join(markdown(block) for block in blocks)


def baseline_summary(results_dir: str | Path) -> str:
    """Sentences on how the baselines of notebook 15 compare with the arms, counted from the records;
    empty without any."""
    table = baseline_table(results_dir)
    if table.empty:
        return ""
    simple = table.pivot(index="task", columns="baseline", values="value")
    arms = own_values(comparable(all_tasks_table(Path(results_dir) / "records"))).loc[simple.index]
    lines = []
    for name in (name for name in NETWORKS if name in simple):
        errors = simple[name].dropna()
        than = ", ".join(f"than {arm} on {(errors < arms.loc[errors.index, arm]).sum()}" for arm in arms)
        lines.append(f"{NETWORKS[name]} from scratch, same structures and as many seconds of the processor as GN-OC-L "
                     f"took by the clock: of {len(errors)} tasks better {than}.")
    if "composition" in simple:
        known = simple["composition"].dropna()
        better = list(known.index[known < arms.loc[known.index].min(axis=1)])
        lines.append("A linear model of the composition: "
                     f"better than all four arms on {len(better)} of {len(known)} tasks"
                     + (f" ({', '.join(better)})." if better else "."))
    if {"frozen", "untrained"} <= set(simple):
        both = simple[["frozen", "untrained"]].dropna()
        gains = gain(both, "frozen", "untrained")
        lines.append("A linear model on embeddings of the small network, frozen: "
                     f"pre-trained better than untrained on {(gains > 0).sum()} of {len(gains)} tasks, "
                     f"on average {words(gains.mean(), *of_mean(gains), '%')}; better than JMP-S fine-tuned on "
                     f"{(both['frozen'] < arms.loc[both.index, 'JMP-S']).sum()}, than JMP-L on "
                     f"{(both['frozen'] < arms.loc[both.index, 'JMP-L']).sum()}.")
    return "\n".join(textwrap.fill(f"- {line}", 120, subsequent_indent="  ") for line in lines)


def markdown(table: pd.DataFrame, rule: str = " --- ") -> str:
    """A Markdown table of the cells as they are, without padding; the index is the first column."""
    rows = [[table.index.name, *table.columns], *table.reset_index().values.astype(str)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join([rule] * len(rows[0])) + "|", *lines[1:]])
