"""Fine-tuning of one task by one arm, and its test error; the same recipe fine-tunes on a user's own data.

    record = finetune(load_profile("mini"), "qm9_mu", "JMP-S", Path("results/mini"))

Arms: GN-OC-S, GN-OC-L start from random weights, JMP-S, JMP-L from the averaged (EMA) backbone and atom embedding of
the pre-training; heads are new in all of them. All four have the same budget, data, schedule and scale factors, and
each arm a learning rate of its own (``python -m tools.study_rates`` finds it). Layer-wise multipliers belong to the
pre-trained parts: the from-scratch arms have 1 everywhere (the published from-scratch settings are not known).

The weights with the best validation error are kept; the test part is looked at once, with those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jmp_lib import records
from jmp_lib.data.normalise import Normaliser, denormalised, fit_forces, fit_property, numbers_of, true_values
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import Task, TaskData, get_task, load_task_data
from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, load_backbone
from jmp_lib.model.scaling import set_factors
from jmp_lib.model.weights import load_weights, save_weights
from jmp_lib.parameters import nearest
from jmp_lib.settings import ARMS, FinetuneSettings, Profile
from jmp_lib.train import pretraining
from jmp_lib.train.batches import EvaluationSet, LabelledGraphs, UpdateBatches, predict
from jmp_lib.train.job import Job
from jmp_lib.train.loading import given_start, read_info, seen_elements
from jmp_lib.train.losses import Counts, finetuning_loss, mae, structure_errors
from jmp_lib.train.pretraining import pretrain, scale_factors
from jmp_lib.train.processes import in_processes, needed
from jmp_lib.train.sampling import Sampler
from jmp_lib.train.schedule import EMA, Group, in_updates, layerwise_groups, parameter_groups, plateau
from jmp_lib.train.trainer import Progress


def finetune(profile: Profile, task_id: str, arm: str, out_dir: Path, progress: bool = True, fold: int = 0) -> dict:
    """Fine-tune ``arm`` on ``task_id``; returns its record (value in the unit the paper prints).

    A missing pre-training is run first.  A finished run with the same settings and data is not repeated; a killed
    one goes on from its last checkpoint and ends, on a CPU, with the same numbers.  Raises ``ValueError`` for an
    unknown arm or task, ``FloatingPointError`` for a loss that is not finite.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm '{arm}'; {nearest(arm, ARMS)}".replace("key", "arm"))
    out_dir = Path(out_dir).resolve()
    path = records.finetune_record_path(out_dir, task_id, arm, fold)
    if needed(profile.engine):
        in_processes(profile.engine.devices, finetune, profile, task_id, arm, out_dir, progress, fold)
        return records.read_record(path)
    data = task_data(profile, task_id, fold)
    task, label, factor = data.task, data.label, data.task.print_factor
    start = start_of(profile, arm, out_dir, progress)
    file = out_dir / start["pretrained"]["file"] if "pretrained" in start else None

    def recipe(job: Job):
        """Trains, writes weights and test predictions; the fields of the record."""
        what = of_task(profile, data, arm, start["scale_factors"], load_weights(file) if file else None)
        done, fields, found, true = finetune_data(what, job, {
            "task": task.id, "arm": arm, "units": {label: task.label_unit}, "data": data.name,
            "pretraining_elements": seen_elements(read_info(file)) if file else None})
        if not job.processes.first:
            return done, {}, {}
        records.save_arrays(job.work / "predictions.npz", true=factor * true[label], predicted=factor * found[label],
                            ids=data.test.ids, natoms=data.test.natoms)
        return done, {
            "kind": "finetune", "profile": profile.name, "comparable": profile.comparable, "task": task.id,
            "family": task.family, "arm": arm, "fold": data.fold, "metric": task.metric,
            "value": factor * mae(found[label], true[label]), "unit": task.printed_unit, "data": data.name,
            "test_errors": records.packed_errors(
                structure_errors(factor * found[label], factor * true[label], data.test.natoms), data.test.ids),
            "data_note": data.description, "data_kind": data.data_kind, **fields,
            "baseline": factor * mae(trivial_predictions(data, what.normalisers[label]), true[label]),
            "parameters": finetuning_parameters(profile, task, arm), "start": start,
            "data_sha256": data.data_sha256, "split_sha256": data.split_sha256,
            "predictions": records.file_entry(job.work / "predictions.npz", job.out_dir),
        }, {"predictions": "predictions.npz", "weights": "model.safetensors"}

    wanted, precision = (_fingerprint(profile, data, arm, start),
                         profile.finetune_settings(task.family, task_id).precision)
    return Job(f"{task_id} {arm}", path, out_dir, wanted, profile, precision, progress).run(recipe)


def fingerprint(profile: Profile, task_id: str, arm: str, fold: int, out_dir: Path) -> str:
    """Of all that decides the numbers of a fine-tuning, the pre-training in ``out_dir`` included; nothing is trained.

    Where the pre-training or the scale factors are missing or of other settings, no record has it.
    """
    start = start_of(profile, arm, Path(out_dir).resolve(), train=False)
    return _fingerprint(profile, task_data(profile, task_id, fold), arm, start)


