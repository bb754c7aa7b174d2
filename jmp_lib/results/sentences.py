"""What the figures of a notebook show, in sentences computed from the records, each beside the paper's finding.

Every function takes a :class:`jmp_lib.workbook.Run` (those of notebook 01: {name: structures}) and returns Markdown.
A finding of the paper counts as seen again where the 95 % interval holds the paper's value, in sign where it lies on
the paper's side of zero, as not seen where it lies on the other, as undecided where it holds zero: the words of the
scoreboard.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import Markdown

from jmp_lib import facts
from jmp_lib.data.statistics import family_of
from jmp_lib.data.tasks import PRETRAINING_SETS, TASKS
from jmp_lib.facts import ARMS
from jmp_lib.records import load_pretraining_records
from jmp_lib.results import intervals, pages, views
from jmp_lib.results.claims import agreement, claims_table
from jmp_lib.results.speedup import ARMS_OF, cost_table, machines, speedup_table, speedup_totals
from jmp_lib.results.style import short_task, significant
from jmp_lib.results.summary import speedup_lines
from jmp_lib.results.tables import own_cells, scaling_table
from jmp_lib.results.values import (
    PAPER,
    all_tasks_table,
    comparable,
    finetune_records,
    not_learnt,
    own_values,
    published_values,
)

MEAN, LINEAR = "the mean of the training labels", "a linear model of the composition"
SIMPLEST = {(False,): MEAN, (True,): f"{LINEAR}, which is where training starts",
            (False, True): f"{MEAN} or, where training starts from one, of {LINEAR}"}
AGREE = {"undecided": "the interval holds zero, so this is undecided here", "no": "this disagrees with the paper",
         "yes": "the interval holds the paper's value",
         "in sign, smaller": "the sign is the paper's, the effect is smaller",
         "in sign, larger": "the sign is the paper's, the effect is larger"}


def _written(function):
    """The sentences of ``function`` as Markdown; of a profile whose numbers mean nothing, that."""
    def shown(run, *args) -> Markdown:
        if not run.profile.comparable:
            return Markdown(f"The numbers of the profile {run.profile.name} mean nothing; "
                            "nothing is read from this figure.")
        return Markdown(" ".join(filter(None, function(run, *args))) or "Nothing was run that could be compared.")

    shown.__doc__ = function.__doc__
    return shown


def verdict(low: float, high: float, paper: float) -> str:
    """Whether an interval of ours holds the paper's value, or lies on its side of zero, in words;
    blank where one is not known."""
    return "" if pd.isna(low) or pd.isna(paper) else AGREE[agreement(low, low, high, paper)]


@_written
def learning(run) -> list[str]:
    """Learning curves: how often and how soon the pre-trained arm reaches the best of training from scratch."""
    table, words = speedup_table(run.records_dir), []
    for size, (new, reference) in ARMS_OF.items():
        part = table[(table["size"] == size) & table["task"].isin(run.tasks)]
        reached = part.dropna(subset="jmp_steps")
        if len(part):
            share = (reached["jmp_steps"] / reached["scratch_steps"]).median()
            words.append(f"{new} reaches the best validation error of {reference} on {len(reached)} of {_tasks(part)}"
                         + (f", in the median with {100 * share:.0f} % of the updates that {reference} took."
                            if len(reached) else "."))
    hours = facts.hyperparameters()["finetuning"]["gpu_hours"]
    share = 100 * hours["finetuning_until_equal"] / hours["from_scratch"]
    return [*words, f"By the paper's GPU-hours, second-hand, {share:.0f} % of the compute is enough." * bool(words)]


@_written
def arms(run) -> list[str]:
    """Arms by task: which arm is best how often, here and in the paper."""
    ours = own_values(comparable(all_tasks_table(run.records_dir))).loc[list(run.tasks)].reindex(
        columns=list(ARMS)).dropna()
    if ours.empty:
        return []
    here, paper = ([f"{arm} on {count}" for arm, count in values.idxmin(axis=1).value_counts().items()]
                   for values in (ours, published_values().loc[ours.index, list(ARMS)]))
    return [f"Lowest of the four test errors: {', '.join(here)} of {_tasks(ours)}; in the paper {', '.join(paper)}."]


@_written
def parity(run) -> list[str]:
    """Parity: the error of the last arm beside the trivial prediction, and the tasks that no arm has learnt."""
    table = comparable(all_tasks_table(run.records_dir))
    table = table[table["task"].isin(run.tasks)]
    last = table[table["arm"] == run.arms[-1]].dropna(subset=["value", "trivial"])
    if last.empty:
        return []
    ratio = (100 * last["value"] / last["trivial"]).set_axis(last["task"])
    without = [short_task(task) for task in not_learnt(table)]
    forces, trivial = last["metric"].str.contains("force").any(), SIMPLEST[_starts(run, last["task"])]
    return [f"The test error of {run.arms[-1]} is {significant(ratio.min(), 2)}"
            + (f" to {significant(ratio.max(), 2)}" if len(ratio) > 1 else "")
            + f" % of that of {'zero forces' if forces else trivial}"
            + (f" (lowest: {short_task(ratio.idxmin())}, highest: {short_task(ratio.idxmax())})."
               if len(ratio) > 1 else "."),
            f"Not learnt: on {', '.join(without)} no arm is better than "
            f"{'zero forces' if forces else 'a linear model of the composition'}, so a gain there says nothing."
            if without else ""]


@_written
def gains(run) -> list[str]:
    """Gains: the mean of each size with its interval, the tasks that gain, and whether the paper's
    finding is seen again."""
    words, every = [], all_tasks_table(run.records_dir)
    for new, reference in run.pairs:
        table = views.gains(run, new, reference)
        ours, theirs = table.iloc[:, 0], table[PAPER].dropna()
        if ours.empty:
            continue
        low, high = intervals.of_mean_gain(ours, intervals.draws_by_task(every, new, reference))
        surely, paper = (table["from"] > 0).sum(), theirs.mean()
        where = "on average" if len(ours) > 1 else f"on {short_task(ours.index[0])}"
        said = f"{new} over {reference}: {intervals.words(ours.mean(), low, high)} % {where}"
        said += f", better on {(ours > 0).sum()} of {_tasks(ours)}" if len(ours) > 1 else ""
        said += (f" ({surely} of them with an interval above zero)"
                 if table["from"].notna().any() and len(ours) > 1 else "")
        said += (f"; the paper {paper:+.1f} %" + (f", {(theirs > 0).sum()} of {len(theirs)}" if len(theirs) > 1 else "")
                 if len(theirs) else "")
        words.append("; ".join(filter(None, [said, verdict(low, high, paper)])) + ".")
    return words


@_written
def scaling(run) -> list[str]:
    """Large over small: the mean from scratch and pre-trained with its interval, and whether the paper's
    finding is seen again."""
    table = scaling_table(all_tasks_table(run.records_dir))
    rows = table.query("family == 'all' and own_tasks > 0").set_index("comparison")
    return [f"{of}: the large network is better on {row['own_tasks_improved']} of {row['own_tasks']} tasks, on average "
            f"{intervals.words(row['own_mean_gain_percent'], *ends, '%')} (the paper, "
            f"over its {row['published_tasks']}: {row['published_mean_gain_percent']:+.1f} %); "
            f"{verdict(*ends, row['published_mean_gain_percent'])}."
            for of, name in (("From scratch", "GN-OC-L over GN-OC-S"), ("Pre-trained", "JMP-L over JMP-S"))
            if name in rows.index
            for row in [rows.loc[name]] for ends in [(row["own_mean_gain_from"], row["own_mean_gain_to"])]]


@_written
def families(run) -> list[str]:
    """Gains by family: where pre-training gains most and where least, with the interval, beside the paper."""
    table, words = scaling_table(all_tasks_table(run.records_dir)).query(
        "own_tasks > 0 and family not in ('all', 'learnt')"), []
    for new, reference in run.pairs:
        part = table[table["comparison"] == f"{new} over {reference}"].set_index("family")
        if len(part) > 1:
            means = part["own_mean_gain_percent"]
            ends = [f"{how} on {name} ({own_cells(part.loc[[name]])[0]} %; the paper "
                    f"{part.loc[name, 'published_mean_gain_percent']:+.1f} %)"
                    for how, name in (("most", means.idxmax()), ("least", means.idxmin()))]
            words.append(f"{new} gains {' and '.join(ends)}.")
    return words


@_written
def speedup(run, size: str) -> list[str]:
    """How much sooner the pre-trained arm of ``size`` (S, L) is as good, and whether the paper's
    finding is seen again."""
    totals = speedup_totals(speedup_table(run.records_dir)).query("size == @size")
    paper = facts.hyperparameters()["finetuning"]["gpu_hours"]
    if totals.empty:
        return []
    times, row = paper["from_scratch"] / paper["finetuning_until_equal"], totals.iloc[0]
    said = verdict(row["ratio_steps_all_from"] - 1, row["ratio_steps_all_to"] - 1, times - 1).replace("zero", "1")
    return [*speedup_lines(totals), f"The paper {times:.0f}x" + (f": {said}." if said else ".")]


@_written
def few_labels(run, table: pd.DataFrame) -> list[str]:
    """Training sizes (``variants.by_training_size``): the gain with the fewest labels beside that
    with the most, by task."""
    name, words, more, apart = "JMP-L over GN-OC-L", [], 0, [0, 0]
    if f"{name} / %" not in table:
        return []
    for task, rows in table.sort_values("n_train").groupby("task", sort=False):
        few, many = rows[[f"{name} / %", f"{name} from", f"{name} to"]].values[[0, -1]]
        more, apart = more + (few[0] > many[0]), [apart[0] + (few[1] > many[2]), apart[1] + (few[2] < many[1])]
        words.append(f"{short_task(task)} {intervals.words(*few)} % with {rows['n_train'].iloc[0]} labels, "
                     f"{intervals.words(*many)} % with {rows['n_train'].iloc[-1]}")
    seen = "is undecided" if apart[0] == apart[1] else "is seen" if apart[0] > apart[1] else "is not seen"
    return [f"{name}: {'; '.join(words)}.  With the fewest labels the gain is larger on {more} of {_tasks(words)} (on "
            f"{apart[0]} the two", f"intervals lie apart) and smaller on {len(words) - more} (on {apart[1]} they do).  "
            f"That pre-training matters most where labels are few, as one expects of it, {seen} here."]


@_written
def ablations(run) -> list[str]:
    """Ablations: what a part of the recipe changes, with its interval over tasks, beside what is known
    of the paper's table."""
    known = facts.claims().query("rule == 'ablation'")["id"]
    rows = claims_table(run.records_dir).set_index("id").loc[known].query("own != ''")
    return [f"{row['claim'].capitalize().replace('oc20', 'OC20')}: {row['own']}"
            + (f"; in the paper {row['published']}" if row["published"] else "")
            + ("; the interval holds zero, so this is undecided here."
               if row["own_from"] <= 0 <= row["own_to"] else ".")
            for _, row in rows.iterrows()]


