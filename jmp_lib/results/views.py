"""Tables that the notebooks show, of a :class:`jmp_lib.workbook.Run` or plain data: data cards, splits, sampling,
published values beside own ones, never in one column."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd

from jmp_lib import facts
from jmp_lib.data.mini import list_mini, load_mini
from jmp_lib.data.tasks import PRETRAINING_SETS, TASKS, get_task
from jmp_lib.results import intervals
from jmp_lib.results.values import (
    PAPER,
    all_tasks_table,
    baseline_table,
    comparable,
    gain,
    own_values,
    published_values,
    reduced,
)
from jmp_lib.train.finetuning import task_data
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.loading import training_curve
from jmp_lib.train.normalise import element_counts, fit_linear_reference, numbers_of
from jmp_lib.train.sampling import temperature_ratios
from jmp_lib.train.schedule import in_updates

DOMAINS = {"oc20": "catalysts", "oc22": "catalysts", "anix": "molecules", "t1x": "molecules", "qm9": "molecules",
           "rmd17": "molecules", "md22": "large molecules", "spice": "large molecules", "matbench": "bulk crystals",
           "qmof": "MOFs"}


def domain_of(set_name: str) -> str:
    """The chemical domain of a mini set, for colours."""
    return DOMAINS[set_name.split("-")[0]]


def cards_table(cards: dict) -> pd.DataFrame:
    """One row per mini file: what it stands for, level of theory, counts."""
    return pd.DataFrame([{"set": name, "stands for": about["stands_for"], "level of theory": about["level_of_theory"],
                          "structures": about["counts"]["structures"], "atoms": about["counts"]["atoms"],
                          "groups": about["counts"]["groups"]} for name, about in cards.items()])


def mini_sets(limit: int | None = None, seed: int = 0) -> dict[str, list[dict]]:
    """{collection: structures}: at most ``limit`` random structures of each of the ten, files of a family joined."""
    random, chosen = np.random.default_rng(seed), {}
    for family, names in groupby(list_mini(), key=lambda name: name.split("-")[0]):  # rmd17-mini-ethanol: rmd17
        files = [load_mini(name) for name in names]
        share = None if limit is None else -(-limit // len(files))
        drawn = [file[int(row)] for file in files for row in random.permutation(len(file))[:share]]
        chosen[family] = drawn[:limit]
    return {f"{family}-mini": chosen[family] for family in DOMAINS}


def split_table(run) -> pd.DataFrame:
    """Structures per part of the run's tasks, officially and here after the profile's limits, and the budget of a run."""
    rows = []
    for task_id in run.tasks:
        task, settings = get_task(task_id), run.profile.finetune_settings(get_task(task_id).family, task_id)
        data = task_data(run.profile, task_id, run.profile.folds_of(task_id)[0])
        per_epoch = -(-len(data.train) // settings.batch_size)
        updates = in_updates(settings.schedule, per_epoch, run.profile.max_steps).stop_at
        rows.append({"task": task_id, "target": task.target, "unit": task.printed_unit,
                     "head": settings.force_head or task.head if task.is_force_task else task.head,
                     "official train / val / test": f"{task.n_train} / {task.n_val} / {task.n_test}",
                     "here train / val / test": f"{len(data.train)} / {len(data.val)} / {len(data.test)}",
                     "updates": updates, "batch": settings.batch_size, "epochs": round(updates / per_epoch, 1),
                     "data here": data.name})
    return pd.DataFrame(rows)


def with_limits(run, counts: pd.DataFrame) -> pd.DataFrame:
    """The counts of a survey with a column more: what the limits of the profile leave of each part for a run."""
    def left(row) -> str:
        name, parts = row["set or task"], row["here train / val / test"].split(" / ")
        settings = run.profile.finetune_settings(TASKS[name].family, name) if name in TASKS else run.profile.pretraining.datasets[name]
        caps = (settings.max_train, settings.max_val, getattr(settings, "max_test", None))
        return " / ".join(str(min(int(n), cap)) if cap and n.isdigit() else n for n, cap in zip(parts, caps))

    place = counts.columns.get_loc("here train / val / test") + 1
    table = counts.copy()
    table.insert(place, "in a run train / val / test", [left(row) for _, row in counts.iterrows()])
    return table


def merged(table: pd.DataFrame, family: str) -> pd.DataFrame:
    """Rows of a family that differ in the column ``family`` alone as one row, named after it ("qm9 (12)"); empty columns left out."""
    table = table.dropna(axis=1, how="all").loc[:, lambda found: ~(found == "").all()]
    rest = [name for name in table if name != family]
    start = table[family].str.split("_").str[0]
    rows = [part.iloc[:1] if len(part) == 1 else part.iloc[:1].assign(**{family: f"{part[family].iloc[0].split('_')[0]} ({len(part)} tasks)"})
            for _, part in table.fillna("").groupby([start, *rest], sort=False)]
    return pd.concat(rows)


def recipe_table(profile) -> pd.DataFrame:
    """The recipe of the pre-training: what is known of the paper's (``facts/hyperparameters.yaml``) beside ``profile``."""
    official, here = facts.hyperparameters(), profile.pretraining
    paper, models, sets = official["pretraining"], official["models"], here.datasets
    graphs, schedule, updates = {key: profile.graphs[key] for key in sets}, paper["schedule"], here.schedule
    limits = [config.limits() for config in graphs.values()]
    sizes = {size: (models["both_sizes"] | models[size], profile.models[size].to_dict()) for size in ("small", "large")}

    def each(name: str) -> tuple[str, str]:
        return tuple(_together(side[name] for side in sides) for sides in zip(*sizes.values()))

    rows = {
        "sets": (", ".join(paper["train_sizes_in_paper"]), ", ".join(sets)),
        "cutoff of each set / Å": (_together(paper["graphs"]["cutoff"].values()), _together(c.cutoff for c in graphs.values())),
        "neighbours: main": (paper["graphs"]["max_neighbors"]["main"], _together(limit["main"] for limit in limits)),
        "neighbours: atoms ↔ edges": (paper["graphs"]["max_neighbors"]["aeaint"], _together(limit["a2ee2a"] for limit in limits)),
        "neighbours: quadruplets": (paper["graphs"]["max_neighbors"]["qint"], _together(limit["qint"] for limit in limits)),
        "neighbours: atoms → atoms": (paper["graphs"]["max_neighbors"]["aint"], _together(limit["a2a"] for limit in limits)),
        "blocks, small and large": each("num_blocks"),
        "width of atoms, small and large": each("emb_size_atom"), "width of edges, small and large": each("emb_size_edge"),
        "radial and angular functions": tuple(" and ".join(_together(side[k] for side in sides) for k in ("num_radial", "num_spherical"))
                                              for sides in zip(*sizes.values())),
        "temperature": (paper["sampling"]["temperature"], here.temperature),
        "batch": (f"{paper['batch_size_per_gpu'][0]} per GPU; GPUs not found", here.batch_size),
        "updates": (f"{schedule['epochs']} epochs; number not found", updates.stop_at),
        "learning rate": (paper["optimiser"]["lr"], here.lr),
        "warm-up, from a factor": (f"{schedule['warmup_steps']} updates, {schedule['warmup_start_factor']}",
                                   f"{updates.warmup}, {updates.warmup_start_factor}"),
        "cosine down to a factor": (schedule["min_lr_factor"], updates.min_factor),
        "betas, weight decay": (f"{_together(paper['optimiser']['betas'])}, {paper['optimiser']['weight_decay']}",
                                f"{_together(here.betas)}, {here.weight_decay}"),
        "gradient norm clipped at": (paper["gradient_clipping"]["value"], here.clip_norm),
        "EMA of the weights": (paper["ema"]["decay"], here.ema_decay),
        "edges dropped": (paper["edge_dropout"]["p"], here.edge_dropout),
        "force loss": ("structure-wise", "structure-wise" if here.structurewise_loss else "atom-wise"),
        "forces of fixed atoms in the loss": ("yes", "yes" if here.fixed_atoms_loss else "no"),
        "factor of the energy loss": (_together(paper["loss"]["energy_coefficient"].values()),
                                      _together(s.energy_loss_scale for s in sets.values())),
        "factor of the force loss": (_together(paper["loss"]["force_coefficient"].values()),
                                     _together(s.force_loss_scale or "mean number of atoms" for s in sets.values())),
        "precision": (f"float{paper['precision'][0]}", here.precision),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["paper", "here"]).astype(str)
    table["same"] = ["yes" if paper == here else "no" for paper, here in zip(table["paper"], table["here"])]
    return table.rename_axis("setting").reset_index()


