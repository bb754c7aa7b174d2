"""Fine-tuning of one task by one arm, and its test error.

    record = finetune(load_profile("mini"), "qm9_mu", "JMP-S", Path("results/mini"))

Arms: GN-OC-S, GN-OC-L start from random weights, JMP-S, JMP-L from the averaged (EMA) backbone and atom
embedding of the pre-training; heads are new in all of them.  All four have the same budget, data, schedule
and scale factors.  Layer-wise learning rates belong to the pre-trained parts: the from-scratch arms have
multiplier 1 everywhere (the published from-scratch settings are not known).

The weights with the best validation error are kept; the test part is looked at once, with those.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from jmp_lib import records
from jmp_lib.data.tasks import Task, TaskData, load_task_data
from jmp_lib.files import write_json
from jmp_lib.model import FinetuneModel, HeadSpec, load_backbone
from jmp_lib.profile import ARMS, FinetuneSettings, Profile
from jmp_lib.strict import nearest
from jmp_lib.train import launch
from jmp_lib.train.batches import EvaluationSet, UpdateBatches, choose_device, graph_cache, predict
from jmp_lib.train.checkpoint import remove_checkpoints, remove_unfinished
from jmp_lib.train.ema import EMA
from jmp_lib.train.loading import given_start
from jmp_lib.train.loop import Run, train
from jmp_lib.train.losses import Counts, finetuning_loss
from jmp_lib.train.metrics import mae
from jmp_lib.train.normalise import Normaliser, fit_forces, fit_property
from jmp_lib.train.pretrain import describe_model, how, pretrain, scale_factors
from jmp_lib.train.processes import Processes
from jmp_lib.train.sampling import Sampler
from jmp_lib.train.schedule import Group, in_updates, layerwise_groups, parameter_groups, plateau
from jmp_lib.train.weights import elements_of_weights, load_weights, save_weights, set_factors


def finetune(profile: Profile, task_id: str, arm: str, out_dir: Path, progress: bool = True, fold: int = 0) -> dict:
    """Fine-tune ``arm`` on ``task_id``; returns its record (value in the unit the paper prints).

    A missing pre-training is run first.  A finished run with the same settings and data is not repeated; a killed
    one goes on from its last checkpoint and ends, on a CPU, with the same numbers.  Raises ``ValueError`` for an
    unknown arm or task, ``FloatingPointError`` for a loss that is not finite.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm '{arm}'; {nearest(arm, ARMS)}".replace("key", "arm"))
    out_dir = Path(out_dir)
    record_path = records.finetune_record_path(out_dir, task_id, arm, fold)
    size = "small" if arm.endswith("-S") else "large"
    if launch.needed(profile.engine):
        launch.in_processes(profile, out_dir, progress, task_id=task_id, arm=arm, fold=fold)
        return records.read_record(record_path)
    caps_of = profile.finetune_settings(task_id.split("_")[0], task_id)
    data = load_task_data(task_id, data=profile.data, data_root=profile.data_root, fold=fold,
                          caps={"train": caps_of.max_train, "val": caps_of.max_val, "test": caps_of.max_test})
    start = given_start(profile, size, out_dir) or {"scale_factors": scale_factors(profile, size, out_dir)}
    if not arm.startswith("JMP"):
        start.pop("pretrained", None)
    elif "pretrained" not in start:
        start["pretrained"] = pretrain(profile, size, out_dir, progress)["files"]["weights"]
    processes = Processes(choose_device(profile.device), caps_of.precision)
    with processes.alone(records.work_dir(record_path, out_dir) / "lock"):
        parameters = finetuning_parameters(profile, data.task, arm)
        fingerprint = records.fingerprint({
            "kind": "finetune", "task": task_id, "arm": arm, "fold": fold, "start": start, "parameters": parameters,
            "data": [data.data_sha256, data.split_sha256]})
        if not processes.broadcast(records.finished_record(record_path, out_dir, fingerprint) is not None):
            _finetune(profile, data, arm, size, out_dir, start, parameters, fingerprint, progress, processes)
    return records.read_record(record_path)


def finetuning_parameters(profile: Profile, task: Task, arm: str) -> dict:
    """Everything in the profile that decides the numbers of a fine-tuning."""
    size = "small" if arm.endswith("-S") else "large"
    return {"seed": profile.seed, "max_steps": profile.max_steps, "model": profile.models[size].to_dict(),
            "graph": dataclasses.asdict(profile.graphs[task.family]),
            "settings": dataclasses.asdict(profile.finetune_settings(task.family, task.id)),
            "learning_rate_multipliers": {g.name: g.multiplier for g in learning_rate_groups(profile, arm)}}