@_written
def training(run) -> list[str]:
    """Curves of the pre-training: on how many sets the held-out errors fall, how far, and the loss."""
    words = []
    for record in run.pretraining_records():
        first, last = record["history"][0], record["history"][-1]
        each = []
        for kind in ("energy", "force"):
            trained = [f"{name}_{kind}_mae" for name in record["data"] if record["loss_scales"][name][kind]]
            left = [last[name] / first[name] for name in trained]
            each.append(f"{kind} errors fall on {sum(fall < 1 for fall in left)} of {len(left)} sets, in the median to "
                        f"{100 * np.median(left):.0f} % of the first")
        words.append(f"{record['size'].capitalize()} network, from update {first['step']:,} to {last['step']:,}: "
                     f"held-out {' and '.join(each)}; the training loss goes from {significant(first['train_loss'])} "
                     f"to {significant(last['train_loss'])}.")
    return words


@_written
def first_updates(run, losses: pd.DataFrame, errors: pd.DataFrame) -> list[str]:
    """The live updates beside the recorded ones: the loss at their end, held-out force errors over
    those of zero forces."""
    words = []
    for size, part in losses.groupby("size", sort=False):
        live, recorded = (part[part["run"] == kind] for kind in ("live", "recorded"))
        end, near = live.iloc[-1], recorded.iloc[(recorded["update"] - live["update"].iloc[-1]).abs().argmin()]
        now = errors[(errors["size"] == size) & (errors["run"] == "live")]
        now = 100 * now[now["update"] == now["update"].max()].set_index("set")["ratio"]
        words.append(f"{size.capitalize()} network: around update {end['update']:.0f} the live training loss is "
                     f"{significant(end['loss'])}, the recorded one {significant(near['loss'])}; "
                     f"the live force errors are {now.min():.0f} % ({now.idxmin()}) "
                     f"to {now.max():.0f} % ({now.idxmax()}) of those of zero forces.")
    return words


