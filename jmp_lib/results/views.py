"""Tables that the notebooks show, of a :class:`jmp_lib.workbook.Run` or plain data: data cards, splits, sampling,
published values beside own ones, never in one column."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd

from jmp_lib import facts
from jmp_lib.data.mini import list_mini, load_mini
from jmp_lib.data.normalise import element_counts, fit_linear_reference, numbers_of
from jmp_lib.data.tasks import FAMILIES, PRETRAINING_SETS, TASKS, get_task
from jmp_lib.results import values
from jmp_lib.results.values import PAPER, all_tasks_table, comparable, own_values, reduced
from jmp_lib.train.finetuning import task_data
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.loading import training_curve
from jmp_lib.train.sampling import temperature_ratios
from jmp_lib.train.schedule import in_updates

PRETRAINED = {"oc20": "catalysts", "oc22": "catalysts", "anix": "molecules", "t1x": "molecules"}  # domains of the sets


def domain_of(set_name: str) -> str:
    """The chemical domain of a mini set or a family, for colours."""
    name = set_name.split("-")[0]
    return PRETRAINED.get(name) or FAMILIES[name].domain


def cards_table(cards: dict) -> pd.DataFrame:
    """One row per mini file: what it stands for, level of theory, counts."""
    return pd.DataFrame([{"set": name, "stands for": about["stands_for"], "level of theory": about["level_of_theory"],
                          "structures": about["counts"]["structures"], "atoms": about["counts"]["atoms"],
                          "groups": about["counts"]["groups"]} for name, about in cards.items()])


def mini_sets(limit: int, seed: int) -> dict[str, list[dict]]:
    """{collection: structures}: at most ``limit`` random structures of each of the ten, files of a family joined."""
    random, chosen = np.random.default_rng(seed), {}
    for family, names in groupby(list_mini(), key=lambda name: name.split("-")[0]):  # rmd17-mini-ethanol: rmd17
        files = [load_mini(name) for name in names]
        drawn = [file[int(row)] for file in files for row in random.permutation(len(file))[: -(-limit // len(files))]]
        chosen[family] = drawn[:limit]
    return {f"{family}-mini": chosen[family] for family in (*PRETRAINED, *FAMILIES) if family in chosen}


def split_table(run) -> pd.DataFrame:
    """Structures per part of the run's tasks, officially and here after the profile's limits,
    and the budget of a run."""
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
        settings = (run.profile.finetune_settings(TASKS[name].family, name) if name in TASKS
                    else run.profile.pretraining.datasets[name])
        caps = (settings.max_train, settings.max_val, getattr(settings, "max_test", None))
        return " / ".join(str(min(int(n), cap)) if cap and n.isdigit() else n for n, cap in zip(parts, caps))

    place = counts.columns.get_loc("here train / val / test") + 1
    table = counts.copy()
    table.insert(place, "in a run train / val / test", [left(row) for _, row in counts.iterrows()])
    return table


def merged(table: pd.DataFrame, family: str) -> pd.DataFrame:
    """Rows of a family that differ in the column ``family`` alone as one row, named after it ("qm9 (12)");
    empty columns left out."""
    table = table.dropna(axis=1, how="all").loc[:, lambda found: ~(found == "").all()]
    rest = [name for name in table if name != family]
    start = table[family].map(lambda name: TASKS[name].family if name in TASKS else name)
    rows = [part.iloc[:1] if len(part) == 1 else part.iloc[:1].assign(**{family: f"{name} ({len(part)} tasks)"})
            for (name, *_), part in table.fillna("").groupby([start, *rest], sort=False)]
    return pd.concat(rows)


def recipe_table(profile) -> pd.DataFrame:
    """The recipe of the pre-training: what is known of the paper's (``facts/hyperparameters.yaml``) beside
    ``profile``."""
    official, here = facts.hyperparameters(), profile.pretraining
    paper, models, sets = official["pretraining"], official["models"], here.datasets
    schedule, updates, limits = paper["schedule"], here.schedule, paper["graphs"]["max_neighbors"]
    graphs, sizes = [profile.graphs[key] for key in sets], ("small", "large")
    sides = [models["both_sizes"] | models[size] for size in sizes], [profile.models[size].to_dict() for size in sizes]

    def words(value) -> str:
        """Of a list the values in their order, or the one that all of them are."""
        if not isinstance(value, list):
            return str(value)
        written = [f"{v:g}" if isinstance(v, int | float) else str(v) for v in value]
        return written[0] if len(set(written)) == 1 else ", ".join(written)

    rows = {
        "sets": (", ".join(paper["train_sizes_in_paper"]), ", ".join(sets)),
        "cutoff of each set / Å": ([*paper["graphs"]["cutoff"].values()], [graph.cutoff for graph in graphs]),
        **{f"neighbours: {what}": (limits[theirs], [graph.limits()[ours] for graph in graphs])
           for what, theirs, ours in (("main", "main", "main"), ("atoms ↔ edges", "aeaint", "a2ee2a"),
                                      ("quadruplets", "qint", "qint"), ("atoms → atoms", "aint", "a2a"))},
        **{f"{what}, small and large": [[model[name] for model in side] for side in sides] for what, name in (
            ("blocks", "num_blocks"), ("width of atoms", "emb_size_atom"), ("width of edges", "emb_size_edge"))},
        "radial and angular functions": [" and ".join(words([model[name] for model in side])
                                                      for name in ("num_radial", "num_spherical")) for side in sides],
        "temperature": (paper["sampling"]["temperature"], here.temperature),
        "batch": (f"{paper['batch_size_per_gpu'][0]} per GPU; GPUs not found", here.batch_size),
        "updates": (f"{schedule['epochs']} epochs; number not found", updates.stop_at),
        "learning rate": (paper["optimiser"]["lr"], here.lr),
        "warm-up, from a factor": (f"{schedule['warmup_steps']} updates, {schedule['warmup_start_factor']}",
                                   f"{updates.warmup}, {updates.warmup_start_factor}"),
        "cosine down to a factor": (schedule["min_lr_factor"], updates.min_factor),
        "betas, weight decay": (f"{words(paper['optimiser']['betas'])}, {paper['optimiser']['weight_decay']}",
                                f"{words(list(here.betas))}, {here.weight_decay}"),
        "gradient norm clipped at": (paper["gradient_clipping"]["value"], here.clip_norm),
        "EMA of the weights": (paper["ema"]["decay"], here.ema_decay),
        "edges dropped": (paper["edge_dropout"]["p"], here.edge_dropout),
        "force loss": ("structure-wise", "structure-wise" if here.structurewise_loss else "atom-wise"),
        "forces of fixed atoms in the loss": ("yes", "yes" if here.fixed_atoms_loss else "no"),
        "factor of the energy loss": ([*paper["loss"]["energy_coefficient"].values()],
                                      [s.energy_loss_scale for s in sets.values()]),
        "factor of the force loss": ([*paper["loss"]["force_coefficient"].values()],
                                     [s.force_loss_scale or "mean number of atoms" for s in sets.values()]),
        "precision": (f"float{paper['precision'][0]}", here.precision)}
    table = pd.DataFrame([{"setting": name, "paper": words(theirs), "here": words(ours)}
                          for name, (theirs, ours) in rows.items()])
    return table.assign(same=["yes" if paper == here else "no" for paper, here in zip(table["paper"], table["here"])])


def sampling_table(run) -> pd.DataFrame:
    """Share of each pre-training set by size and after temperature sampling, officially and here, in %."""
    official = facts.datasets().query("stage == 'pre-training'").set_index("pretraining_name")["n_train_paper"]
    temperature, loaded = run.profile.pretraining.temperature, joint_sets(run.profile)
    sizes, here = [int(official[key]) for key in PRETRAINING_SETS], [len(part.train) for part in loaded]

    def percent(shares) -> list[float]:
        return [round(100 * share, 2) for share in shares]

    paper = pd.DataFrame({
        "paper: structures": sizes, "paper: share by size / %": percent([n / sum(sizes) for n in sizes]),
        f"paper: share drawn, T = {temperature:g} / %": percent(temperature_ratios(sizes, temperature))}, index=list(
            PRETRAINING_SETS))
    own = pd.DataFrame({
        "here": [part.name for part in loaded], "here: structures": here,
        f"here: share drawn, T = {temperature:g} / %": percent(temperature_ratios(here, temperature))},
        index=[part.key for part in loaded])
    return paper.loc[own.index].reset_index(names="set").join(own.reset_index(drop=True))


def pretraining_table(run) -> pd.DataFrame:
    """Final validation errors of every size and set beside the trivial prediction (element energies, zero forces);
    without those of energies that were not trained."""
    rows = []
    for record in run.pretraining_records():
        for name in record["data"]:
            final, trivial = record["final"], record["baseline"][name]
            energy = ((final[f"{name}_energy_mae"], trivial["energy_mae"]) if record["loss_scales"][name]["energy"] > 0
                      else (np.nan, np.nan))
            rows.append({"size": record["size"], "parameters": record["model"]["n_parameters"], "set": name,
                         "structures": record["n_train"][name], "energy MAE / eV": energy[0],
                         "trivial energy MAE / eV": energy[1], "force MAE / eV/Å": final[f"{name}_force_mae"],
                         "trivial force MAE / eV/Å": trivial["force_mae"],
                         "updates": record["updates"], "minutes": record["wall_time_s"] / 60})
    return pd.DataFrame(rows)


def _recorded_and_live(records: list[dict], live: list[dict]) -> list[tuple[str, dict]]:
    """("recorded", record) and ("live", record) of each live run, which trains the first updates of
    a recorded one again."""
    recorded = {record["size"]: record for record in records}
    return [(kind, one) for now in live for kind, one in (("recorded", recorded[now["size"]]), ("live", now))]


def live_table(records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Where live runs differ from the recorded ones; one row per run."""
    return pd.DataFrame([{
        "size": one["size"], "run": kind, "updates": one["updates"],
        "structures / update": one["parameters"]["pretraining"]["batch_size"],
        "training structures": ", ".join(f"{name} {count:,}" for name, count in one["n_train"].items()),
        "held out": sum(one["n_val"].values()), "average of weights": one["parameters"]["pretraining"]["ema_decay"],
        "seed": one["seed"], "device": ", then ".join(machine["device"] for machine in one["machines"]),
        "minutes": round(one["wall_time_s"] / 60, 1)} for kind, one in _recorded_and_live(records, live)])