def learning_rate_groups(profile: Profile, arm: str) -> list[Group]:
    """Layer-wise groups of the pre-trained arms; one group with multiplier 1 for the from-scratch arms."""
    if not arm.startswith("JMP"):
        return [Group("rest", ("*",), 1.0)]
    layerwise = profile.finetuning.layerwise
    return layerwise_groups(layerwise.embedding, layerwise.small if arm.endswith("-S") else layerwise.large)


def fit_normalisers(data: TaskData, settings: FinetuneSettings) -> dict[str, Normaliser]:
    """Normalisers of the labels that are trained on, from the training part: label -> Normaliser."""
    structures = list(data.train)
    numbers = [np.asarray(s["atomic_numbers"]) for s in structures]
    if not data.task.is_force_task:
        values = np.array([float(s[data.label]) for s in structures])
        return {data.label: fit_property(numbers, values, settings.normaliser, settings.linear_reference, settings.mean,
                                         settings.std, settings.reference_values)}
    found = {"forces": fit_forces([s["forces"] for s in structures], settings.std)}
    if settings.energy_coefficient:
        energies = np.array([float(s["energy"]) for s in structures])
        found["energy"] = fit_property(numbers, energies, "standard", settings.linear_reference)
    return found


def new_model(profile: Profile, task: Task, settings: FinetuneSettings, size: str) -> torch.nn.Module:
    """The fine-tuning network of a task with random weights that depend on the seed only."""
    torch.manual_seed(profile.seed)
    head = settings.force_head or task.head
    if task.is_force_task:
        heads = [HeadSpec("energy", "energy", "sum"), HeadSpec("forces", head, "sum")]
    else:
        heads = [HeadSpec(task.label, task.head, settings.reduction or task.reduction)]
    return FinetuneModel(profile.models[size], heads)


def parts_of_run(profile: Profile, data: TaskData, size: str, normalisers: dict[str, Normaliser], processes: Processes):
    """What the loop trains: (model without start weights and factors, update batches, loss of a part of a batch)."""
    task = data.task
    settings = profile.finetune_settings(task.family, task.id)
    model = new_model(profile, task, settings, size).to(processes.device)
    cache = graph_cache(data.train, normalisers, profile.graphs[task.family])
    sampler = Sampler.single(len(data.train), settings.batch_size, profile.seed)
    batches = UpdateBatches([cache], [data.train.name], sampler, profile.seed, max_edges=profile.engine.max_edges,
                            rank=processes.rank, processes=processes.size)
    coefficients = {data.label: 1.0} if not task.is_force_task else \
        {"forces": settings.force_coefficient, "energy": settings.energy_coefficient}

    def loss(batch: dict, counts: Counts) -> dict[str, torch.Tensor]:
        return {"total": finetuning_loss(model(batch), batch, coefficients, counts)}

    return model, batches, loss


def new_optimizer(model: torch.nn.Module, profile: Profile, settings: FinetuneSettings,
                  arm: str) -> torch.optim.Optimizer:
    """AdamW with the layer-wise rates of the arm."""
    return torch.optim.AdamW(parameter_groups(model, learning_rate_groups(profile, arm), settings.lr), lr=settings.lr,
                             betas=settings.betas, eps=1.0e-8, weight_decay=settings.weight_decay, fused=True)