@_written
def neighbours(run, shares: pd.DataFrame) -> list[str]:
    """Embeddings (``embeddings.neighbour_shares``): how much of the paper's picture is there before any training."""
    table = shares.set_index(shares.columns[0])
    trained, untrained, chance = table.loc["neighbours of the same domain", ["pre-trained", "untrained", "by chance"]]
    given, explained = (table.loc[name] for name in ("neighbours of the same domain, element given",
                                                     "variance explained by the element"))
    elements = untrained - chance > (trained - chance) / 2
    changed = given["pre-trained"] - given["untrained"]
    return [f"Of the neighbours of a point {trained:.0f} % are of its domain; "
            f"by chance it would be {chance:.0f} %: like lies with",
            f"like, as in the paper's picture.  Before any training it is {untrained:.0f} %:",
            "most of the picture is the elements, which the network is told, and no proof of pre-training." if elements
            else "it is the training that made most of the picture.",
            f"Among atoms of one element {given['pre-trained']:.0f} % of the neighbours are of the same domain, before "
            f"training {given['untrained']:.0f} %:", "there training changes hardly anything." if abs(changed) < 2 else
            f"training brings {'like nearer to like' if changed > 0 else 'the domains together'}.",
            f"What it does change: the element explains {explained['pre-trained']:.0f} % of the variance, "
            f"before it was {explained['untrained']:.0f} %."]


