"""Baselines beside the four arms: the mean, a linear model of the composition, a linear model on the embeddings of
the frozen backbone that JMP-S starts from and of an untrained one, and MACE and SchNet from scratch (``networks``).

    python -m jmp_lib baselines --profile published_small

The same train, validation and test structures as the arms have; one record each under ``records/baselines``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jmp_lib import records
from jmp_lib.data.normalise import Normaliser, composition, fit_composition, numbers_of, true_values
from jmp_lib.data.tasks import TaskData, get_task, why_not
from jmp_lib.files import write_json
from jmp_lib.graphs import AddGraphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec, load_backbone
from jmp_lib.model.scaling import set_factors
from jmp_lib.model.weights import load_weights
from jmp_lib.parameters import nearest
from jmp_lib.pool import Outcome, report, run_jobs
from jmp_lib.results.networks import INSTALL, NETWORKS, mace_available, train_network
from jmp_lib.settings import Profile
from jmp_lib.train.finetuning import size_of, start_of, task_data, trivial_predictions
from jmp_lib.train.losses import mae

BUDGET_OF = "GN-OC-L"  # a network trains for as long as this arm did
# baseline -> arm whose network, as it starts, gives the embeddings
EMBEDDED = {"frozen": "JMP-S", "untrained": "GN-OC-S"}
NAMES = ("mean", "composition", *EMBEDDED, *NETWORKS)
STRENGTHS = np.logspace(-2, 6, 17)  # of the ridge on embeddings; the best by leave-one-out on the training part


def applies(name: str, task_id: str) -> bool:
    """Composition and embeddings: scalar labels. MACE: rMD17, one molecule a task. ``ValueError``
    for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"unknown baseline '{name}'; {nearest(name, NAMES)}".replace("key", "baseline"))
    task = get_task(task_id)
    return {"mean": True, "mace": task.family == "rmd17", "schnet": True}.get(name, not task.is_force_task)


def record_path(out_dir: Path, task_id: str, name: str) -> Path:
    return Path(out_dir) / "records" / "baselines" / f"{task_id}--{name}.json"


def baseline(profile: Profile, task_id: str, name: str, out_dir: Path) -> dict:
    """The record of baseline ``name`` on ``task_id`` (first fold of the profile), made unless it is there already.

    Raises ``ValueError`` for an unknown name or one that does not apply, ``RuntimeError`` without MACE,
    ``FileNotFoundError`` when the record of the arm whose time a network gets is missing.
    """
    if not applies(name, task_id):
        raise ValueError(f"baseline {name} does not apply to {task_id}: composition and embeddings are for "
                         "scalar labels, mace for rMD17")
    task, fold, out_dir = get_task(task_id), profile.folds_of(task_id)[0], Path(out_dir)
    data, parameters = task_data(profile, task_id, fold), {"seed": profile.seed}
    if name in NETWORKS:
        arm = records.read_record(records.finetune_record_path(out_dir, task_id, BUDGET_OF, fold))
        parameters |= {"seconds": round(arm["train_time_s"], 1), "budget_of": BUDGET_OF,
                       "clock": "processor", **NETWORKS[name]}
    if name in EMBEDDED:
        parameters["start"] = start = start_of(profile, EMBEDDED[name], out_dir, train=False)
        if None in start.values():
            raise FileNotFoundError(f"there is no pre-trained network in {out_dir} for the baseline "
                                    f"{name}: run notebook 03 first")
    path = record_path(out_dir, task_id, name)
    fingerprint = records.fingerprint({"baseline": name, "task": task_id, "fold": fold, "parameters": parameters,
                                       "data": [data.data_sha256, data.split_sha256]})
    done = records.finished_record(path, out_dir, fingerprint)
    if done is not None:
        return done
    began, about = time.perf_counter(), {}
    if name in NETWORKS:
        settings = profile.finetune_settings(task.family, task_id)
        predicted, about = train_network(name, data, settings, parameters["seconds"], profile.seed)
    elif name in EMBEDDED:
        predicted = ridge(*embeddings(profile, data, start, out_dir), data)
    elif name == "mean":
        predicted = trivial_predictions(data, Normaliser())
    else:
        predicted = linear_composition(numbers_of(data.train), true_values(data.train, data.label),
                                       numbers_of(data.test), task.reduction == "sum")
    truth = true_values(data.test, data.label)
    file = records.work_dir(path, out_dir) / "predictions.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    records.save_arrays(file, true=task.print_factor * truth, predicted=task.print_factor * predicted,
                        ids=data.test.ids, natoms=data.test.natoms)
    predictions = records.file_entry(file, out_dir)
    write_json(path, {
        "schema": records.SCHEMA, "kind": "baseline", "profile": profile.name, "task": task_id, "family": task.family,
        "arm": name, "fold": fold, "metric": task.metric, "value": task.print_factor * mae(predicted, truth),
        "unit": task.printed_unit, "data": data.name, "data_note": data.description,
        "data_kind": data.data_kind, "n_train": len(data.train),
        "n_val": len(data.val), "n_test": len(data.test), "seed": profile.seed, "parameters": parameters, **about,
        "wall_time_s": time.perf_counter() - began, "threads": 1, "device": records.device_name(torch.device("cpu")),
        "peak_memory_mb": records.peak_memory_mb(), "commit": records.git_commit(), "versions": records.versions(),
        "data_sha256": data.data_sha256, "split_sha256": data.split_sha256, "predictions": predictions,
        "files": {"predictions": predictions}, "fingerprint": fingerprint})
    return records.read_record(path)