def _fingerprint(profile: Profile, data: TaskData, arm: str, start: dict) -> str:
    return records.fingerprint({
        "kind": "finetune", "task": data.task.id, "arm": arm, "fold": data.fold, "start": start,
        "parameters": finetuning_parameters(profile, data.task, arm), "data": [data.data_sha256, data.split_sha256]})


def start_of(profile: Profile, arm: str, out_dir: Path, progress: bool = True, train: bool = True) -> dict:
    """Where an arm begins: {scale_factors, and pretrained: {file, sha256} for those that have it}.

    Weights that the profile does not name are pre-trained, and factors fitted, unless that is done; without ``train``
    what is missing is None.
    """
    size = size_of(arm)
    start = given_start(profile, size, out_dir) or {"scale_factors": scale_factors(profile, size, out_dir, fit=train)}
    if not arm.startswith("JMP"):
        start.pop("pretrained", None)
    elif "pretrained" not in start:
        path = records.pretrain_record_path(out_dir, size)
        record = pretrain(profile, size, out_dir, progress) if train else \
            records.finished_record(path, out_dir, pretraining.fingerprint(profile, size))
        start["pretrained"] = record and record["files"]["weights"]
    return start


def size_of(arm: str) -> str:
    """small or large, by the last letter of an arm."""
    return "small" if arm.endswith("-S") else "large"


def finetuning_parameters(profile: Profile, task: Task, arm: str) -> dict:
    """Everything in the profile that decides the numbers of a fine-tuning."""
    return {"seed": profile.seed, "max_steps": profile.max_steps, "model": profile.models[size_of(arm)].to_dict(),
            "graph": dataclasses.asdict(profile.graphs[task.family]),
            "settings": profile.finetune_settings(task.family, task.id).of_arm(arm.startswith("JMP"), size_of(arm)),
            "learning_rate_multipliers": {g.name: g.multiplier for g in learning_rate_groups(profile, arm)},
            **profile.engine.numbers}


def learning_rate_groups(profile: Profile, arm: str) -> list[Group]:
    """Layer-wise groups of the pre-trained arms; one group with multiplier 1 for the from-scratch arms."""
    if not arm.startswith("JMP"):
        return [Group("rest", ("*",), 1.0)]
    layerwise = profile.finetuning.layerwise
    return layerwise_groups(layerwise.embedding, layerwise.small if arm.endswith("-S") else layerwise.large)


def task_data(profile: Profile, task_id: str, fold: int = 0) -> TaskData:
    """The data of a task as the profile wants them."""
    settings = profile.finetune_settings(get_task(task_id).family, task_id)
    return load_task_data(task_id, data=profile.data, data_root=profile.data_root, fold=fold,
                          caps={"train": settings.max_train, "val": settings.max_val, "test": settings.max_test})


@dataclass
class FinetuneSpec:
    """What is fine-tuned on what, with which loss."""

    train: StructureSet
    val: StructureSet
    test: StructureSet
    heads: list[HeadSpec]
    predicted: tuple[str, ...]  # labels that are judged: scalars, or forces
    normalisers: dict[str, Normaliser]  # of the labels that are trained on
    coefficients: dict[str, float]  # of the loss, by label
    # predictions, true values by label -> val_metric (the least is best)
    judge: Callable[[dict, dict], dict[str, float]]
    backbone: BackboneConfig
    graph: GraphConfig
    factors: dict[str, float]  # scale factors
    settings: FinetuneSettings
    rate: float  # learning rate
    groups: list[Group]  # its multipliers
    seed: int
    weights: dict[str, torch.Tensor] | None = None  # of the backbone and embedding that it starts from; None: random