@_written
def seeds(run, table: pd.DataFrame) -> list[str]:
    """Spread over seeds (``variants.gain_spread``): where all seeds agree in sign, and how far they lie apart."""
    if table.empty:
        return []
    agree = (table["lowest"] > 0) | (table["highest"] < 0)
    wide, apart = table.loc[table["std"].idxmax()], table["std"].median()
    return [f"All seeds give a gain of the same sign in {agree.sum()} of {len(table)} comparisons.  "
            f"Their standard deviation is {apart:.1f} percentage points in the median and "
            f"{wide['std']:.1f} at most ({wide['comparison']} on {short_task(wide['task'])}):",
            "differences of that size between two single runs say nothing."]


@_written
def bulk(run, table: pd.DataFrame, records: list[dict]) -> list[str]:
    """Bulk crystals in the pre-training (``variants.ablations``): what they change, task by task in pairs, with the
    interval, and whether the crystals were learnt at all (``records`` of the pre-training with them, their set the
    last one)."""
    wide = table[table["variant"].isin(["base", "with-bulk"])].pivot(index="task",
                                                                     columns="variant", values="gain").dropna()
    if wide.empty or wide.shape[1] < 2:
        return []
    more = wide["with-bulk"] - wide["base"]
    low, high = intervals.of_mean(more)
    change, learnt = intervals.words(more.mean(), low, high), []
    for record in records:
        name = record["data"][-1]
        error, zero = record["final"][f"{name}_force_mae"], record["baseline"][name]["force_mae"]
        learnt.append(
            f"The forces on held-out crystals are then off by {error:.2f} eV/Å, where zero forces are off by {zero:.2f}"
            + (": they were hardly learnt, and what they can give stays open." if error > 0.9 * zero else "."))
    return [f"With bulk crystals the gain changes by {change} percentage points on average over {_tasks(more)}, "
            f"upwards on {(more > 0).sum()}"
            + ("; the interval holds zero, so this is undecided here." if low <= 0 <= high else "."), *learnt]


@_written
def pretraining(run) -> list[str]:
    """Pre-training: the sets on which energies or forces are not trained, or predicted no better
    than without a network."""
    table, words = views.pretraining_table(run), []
    for things, column in (("energies", "energy MAE / eV"), ("forces", "force MAE / eV/Å")):
        worse = table[table[column] >= table[f"trivial {column}"]]
        said = " and ".join(f"by the {size} network on {', '.join(part['set'])}"
                            for size, part in worse.groupby("size", sort=False))
        words.append(f"The {things} are predicted better than trivially by "
                     "either network on every set where they are trained"
                     + (f", except {said}." if said else "."))
    without = table.loc[table["energy MAE / eV"].isna(), "set"].unique()
    few = "only forces are trained: their compositions are too few to fix the energies of their elements."
    return [*words, f"On {', '.join(without)} {few}" * bool(len(without)),
            *{record.get("note", "") for record in run.pretraining_records()}]