def live_losses(run, records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Training loss of recorded and live runs: columns size, run, update, loss (means over blocks that
    grow with the updates)."""
    found = []
    for kind, one in _recorded_and_live(records, live):
        log = run.results_dir / "live" / "work" / "pretrain" / one["size"] / "log.csv"
        curve = pd.read_csv(log) if kind == "live" else training_curve(one["shipped"])
        means = curve.groupby((10 * np.log10(curve["update"])).astype(int))[["update", "loss"]].mean()
        found.append(means.assign(size=one["size"], run=kind))
    return pd.concat(found, ignore_index=True)


def live_errors(records: list[dict], live: list[dict]) -> pd.DataFrame:
    """Held-out force errors of recorded and live runs over those of zero forces: columns size, run, set, update, ratio.

    The four generated sets (of published data alone, those); their held-out parts are not the same in both runs.
    """
    return pd.DataFrame([
        {"size": one["size"], "run": kind, "set": key, "update": row["step"],
         "ratio": row[f"{name}_force_mae"] / one["baseline"][name]["force_mae"]}
        for kind, one in _recorded_and_live(records, live) for key, name in zip(PRETRAINING_SETS, one["data"])
        for row in one["history"]])


def composition_parts(run, predictions: dict) -> dict[str, np.ndarray]:
    """{task: (S,)}: the part of the true values that is linear in the composition, in the unit of ``predictions``
    {task: (true, predicted)}; of the tasks whose labels the official recipe takes atomic references from (QM9's
    energies, ZPVE, Cv).

    Without it a parity plot of total energies is a line, whatever the network has learnt.
    """
    referenced, found = set(facts.tasks().query("atom_reference")["id"]), {}
    for task in referenced & set(predictions):
        test = task_data(run.profile, task).test
        true = np.asarray(predictions[task][0], float)
        found[task] = element_counts(numbers_of(test)) @ np.asarray(fit_linear_reference(numbers_of(test), true))
    return found


def compare(run) -> pd.DataFrame:
    """Published (as printed) and own test errors of the run's tasks (MatBench: fold 0) in two labelled halves;
    index (task, unit).

    The own half (blank for the smoke profile) ends with the linear model of the composition, and "no" where no arm
    beats it.
    """
    all_tasks = comparable(all_tasks_table(run.records_dir))
    published = all_tasks.loc[all_tasks["task"].isin(run.tasks), "data_kind"].eq("published").any()
    own_label = (f"own (published data{reduced(all_tasks)}, profile {run.profile.name})" if published
                 else "own (generated mini data)")
    printed = facts.published().query("statistic != 'mean'").pivot(index="task",
                                                                   columns="model", values="printed").fillna("")
    table = pd.concat({PAPER: printed.loc[list(run.tasks), list(run.arms)],
                       own_label: own_values(all_tasks).loc[list(run.tasks), list(run.arms)]}, axis=1)
    units = [get_task(task).printed_unit for task in table.index]
    # error of the linear model of the composition; "no": it is better than every arm
    for name in ("composition", "learnt"):
        table[own_label, name] = all_tasks.groupby("task")[name].first().reindex(table.index)
    table.index = pd.MultiIndex.from_arrays([table.index, units], names=["task", "unit"])
    if table[own_label, "composition"].isna().all():  # forces have none
        table = table.drop(columns=(own_label, "composition"))
    return table.map(lambda v: float(f"{v:.4g}") if isinstance(v, float) and pd.notna(v) else v)


def simple_models(run) -> pd.DataFrame:
    """Test errors of the baselines of the run's tasks beside those of the arms, in printed units; one row per task."""
    simple = values.baseline_table(run.results_dir).pivot(index="task", columns="baseline",
                                                          values="value").reindex(list(run.tasks))
    arms = own_values(all_tasks_table(run.records_dir)).loc[list(run.tasks), list(run.arms)]
    return simple.join(arms).assign(unit=[get_task(task).printed_unit for task in run.tasks]).reset_index()


def gains(run, new: str, base: str) -> pd.DataFrame:
    """Relative improvement in % of arm ``new`` over ``base`` on the run's tasks that have both, by task: own (the
    column's name says of which data), ``from`` and ``to`` of its interval, ``PAPER`` (blank in smoke)."""
    all_tasks = all_tasks_table(run.records_dir)
    table = values.gains(all_tasks, new, base).loc[list(run.tasks)].dropna(subset="own")
    if not run.profile.comparable:
        table["published"] = float("nan")
    ours = f"this workbook ({run.profile.data} data{reduced(all_tasks)})"
    return table.rename(columns={"own": ours, "published": PAPER})[[ours, "from", "to", PAPER]]


def large_over_small(run) -> pd.DataFrame:
    """What a larger network gains, from scratch and pre-trained: columns task, of, data (ours, the paper's),
    gain / %, from, to."""
    found = []
    for of, (new, base) in {"from scratch": ("GN-OC-L", "GN-OC-S"), "pre-trained": ("JMP-L", "JMP-S")}.items():
        table = gains(run, new, base).rename_axis("task")
        for data in (table.columns[0], PAPER):
            ends = table[["from", "to"]] if data != PAPER else float("nan") * table[["from", "to"]]
            found.append(ends.assign(of=of, data=data, gain=table[data]).reset_index())
    return pd.concat(found, ignore_index=True).dropna(subset="gain")