def finetune_data(what: FinetuneSpec, job: Job, about: dict) -> tuple[Progress, dict, dict, dict]:
    """Train ``what`` within ``job``, write the best weights, and predict the test part with them.

    about: for ``model.json``, besides what rebuilds the network. Returns the progress, fields for the record, and
    predictions and true values of the test part by label.
    """
    s, processes = what.settings, job.processes
    torch.manual_seed(what.seed)
    model = FinetuneModel(what.backbone, what.heads).to(processes.device)
    if what.weights is not None:
        load_backbone(model, what.weights)
    set_factors(model, what.factors)
    batches = UpdateBatches([LabelledGraphs(what.train, what.normalisers, what.graph)],
                            Sampler.single(len(what.train), s.batch_size, what.seed),
                            max_edges=job.profile.engine.max_edges, rank=processes.rank, processes=processes.size)

    def loss(batch: dict, counts: Counts) -> dict[str, torch.Tensor]:
        return {"total": finetuning_loss(model(batch), batch, what.coefficients, counts)}

    optimizer = torch.optim.AdamW(parameter_groups(model, what.groups, what.rate), lr=what.rate, betas=s.betas,
                                  eps=1.0e-8, weight_decay=s.weight_decay, fused=True)
    parts = {"val": what.val, "test": what.test}
    evaluation = {part: EvaluationSet(LabelledGraphs(structures, what.normalisers, what.graph), s.eval_batch_size,
                                      processes.device) for part, structures in parts.items()}
    gradients = any(head.kind == "gradient_forces" for head in what.heads)

    def predicted(part: str) -> dict[str, np.ndarray]:
        found = predict(model, evaluation[part], lambda out: {label: out[label] for label in what.predicted}, gradients,
                        processes)
        return {label: denormalised(values, parts[part], what.normalisers[label]) for label, values in found.items()}

    truth = {part: {label: true_values(structures, label) for label in what.predicted}
             for part, structures in parts.items()}
    epoch, trained = batches.sampler.batches_per_epoch, list(model.parameters())
    done = job.train(
        model=model, optimizer=optimizer, schedule=in_updates(s.schedule, epoch, job.profile.max_steps),
        updates_per_epoch=epoch, data=batches, loss=loss, validate=lambda: what.judge(predicted("val"), truth["val"]),
        clip=lambda norm: torch.nn.utils.clip_grad_value_(trained, s.clip_value),
        checkpoint_every=s.checkpoint_every, ema=None if s.ema_decay is None else EMA(model, s.ema_decay),
        gradient_divisors=model.gradient_divisors(), watch="val_metric",
        plateau=plateau(optimizer, s.plateau_factor, s.plateau_patience), patience=s.early_stopping_patience,
        min_delta=s.min_delta, stop_below_lr=s.stop_below_lr)
    found, backbone = predicted("test"), what.backbone.to_dict()
    if processes.first:
        save_weights(job.work / "model", model, {
            "kind": "finetune", **about, "backbone": backbone, "graph": dataclasses.asdict(what.graph),
            "heads": [dataclasses.asdict(head) for head in what.heads], "scale_factors": what.factors,
            "normalisers": {name: n.to_dict() for name, n in what.normalisers.items()},
            "elements": what.train.elements})
    return done, {
        "n_train": len(what.train), "n_val": len(what.val), "n_test": len(what.test), "seed": what.seed,
        "best_val": done.best_value, "best_step": done.best_step, "stopped": done.stopped or "budget used",
        "lr": what.rate, "model": {"config": backbone, "n_parameters": sum(p.numel() for p in model.parameters())},
        "normalisers": {name: {"mean": n.mean, "std": n.std} for name, n in what.normalisers.items()},
    }, found, truth["test"]


def of_task(profile: Profile, data: TaskData, arm: str, factors: dict[str, float],
            weights: dict | None) -> FinetuneSpec:
    """The fine-tuning of one of the 40 tasks by an arm."""
    task, label = data.task, data.label
    settings = profile.finetune_settings(task.family, task.id)
    if task.is_force_task:
        heads = [HeadSpec("energy", "energy", "sum"), HeadSpec("forces", settings.force_head or task.head, "sum")]
        coefficients = {"forces": settings.force_coefficient, "energy": settings.energy_coefficient}
    else:
        heads = [HeadSpec(label, task.head, settings.reduction or task.reduction)]
        coefficients = {label: 1.0}
    return FinetuneSpec(
        data.train, data.val, data.test, heads, (label,), fit_normalisers(data, settings), coefficients,
        lambda found, true: {"val_metric": task.print_factor * mae(found[label], true[label])},
        profile.models[size_of(arm)], profile.graphs[task.family], factors, settings,
        settings.rate(arm.startswith("JMP"), size_of(arm)), learning_rate_groups(profile, arm),
        profile.seed, weights)


def fit_normalisers(data: TaskData, settings: FinetuneSettings) -> dict[str, Normaliser]:
    """Normalisers of the labels that are trained on, from the training part: label -> Normaliser."""
    numbers, scalars = numbers_of(data.train), data.train.scalars
    if not data.task.is_force_task:
        return {data.label: fit_property(numbers, scalars[data.label], settings.normaliser, settings.linear_reference,
                                         settings.mean, settings.std, settings.reference_values,
                                         (settings.reduction or data.task.reduction) == "sum")}
    found = {"forces": fit_forces(data.train.forces, settings.std)}
    if settings.energy_coefficient:
        found["energy"] = fit_property(numbers, scalars["energy"], "standard", settings.linear_reference)
    return found


def trivial_predictions(data: TaskData, normaliser: Normaliser) -> np.ndarray:
    """The prediction without a network: mean (and references) of the training part, zero forces."""
    if data.task.is_force_task:
        return np.zeros_like(true_values(data.test, "forces"))
    if normaliser.reference is not None:
        return np.array([normaliser.offset(z) for z in numbers_of(data.test)])
    return np.full(len(data.test), true_values(data.train, data.label).mean())