@_written
def costs(run) -> list[str]:
    """What the pre-training costs beside what it saves, here and in the paper. Minutes of different
    machines are not compared."""
    table, said = cost_table(run.records_dir).set_index("step"), []
    once_on, each_on = (machines(r) for r in (load_pretraining_records(run.results_dir),
                                              finetune_records(run.records_dir)))
    for name in table:
        once, scratch, tuned = table[name]
        whose = f"In this workbook ({name.split(' / ')[1]})" if "workbook" in name else "In the paper (GPU-hours)"
        paid = (f"it is paid back after {once / (scratch - tuned):.1f} rounds of all tasks"
                if scratch > tuned else "nothing is saved")
        costs = (f"the pre-training costs {once / scratch:.1f} times what training all tasks from scratch does, "
                 if scratch else "")
        if "workbook" in name and once_on != each_on:
            costs, paid = "", (f"the minutes of the pre-training, on {once_on}, "
                               f"are no share of those of the tasks, on {each_on}")
        said += ([f"{whose} {costs}fine-tuning {tuned / scratch:.2f} times that; {paid}." if costs else
                  f"{whose} fine-tuning costs {tuned / scratch:.2f} times what training from scratch does; {paid}."]
                 * bool(scratch))
    return said


# notebook 01; ``sets`` are {name: structures}

def elements(sets: dict) -> Markdown:
    """How many elements the pre-training sets hold, how many the others, and how many of these
    are new to the network."""
    seen, tasks = set(), set()
    for name, structures in sets.items():
        (seen if family_of(name) in PRETRAINING_SETS else tasks).update(
            int(z) for s in structures for z in s["atomic_numbers"])
    return Markdown(f"The sampled pre-training structures hold {len(seen)} elements, "
                    f"those of the tasks {len(tasks)}.  Of these {len(tasks - seen)} occur in no pre-training set: "
                    "the network meets them for the first time in a task.")


def sizes(sets: dict) -> Markdown:
    """The sets with the smallest and the largest structures."""
    middle = pd.Series({name: np.median([len(s["pos"]) for s in structures]) for name, structures in sets.items()})
    return _between(middle, "The median structure has {} atoms in {} and {} in {}.",
                    "In a force loss averaged over the atoms of a batch one of "
                    "the large ones would count {:.0f} times as much as one of the small ones.")


def forces(sets: dict) -> Markdown:
    """The sets with the smallest and the largest forces."""
    every = {name: np.concatenate([np.asarray(s["forces"], float).ravel() for s in structures])
             for name, structures in sets.items()}
    rms = pd.Series({name: np.sqrt(np.mean(values**2)) for name, values in every.items()})
    return _between(rms, "The root mean square of a force component is {} eV Å⁻¹ in {} and {} eV Å⁻¹ in {}:",
                    "{:.1f} times as large, which is why every set is divided by its own.")


def limits(table: pd.DataFrame) -> Markdown:
    """On which sets the limit of the main graph cuts (``statistics.neighbour_counts``)."""
    over = [row["set"] for _, row in table.iterrows() if np.median(row["counts"]) > row["limit"]]
    return Markdown(f"On {len(over)} of {len(table)} sets half of the atoms "
                    "or more have more neighbours than the limit keeps"
                    + (f": {', '.join(over)}." if over else "."))


def targets(values: dict, units: dict) -> Markdown:
    """Of labels in meV, the narrowest and the widest, by what the best constant is off."""
    off = pd.Series({name: np.abs(np.asarray(v, float) - np.median(v)).mean()
                     for name, v in values.items() if units.get(name) == "meV"})
    return _between(off,
                    "Of the targets in meV, the best constant is off by {} meV on average on {} and by {} meV on {}.",
                    "So the same error is much on one task and little on another: read it beside that of the constant.")


# pieces

def _starts(run, tasks) -> tuple[bool, ...]:
    """Whether the trainings of ``tasks`` start from a linear model of the composition: (False,), (True,) or,
    of some, both."""
    settings = (run.profile.finetune_settings(TASKS[task].family, task) for task in tasks)
    return tuple(sorted({one.linear_reference or one.reference_values is not None for one in settings}))


def _tasks(rows) -> str:
    return f"{len(rows)} task" + "s" * (len(rows) != 1)


def _between(values: pd.Series, what: str, then: str) -> Markdown:
    """The lowest and the highest of ``values`` by set in ``what``; ``then`` may name their ratio. Nothing where
    there are fewer than two."""
    if len(values) < 2:
        return Markdown("Fewer than two sets are here to compare.")
    ends = [words for name in (values.idxmin(), values.idxmax())
            for words in (pages.number(float(f"{values[name]:.2g}")), name)]
    return Markdown(f"{what.format(*ends)}  {then.format(values.max() / values.min())}")
