"""What the notebooks call: one run of one profile, with its data, records and figures.

    run = start(globals(), ("profile", "targets", "arms", ...), family="qm9")
    records = run.finetune_all()

Long steps run in worker processes (``jmp_lib.pool``); finished ones are kept, so a
notebook that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import IPython
import pandas as pd
import torch

from jmp_lib import parameters, paths
from jmp_lib.data.tasks import FAMILIES, TASKS, why_not
from jmp_lib.files import write_atomically
from jmp_lib.pool import report, run_jobs
from jmp_lib.records import (
    finetune_record_path,
    load_predictions,
    load_pretraining_records,
    pretrain_record_path,
    read_record,
)
from jmp_lib.settings import SIZES, Profile, load_profile
from jmp_lib.train.finetuning import finetune
from jmp_lib.train.loading import first_updates, given_start, shipped_names
from jmp_lib.train.pretraining import pretrain

SUBSET_NAMES = tuple(dict.fromkeys(family.subset for family in FAMILIES.values()))  # of the parameters cells


@dataclass(frozen=True)
class Run:
    """A profile with its overrides, the folder of its results, and what was chosen of it."""

    profile: Profile
    results_dir: Path
    parameters: dict
    family: str | None
    tasks: tuple[str, ...]  # ids of tasks.csv
    arms: tuple[str, ...]
    sizes: tuple[str, ...]  # model sizes to pre-train

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(pre-trained, from-scratch) arms of one size that are both part of this run."""
        return [(new, base) for new, base in (("JMP-S", "GN-OC-S"), ("JMP-L", "GN-OC-L"))
                if {new, base} <= set(self.arms)]

    @property
    def records_dir(self) -> Path:
        """Folder of the records."""
        return self.results_dir / "records"

    def pretrain_all(self, sizes=None) -> list[dict]:
        """Pre-trains every size side by side and returns the records; raises when one fails.

        A size with given weights (``pretrained`` in the profile) is not trained: the record of one that ships is put in
        place. ValueError when none remains.
        """
        given, sizes = self.profile.pretrained, sizes or self.sizes
        wanted, shipped = [size for size in sizes if size not in given], self._shipped(sizes)
        if not wanted and not shipped:
            raise ValueError(f"profile {self.profile.name} starts from given weights ({', '.join(given.values())}): "
                             "there is nothing to pre-train; go on with the fine-tunings")
        for size in shipped:
            given_start(self.profile, size, self.results_dir)
        self._run(self._jobs(sizes=wanted), "pre-training")
        return [read_record(pretrain_record_path(self.results_dir, size)) for size in sizes
                if size in (*wanted, *shipped)]

    def pretrain_live(self) -> list[dict]:
        """Trains the first updates of the pre-training of every shipped network that the profile starts from,
        on the embedded sets; their records, which lie in ``live/`` of the results. None where nothing ships:
        those were trained whole."""
        jobs = [(f"{size}, first updates", pretrain,
                 (first_updates(self.profile, size), size, self.results_dir / "live", False))
                for size in self._shipped(self.sizes)]  # fmt: skip
        return self._run(jobs, "pre-training")

    def _shipped(self, sizes) -> list[str]:
        """Those of ``sizes`` whose weights are a network that comes with the package."""
        return [size for size in sizes if self.profile.pretrained.get(size) in shipped_names()]

    def _run(self, jobs: list[tuple], what: str) -> list:
        """Results of jobs in worker processes. Failures are said; RuntimeError when all fail,
        of a pre-training when any does."""
        outcomes = run_jobs(jobs, self.profile.workers, what)
        report(self.results_dir, outcomes, what, all_needed=what == "pre-training")
        return [outcome.result for outcome in outcomes]

    def finetune_all(self, tasks=None, arms=None, fold: int | None = None) -> pd.DataFrame:
        """Fine-tunes every task with every arm; one row per finished run.

        fold: only this MatBench fold (None: as many as the profile says, from 0). A failed run is reported in words,
        named in ``attrs["failed"]`` of the table, and the others go on; RuntimeError when all fail, ValueError when
        no task has the fold.
        """
        tasks, arms = tuple(tasks or self.tasks), tuple(arms or self.arms)
        jobs = self._jobs(tasks, arms, fold=fold)
        if not jobs:
            raise ValueError(f"no task of this run has a fold {fold}: only those of MatBench have folds, 0 to 4")
        for size, arm in zip(SIZES, ("JMP-S", "JMP-L")):
            if (arm in arms and size not in self.profile.pretrained
                    and not pretrain_record_path(self.results_dir, size).is_file()):
                print(f"no pre-trained {size} network in {_short(self.results_dir)}: the first fine-tuning of {arm} "
                      "trains it before it begins, which may take long; notebook 03 shows it")
        results = self._run(jobs, "fine-tuning")
        names = ["task", "arm", *["fold"] * (fold is not None), "metric", "value", "unit", "data",
                 "n_train", "n_test", "wall_time_s"]
        table = pd.DataFrame(self.records(tasks, arms, fold), columns=names)
        table.attrs["failed"] = [job[0] for job, result in zip(jobs, results) if result is None]
        return table

    def _jobs(self, tasks=(), arms=(), sizes=(), fold: int | None = None) -> list[tuple]:
        """(name, function, arguments) of the pre-trainings of ``sizes`` and the fine-tunings of ``tasks`` with
        ``arms``, of large networks first: the shorter the last ones, the less a worker waits for the other."""
        name, profile, folder = (f"{self.profile.variant} " if self.profile.variant else "",
                                 self.profile, self.results_dir)
        folds = {task: profile.folds_of(task) if fold is None else (fold,) * (fold < TASKS[task].n_folds)
                 for task in tasks}
        return [(f"{name}{size}", pretrain, (profile, size, folder, False)) for size in sizes] + [
            (f"{name}{task} {arm}" + f" fold {k}" * bool(k), finetune, (profile, task, arm, folder, False, k))
            for size in "LS" for task in tasks for k in folds[task] for arm in arms if arm.endswith(size)]

    def variants(self) -> list[Run]:
        """One run per variant of the profile (other seeds, less training data, ablations), in their order.

        A variant is a block of the profile's YAML that is put over the rest (``published_small:seed-43``) and says
        itself what it runs and where it starts; its records lie in ``variants/<name>``. Tasks without published files
        are left out.
        """
        found = []
        for name in self.profile.variants:
            base, changes = self.parameters.get("profile") or "mini", profile_overrides(self.parameters, None)
            profile = load_profile(f"{base}:{name}", **changes).model_copy(update={"data_root": self.profile.data_root})
            without = missing(every := choose_tasks({}, profile, None), profile)
            tasks, folder = (tuple(task for task in every if task not in without),
                             results_folder(self.results_dir, profile))
            sizes = tuple(size for size, arm in zip(SIZES, ("JMP-S", "JMP-L"))
                          if arm in profile.arms and size not in profile.pretrained)
            found.append(Run(profile, folder, self.parameters, None, tasks, profile.arms, sizes))
        return found

    def run_variants(self) -> dict[str, Path]:
        """Runs every variant of the profile, pre-trainings first; returns for each role of a variant (seed, size,
        ablation) the folder whose variants are to be shown (:func:`jmp_lib.results.variants.shown`)."""
        from jmp_lib.results.variants import ROLES, shown, variant_values

        runs = self.variants()
        self._run([job for one in runs for job in one._jobs(sizes=one.sizes)], "pre-training")
        self._run([job for one in runs for job in one._jobs(one.tasks, one.arms)], "fine-tuning")
        folders = {role: shown(self.results_dir, role) for role in ROLES}
        for role, folder in folders.items():
            if folder != self.results_dir:
                some = variant_values(folder)["role"].eq(role).any()
                print(f"variants of {role}: none in these results, "
                      + (f"so those of {folder.name} are shown" if some else "and none ship"))
        return folders

    def records(self, tasks=None, arms=None, fold: int | None = None) -> list[dict]:
        """Finished fine-tuning records (of ``fold``, else fold 0, or the first one of the profile),
        in the order of tasks and arms."""
        found = [finetune_record_path(self.results_dir, task, arm,
                                      self.profile.folds_of(task)[0] if fold is None else fold)
                 for task in tasks or self.tasks for arm in arms or self.arms]
        return [read_record(path) for path in found if path.is_file()]

    def predictions(self, records: list[dict]) -> dict:
        """{task: (true, predicted)} of the given records in printed units; those whose file is gone are absent."""
        return {r["task"]: load_predictions(self.results_dir, r) for r in records
                if (self.results_dir / r["predictions"]["file"]).is_file()}

    def pretraining_records(self) -> list[dict]:
        """Finished pre-training records of this run's sizes, small before large."""
        return [record for record in load_pretraining_records(self.results_dir) if record["size"] in self.sizes]

    def save(self, figure, name: str) -> None:
        """Saves ``figure`` as PNG and SVG under ``figures/`` of the results folder."""
        from jmp_lib.results.style import save  # a training draws nothing

        save(figure, self.results_dir / "figures", name)

    def write_table(self, table: pd.DataFrame, name: str, index: bool = False) -> pd.DataFrame:
        """Writes ``table`` to ``tables/<name>.csv`` of the results folder and returns it.

        A folder of published files is called ``data`` in it, wherever it is on this machine.
        """
        for folder in map(str, paths.data_dirs(self.profile.data_root) if self.profile.data_root else ()):
            table = table.map(lambda value, folder=folder: value.replace(folder, "data")
                              if isinstance(value, str) else value)
        with write_atomically(self.results_dir / "tables" / f"{name}.csv") as stream:
            table.to_csv(stream, index=index, lineterminator="\n")
        return table