def linear_composition(train_numbers: list, values: np.ndarray, test_numbers: list, extensive: bool) -> np.ndarray:
    """``fit_composition`` on the training part, its predictions of the test part (S_test,), unit of y.

    train_numbers, test_numbers: atomic numbers of each structure; values (S_train,).
    """
    contributions, intercept = fit_composition(train_numbers, values, extensive)
    return composition(test_numbers, extensive) @ contributions + intercept


@torch.no_grad()
def embeddings(profile: Profile, data: TaskData, start: dict, out_dir: Path) -> list[np.ndarray]:
    """Mean final node embedding of every structure of the training and the test part, each (S,A), of the
    network at ``start``.

    Kept under ``work/embeddings``: tasks that are targets of one set have the same.
    """
    arm = EMBEDDED["frozen" if "pretrained" in start else "untrained"]
    config, graph = profile.models[size_of(arm)], profile.graphs[data.task.family]
    key = records.fingerprint({"start": start, "seed": profile.seed, "model": config.to_dict(), "graph": str(graph),
                               "data": [data.data_sha256, data.split_sha256]})
    file = out_dir / "work" / "embeddings" / f"{key[:16]}.npz"
    if not file.is_file():
        torch.set_num_threads(1)
        torch.manual_seed(profile.seed)
        model = FinetuneModel(config, [HeadSpec("energy", "energy", "sum")]).eval()
        if "pretrained" in start:
            load_backbone(model, load_weights(out_dir / start["pretrained"]["file"]))
        set_factors(model, start["scale_factors"])
        add_graphs = AddGraphs(graph)
        found = [np.stack([model.embed(collate([add_graphs(s)])).mean(0).numpy() for s in part])
                 for part in (data.train, data.test)]
        file.parent.mkdir(parents=True, exist_ok=True)
        records.save_arrays(file, train=found[0], test=found[1])
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays["train"], arrays["test"]]


def ridge(train: np.ndarray, test: np.ndarray, data: TaskData) -> np.ndarray:
    """Linear model of the composition, plus a ridge regression of what it leaves on the embeddings:
    (S_test,), unit of the label.

    train, test: mean embedding of every structure (S,A); where the label grows with the number of atoms,
    their sums are used.
    """
    extensive, values = data.task.reduction == "sum", true_values(data.train, data.label)
    if extensive:
        train, test = (part * structures.natoms[:, None]
                       for part, structures in ((train, data.train), (test, data.test)))
    numbers = numbers_of(data.train), numbers_of(data.test)
    known, base = (linear_composition(numbers[0], values, part, extensive) for part in numbers)
    return base + make_pipeline(StandardScaler(), RidgeCV(STRENGTHS)).fit(train, values - known).predict(test)


def run_all(run, names=None) -> list[Outcome]:
    """All baselines that apply to the tasks of a workbook run; what became of each, failed ones with ``error``.

    Failures are said and kept for ``reproduce`` (``pool.report``); RuntimeError when all fail. A network is left out
    where the arm whose time it gets has not been run, MACE (said so) where it is not installed, and SchNet on mini
    data unless ``names`` has it: on every task it takes as long as an arm.
    """
    names = names or [name for name in NAMES if name != "schnet" or run.profile.data == "published"]
    wanted = [(task, name) for task in run.tasks for name in names if applies(name, task)]
    jobs = [(f"{task} {name}", baseline, (run.profile, task, name, run.results_dir))
            for task, name in wanted if _can(run, name, task)]
    missing = [task for task, name in wanted
               if name == "mace" and not record_path(run.results_dir, task, "mace").is_file()]
    if missing and not mace_available():
        print(INSTALL + " to have it beside the arms on rMD17")
    outcomes = run_jobs(jobs, run.profile.workers, "baselines")
    report(run.results_dir, outcomes, "baseline")
    return outcomes


def _can(run, name: str, task: str) -> bool:
    fold = run.profile.folds_of(task)[0]
    if run.profile.data == "published" and why_not(get_task(task), run.profile.data_root, fold=fold, thorough=True):
        return False
    if name in EMBEDDED:
        return None not in start_of(run.profile, EMBEDDED[name], Path(run.results_dir), train=False).values()
    needed = records.finetune_record_path(run.results_dir, task, BUDGET_OF, fold)
    return name not in NETWORKS or (needed.is_file() and (name != "mace" or mace_available()))