def _together(values) -> str:
    """Values in their order, or the one that all of them are."""
    written = [f"{value:g}" if isinstance(value, (int, float)) else str(value) for value in values]
    return written[0] if len(set(written)) == 1 else ", ".join(written)


def sampling_table(run) -> pd.DataFrame:
    """Share of each pre-training set by size and after temperature sampling, officially and here, in %."""
    official = facts.datasets().query("stage == 'pre-training'").set_index("pretraining_name")["n_train_paper"]
    temperature = run.profile.pretraining.temperature
    loaded = joint_sets(run.profile)
    here = [len(part.train) for part in loaded]
    sizes = [int(official[key]) for key in PRETRAINING_SETS]
    paper = pd.DataFrame({
        "paper: structures": sizes,
        "paper: share by size / %": _percent([n / sum(sizes) for n in sizes]),
        f"paper: share drawn, T = {temperature:g} / %": _percent(temperature_ratios(sizes, temperature)),
    }, index=list(PRETRAINING_SETS))
    own = pd.DataFrame({
        "here": [part.name for part in loaded],
        "here: structures": here,
        f"here: share drawn, T = {temperature:g} / %": _percent(temperature_ratios(here, temperature)),
    }, index=[part.key for part in loaded])
    return paper.loc[own.index].reset_index(names="set").join(own.reset_index(drop=True))