def _finetune(profile, data: TaskData, arm, size, out_dir, start, parameters, fingerprint, progress, processes) -> None:
    task, label, device = data.task, data.label, processes.device
    settings = profile.finetune_settings(task.family, task.id)
    record_path = records.finetune_record_path(out_dir, task.id, arm, data.fold)
    work = records.work_dir(record_path, out_dir)
    torch.set_num_threads(profile.threads)
    normalisers = fit_normalisers(data, settings)
    gradients = task.is_force_task and (settings.force_head or task.head) == "gradient_forces"

    model, batches, loss = parts_of_run(profile, data, size, normalisers, processes)
    sampler = batches.sampler
    if "pretrained" in start:
        load_backbone(model, load_weights(out_dir / start["pretrained"]["file"]))
    set_factors(model, start["scale_factors"])
    graph = profile.graphs[task.family]
    caches = {part: graph_cache(getattr(data, part), normalisers, graph) for part in ("val", "test")}
    evaluation = {part: EvaluationSet(cache, settings.eval_batch_size, device) for part, cache in caches.items()}

    def predicted(part: str) -> np.ndarray:
        """De-normalised predictions of a part in the label's unit: (S,), or (ΣN,3) for forces."""
        values = predict(model, evaluation[part], lambda output: {label: output[label]}, gradients, processes)[label]
        return denormalised(values, getattr(data, part), normalisers[label], task)

    truth = {part: true_values(getattr(data, part), label, task) for part in ("val", "test")}
    optimizer = new_optimizer(model, profile, settings, arm)
    if processes.first:
        remove_unfinished(work)
    silent = not progress or not processes.first
    with tqdm(desc=f"{task.id} {arm}", unit="update", mininterval=10, disable=silent) as bar:
        done = train(Run(
            model=model, optimizer=optimizer,
            schedule=in_updates(settings.schedule, sampler.batches_per_epoch, profile.max_steps),
            updates_per_epoch=sampler.batches_per_epoch, data=batches, loss=loss,
            validate=lambda: {"val_metric": task.print_factor * mae(predicted("val"), truth["val"])},
            clip=lambda: torch.nn.utils.clip_grad_value_(model.parameters(), settings.clip_value),
            fingerprint=fingerprint, checkpoint=work / "checkpoint.pt", checkpoint_every=settings.checkpoint_every,
            ema=None if settings.ema_decay is None else EMA(model, settings.ema_decay),
            gradient_divisors=model.gradient_divisors(), watch="val_metric",
            plateau=plateau(optimizer, settings.plateau_factor, settings.plateau_patience),
            patience=settings.early_stopping_patience, min_delta=settings.min_delta,
            stop_below_lr=settings.stop_below_lr, processes=processes, engine=profile.engine, name=f"{task.id} {arm}",
            bar=bar))

    test = predicted("test")
    if not processes.first:
        return
    save_weights(work / "model", model, {
        "kind": "finetune", "task": task.id, "arm": arm, "label": label, "unit": task.label_unit,
        "backbone": profile.models[size].to_dict(),
        "graph": parameters["graph"], "normalisers": {name: n.to_dict() for name, n in normalisers.items()},
        "head": settings.force_head or task.head, "reduction": settings.reduction or task.reduction,
        "scale_factors": start["scale_factors"], "data": data.name, "elements": data.train.elements,
        "pretraining_elements": elements_of_weights(out_dir / start["pretrained"]["file"]) if "pretrained" in start else None})
    records.save_arrays(work / "predictions.npz", true=task.print_factor * truth["test"],
                        predicted=task.print_factor * test, ids=data.test.ids, natoms=data.test.natoms)
    predictions = records.file_entry(work / "predictions.npz", out_dir)
    record = {
        "schema": records.SCHEMA, "kind": "finetune", "profile": profile.name, "task": task.id, "family": task.family,
        "arm": arm, "fold": data.fold, "metric": task.metric, "value": task.print_factor * mae(test, truth["test"]),
        "unit": task.printed_unit, "data": data.name, "data_kind": data.data_kind, "n_train": len(data.train),
        "n_val": len(data.val), "n_test": len(data.test), "seed": profile.seed, "best_val": done.best_value,
        "best_step": done.best_step, "updates": done.step, "stopped": done.stopped or "budget used",
        "baseline": task.print_factor * mae(trivial(data, normalisers[label]), truth["test"]),
        "parameters": parameters, "model": describe_model(model, profile.models[size].to_dict()), "start": start,
        "normalisers": {name: {"mean": n.mean, "std": n.std} for name, n in normalisers.items()},
        "history": done.history, "wall_time_s": done.seconds, "train_time_s": done.train_seconds,
        **how(done, processes, profile), "peak_memory_mb": records.peak_memory_mb(),
        "device": records.device_name(device), "threads": profile.threads,
        "precision": processes.precision, "commit": records.git_commit(),
        "versions": records.versions(), "data_sha256": data.data_sha256, "split_sha256": data.split_sha256,
        "predictions": predictions,
        "files": {"predictions": predictions, "weights": records.file_entry(work / "model.safetensors", out_dir)},
        "fingerprint": fingerprint}
    write_json(record_path, record)
    remove_checkpoints(work / "checkpoint.pt")


def true_values(structures, label: str, task: Task) -> np.ndarray:
    """Labels of a set in the label's unit, float64: (S,), or (ΣN,3) for forces."""
    if task.is_force_task:
        return np.concatenate([np.asarray(s["forces"]) for s in structures]).astype(float)
    return np.array([float(s[label]) for s in structures])


def denormalised(values: np.ndarray, structures, normaliser: Normaliser, task: Task) -> np.ndarray:
    """Model output of a whole set in the label's unit."""
    if task.is_force_task:
        return values * normaliser.std
    return np.array([normaliser.denormalise(value, s["atomic_numbers"]) for value, s in zip(values, structures)])


def trivial(data: TaskData, normaliser: Normaliser) -> np.ndarray:
    """The prediction without a network: mean (and references) of the training part, zero forces."""
    if data.task.is_force_task:
        return np.zeros_like(true_values(data.test, "forces", data.task))
    if normaliser.reference is not None:
        return np.array([normaliser.offset(s["atomic_numbers"]) for s in data.test])
    return np.full(len(data.test), np.mean([float(s[data.label]) for s in data.train]))