def start(namespace: dict, declared: tuple[str, ...], family: str | None = None) -> Run:
    """Checks the parameters of a notebook, loads the profile and prints what the run is, versions and machine.

    ``namespace``: ``globals()`` of the notebook (or any mapping), ``declared``: the names that its parameters cell
    sets. ValueError names the nearest valid name for anything unknown.
    """
    values = parameters.collect(namespace, declared)
    profile = resolved_profile(values, family)
    tasks = choose_tasks(values, profile, family)
    arms = parameters.choose(values.get("arms"), list(profile.arms), "arm")
    sizes = parameters.choose(values.get("sizes"), list(SIZES), "model size")
    if profile.data == "published" and not profile.data_root and {"data", "data_root"} & set(declared):
        raise ValueError("data='published' needs data_root: the folder that holds the published files")
    if family and (without := missing(tasks, profile, thorough=True)):
        words = "\n".join(f"no published data for {task}: {reason}" for task, reason in without.items())
        if len(without) == len(tasks):
            raise ValueError(words)
        print(words)
        tasks = [task for task in tasks if task not in without]
    folder = results_folder(values.get("results_dir"), profile)
    run = Run(profile, folder, values, family, tuple(tasks), tuple(arms), tuple(sizes))
    torch.set_num_threads(profile.threads)  # repeatable sums, and no threads that fight over few cores
    if shell := IPython.get_ipython():  # a data frame at the end of a cell looks like the tables of the report
        from jmp_lib.results.pages import frame_html

        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, frame_html)
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores, no GPU"
    version = (metadata.version("jmp-workbook") if any(metadata.distributions(name="jmp-workbook"))
               else "(not installed)")
    print(f"jmp_lib {version} · Python {platform.python_version()} · torch {torch.__version__} · {device}\n"
          f"profile {profile.name} · {profile.data} data · seed {profile.seed} · results in {_short(run.results_dir)}")
    shipped = paths.shipped_dir(run.results_dir.name)
    if set(declared) <= {"profile", "results_dir"} and shipped.is_dir() and not any(run.records_dir.rglob("*.json")):
        print(f"no records in {_short(run.results_dir)} yet: run the notebooks before this one, or `make reproduce`; "
              f"the run that comes with the checkout is in {_short(shipped)}")
    return run