def pretraining_table(run) -> pd.DataFrame:
    """Final validation errors of every size and set beside the trivial prediction (element energies, zero forces); without those of
    energies that were not trained."""
    rows = []
    for record in run.pretraining_records():
        for name in record["data"]:
            trained = record["loss_scales"][name]["energy"] > 0
            rows.append({"size": record["size"], "parameters": record["model"]["n_parameters"], "set": name,
                         "structures": record["n_train"][name],
                         "energy MAE / eV": record["final"][f"{name}_energy_mae"] if trained else float("nan"),
                         "trivial energy MAE / eV": record["baseline"][name]["energy_mae"] if trained else float("nan"),
                         "force MAE / eV/Å": record["final"][f"{name}_force_mae"],
                         "trivial force MAE / eV/Å": record["baseline"][name]["force_mae"],
                         "updates": record["updates"], "minutes": record["wall_time_s"] / 60})
    return pd.DataFrame(rows)


def live_table(run, records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Where the live runs of ``run`` differ from the recorded runs whose first updates they train again; one row per run."""
    recorded = {record["size"]: record for record in records}
    rows = [(kind, one) for now in live for kind, one in (("recorded", recorded[now["size"]]), ("live", now))]
    return pd.DataFrame([{
        "size": one["size"], "run": kind, "updates": one["updates"], "structures / update": one["parameters"]["pretraining"]["batch_size"],
        "training structures": ", ".join(f"{name} {count:,}" for name, count in one["n_train"].items()),
        "held out": sum(one["n_val"].values()), "average of weights": one["parameters"]["pretraining"]["ema_decay"],
        "seed": one["seed"], "device": one["device"], "minutes": round(one["wall_time_s"] / 60, 1)} for kind, one in rows])


def live_losses(run, records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Training loss of recorded and live runs: columns size, run, update, loss (means over blocks that grow with the updates)."""
    found = []
    for now in live:
        shipped = next(record["shipped"] for record in records if record["size"] == now["size"])
        log = run.results_dir / "live" / "work" / "pretrain" / now["size"] / "log.csv"
        for kind, curve in (("recorded", training_curve(shipped)), ("live", pd.read_csv(log))):
            block = (10 * np.log10(curve["update"])).astype(int)
            means = curve.groupby(block)[["update", "loss"]].mean()
            found.append(means.assign(size=now["size"], run=kind))
    return pd.concat(found, ignore_index=True)


def live_errors(records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Held-out force errors of recorded and live runs over those of zero forces: columns size, run, set, update, ratio.

    The four generated sets (of published data alone, those); their held-out parts are not the same in both runs.
    """
    recorded = {record["size"]: record for record in records}
    return pd.DataFrame([
        {"size": now["size"], "run": kind, "set": key, "update": row["step"],
         "ratio": row[f"{name}_force_mae"] / one["baseline"][name]["force_mae"]}
        for now in live for kind, one in (("recorded", recorded[now["size"]]), ("live", now))
        for key, name in zip(PRETRAINING_SETS, one["data"]) for row in one["history"]])


def composition_parts(run, predictions: dict) -> dict[str, np.ndarray]:
    """{task: (S,)}: the part of the true values that is linear in the composition, in the unit of ``predictions`` {task:
    (true, predicted)}; of the tasks whose labels the official recipe takes atomic references from (QM9's energies, ZPVE, Cv).

    Without it a parity plot of total energies is a line, whatever the network has learnt.
    """
    referenced, found = set(facts.tasks().query("atom_reference")["id"]), {}
    for task in referenced & set(predictions):
        test = task_data(run.profile, task).test
        true = np.asarray(predictions[task][0], float)
        found[task] = element_counts(numbers_of(test)) @ np.asarray(fit_linear_reference(numbers_of(test), true))
    return found


def compare(run) -> pd.DataFrame:
    """Published (as printed) and own test errors of the run's tasks (MatBench: fold 0) in two labelled halves; index (task, unit).

    The own half (blank for the smoke profile) ends with the linear model of the composition, and "no" where no arm
    beats it.
    """
    all_tasks = comparable(all_tasks_table(run.records_dir))
    published = all_tasks.loc[all_tasks["task"].isin(run.tasks), "data_kind"].eq("published").any()
    own_label = f"own (published data{reduced(all_tasks)}, profile {run.profile.name})" if published else \
        "own (generated mini data)"
    printed = facts.published().query("statistic != 'mean'").pivot(index="task", columns="model", values="printed").fillna("")
    table = pd.concat({PAPER: printed.loc[list(run.tasks), list(run.arms)],
                       own_label: own_values(all_tasks).loc[list(run.tasks), list(run.arms)]}, axis=1)
    units = [get_task(task).printed_unit for task in table.index]
    for name in ("composition", "learnt"):  # error of the linear model of the composition; "no": it is better than every arm
        table[own_label, name] = all_tasks.groupby("task")[name].first().reindex(table.index)
    table.index = pd.MultiIndex.from_arrays([table.index, units], names=["task", "unit"])
    if table[own_label, "composition"].isna().all():  # forces have none
        table = table.drop(columns=(own_label, "composition"))
    return table.map(lambda v: float(f"{v:.4g}") if isinstance(v, float) and pd.notna(v) else v)


def simple_models(run) -> pd.DataFrame:
    """Test errors of the baselines of the run's tasks beside those of the arms, in printed units; one row per task."""
    simple = baseline_table(run.results_dir).pivot(index="task", columns="baseline", values="value").reindex(list(run.tasks))
    arms = own_values(all_tasks_table(run.records_dir)).loc[list(run.tasks), list(run.arms)]
    return simple.join(arms).assign(unit=[get_task(task).printed_unit for task in run.tasks]).reset_index()


def gains(run, new: str, base: str) -> pd.DataFrame:
    """Relative improvement in % of arm ``new`` over ``base`` on the run's tasks that have both, by task: own (the
    column's name says of which data), ``from`` and ``to`` of its interval, ``PAPER`` (blank in smoke)."""
    all_tasks = all_tasks_table(run.records_dir)
    ours = gain(own_values(all_tasks).loc[list(run.tasks)], new, base).dropna()
    theirs = gain(published_values(), new, base).reindex(ours.index) * (1.0 if run.profile.comparable else float("nan"))
    ends = intervals.gain_intervals(all_tasks, new, base).reindex(ours.index)
    return pd.DataFrame({f"this workbook ({run.profile.data} data{reduced(all_tasks)})": ours, **ends, PAPER: theirs})


def large_over_small(run) -> pd.DataFrame:
    """What a larger network gains, from scratch and pre-trained: columns task, of, data (ours, the paper's), gain / %, from, to."""
    found = []
    for of, (new, base) in {"from scratch": ("GN-OC-L", "GN-OC-S"), "pre-trained": ("JMP-L", "JMP-S")}.items():
        table = gains(run, new, base).rename_axis("task")
        for data in (table.columns[0], PAPER):
            ends = table[["from", "to"]] if data != PAPER else float("nan") * table[["from", "to"]]
            found.append(ends.assign(of=of, data=data, gain=table[data]).reset_index())
    return pd.concat(found, ignore_index=True).dropna(subset="gain")


def _percent(shares) -> list[float]:
    return [round(100 * share, 2) for share in shares]