def resolved_profile(values: dict, family: str | None = None) -> Profile:
    """The profile with the checked parameters over it, and the folder of published files where it is made for those at
    hand."""
    profile = load_profile(values.get("profile") or "mini", **profile_overrides(values, family))
    at_hand = profile.data == "published" and profile.published_at_hand and not profile.data_root
    return profile.model_copy(update={"data_root": paths.data_root()}) if at_hand else profile


def missing(tasks: list[str], profile: Profile, thorough: bool = False) -> dict[str, str]:
    """{task: why its published data cannot be read}; empty for mini data, and where no ``data_root`` is given."""
    if profile.data != "published" or not profile.data_root:
        return {}
    reasons = {task: why_not(TASKS[task], profile.data_root, fold=profile.folds_of(task)[0], thorough=thorough)
               for task in tasks}
    return {task: reason for task, reason in reasons.items() if reason}


def profile_overrides(values: dict, family: str | None) -> dict:
    """Profile overrides (dotted keys) of the parameters that were given."""
    given = {name: values[name] for name in ("seed", "workers", "max_steps", "data") if values.get(name) is not None}
    if values.get("data_root"):
        given["data_root"] = paths.data_root(values["data_root"])
    if values.get("max_eval") is not None:
        given |= {f"finetuning.families.{group}.{name}": values["max_eval"]
                  for group in ([family] if family else FAMILIES) for name in ("max_val", "max_test")}
    if values.get("lr") is not None:
        given[f"finetuning.families.{family}.lr" if family else "pretraining.lr"] = values["lr"]
    return given


def choose_tasks(values: dict, profile: Profile, family: str | None) -> list[str]:
    """Task ids of the family (of all families without one): those asked for, else those of the profile."""
    only, what = profile.tasks, next((name for name in SUBSET_NAMES if values.get(name)), None)
    every = [[task for task in TASKS.values() if task.family == name and (only is None or task.id in only)]
             for name in ([family] if family else FAMILIES)]
    if what is None:
        chosen = profile.published_tasks.get(family) if profile.data == "published" else None
        return list(chosen) if chosen is not None else \
            [task.id for tasks in every for task in tasks[: profile.tasks_per_family]]
    short = {task.suffix: task.id for tasks in every for task in tasks}
    names = [TASKS[word].suffix if word in short.values() else word for word in values[what]]
    return [short[name] for name in parameters.choose(names, list(short), what.rstrip("s"))]


def results_folder(override: str | Path | None, profile: Profile) -> Path:
    """Absolute folder of a run's results: ``override``, else ``results/<profile>``; of a variant ``variants/<name>`` in
    it."""
    folder = paths.results_dir(override) if override else paths.results_dir() / profile.results_name
    own = Path("variants", profile.variant or "")
    return folder / own if profile.variant and folder.parts[-2:] != own.parts else folder


def _short(path: Path) -> str:
    """``path`` relative to the checkout when it lies there (the same text on every machine)."""
    root = paths.checkout_dir()
    return str(path.relative_to(root)) if root and path.is_relative_to(root) else str(path)

