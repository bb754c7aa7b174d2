"""Joint pre-training on the four sets (mini: oc20-mini, oc22-mini, anix-mini, t1x-mini).

    record = pretrain(load_profile("mini"), "small", Path("results/mini"))

Each update draws a batch across the sets by temperature sampling; every structure is judged by the heads of its own
set. Written: ``records/pretrain/<size>.json``, and under ``work/pretrain/<size>`` the averaged (EMA) weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from jmp_lib import records
from jmp_lib.data.normalise import denormalised
from jmp_lib.files import locked, reading, write_json
from jmp_lib.model import PretrainModel
from jmp_lib.model.scaling import fit_scale_factors, set_factors
from jmp_lib.model.weights import save_weights
from jmp_lib.settings import PRETRAINING_SETS, Profile
from jmp_lib.train.batches import EvaluationSet, LabelledGraphs, UpdateBatches, predict
from jmp_lib.train.job import Job
from jmp_lib.train.joint_sets import JointSet, baseline, data_hashes, heads, joint_sets
from jmp_lib.train.losses import Counts, mae, pretraining_loss
from jmp_lib.train.processes import Processes, in_processes, needed
from jmp_lib.train.sampling import Sampler
from jmp_lib.train.schedule import EMA, in_updates


def pretrain(profile: Profile, size: str, out_dir: Path, progress: bool = True, also: Sequence[JointSet] = ()) -> dict:
    """Pre-train the ``size`` ("small" or "large") network of ``profile``; returns its record.

    also: sets beside those of the profile, each with heads of its own; ``graphs`` of the profile must have their keys.
    A finished run with the same settings and data is not repeated; a killed one goes on from its last checkpoint and
    ends, on a CPU, with the same numbers. ``FloatingPointError``: a loss that is not finite; ``ValueError``: bad
    settings or data.
    """
    out_dir = Path(out_dir).resolve()
    path = records.pretrain_record_path(out_dir, size)
    if needed(profile.engine):
        in_processes(profile.engine.devices, pretrain, profile, size, out_dir, progress, also)
        return records.read_record(path)
    settings, sets = profile.pretraining, [*joint_sets(profile), *also]
    parameters, backbone = pretraining_parameters(profile, size, also), profile.models[size].to_dict()

    def recipe(job: Job):
        """Trains, writes weights; the fields of the record."""
        factors = scale_factors(profile, size, job.out_dir)
        model, data, loss, optimizer = parts_of_run(profile, size, sets, factors, job.processes)
        validation = [EvaluationSet(cache, settings.eval_batch_size, job.processes.device)
                      for cache in caches(profile, sets, "val")]
        epoch = data.sampler.batches_per_epoch
        done = job.train(
            model=model, optimizer=optimizer, schedule=in_updates(settings.schedule, epoch, profile.max_steps),
            updates_per_epoch=epoch, data=data, loss=loss, loss_names=("total", "energy", "force"),
            validate=lambda: validate(model, sets, validation, job.processes),
            clip=partial(torch.nn.utils.clip_grads_with_norm_, list(model.parameters()), settings.clip_norm),
            checkpoint_every=settings.checkpoint_every, ema=EMA(model, settings.ema_decay), restart=True,
            gradient_divisors=model.gradient_divisors())
        if not job.processes.first:
            return done, {}, {}
        save_weights(job.work / "model", model, {
            "kind": "pretrain", "size": size, "profile": profile.name, "weights": "EMA", "backbone": backbone,
            "datasets": {head: {"name": s.name, "energy": s.energy.to_dict(), "forces": s.forces.to_dict(),
                                "energy_loss_scale": s.energy_scale, "force_loss_scale": s.force_scale,
                                "elements": s.train.elements} for head, s in heads(sets).items()},
            "graphs": {head: parameters["graphs"][s.key] for head, s in heads(sets).items()},
            "scale_factors": factors, "seed": profile.seed, "updates": done.step})
        kinds = {"published" if source == "published" else "generated" for source in settings.data.split("+")}
        return done, {
            "kind": "pretrain", "profile": profile.name, "comparable": profile.comparable, "size": size,
            "seed": profile.seed, "data": [s.name for s in sets], "data_kind": " and ".join(sorted(kinds)),
            "data_sha256": data_hashes(sets), "n_train": {s.name: len(s.train) for s in sets},
            "n_val": {s.name: len(s.val) for s in sets}, "final": done.history[-1],
            "baseline": {s.name: baseline(s) for s in sets},
            "draws_per_epoch": dict(zip([s.name for s in sets], data.sampler.draws)),
            "loss_scales": {s.name: {"energy": s.energy_scale, "force": s.force_scale} for s in sets},
            "normalisers": {s.name: {"energy_mean": s.energy.mean,
                                     "energy_std": s.energy.std, "force_std": s.forces.std}
                            for s in sets},
            "parameters": parameters,
            "model": {"config": backbone, "n_parameters": sum(p.numel() for p in model.parameters())},
        }, {"weights": "model.safetensors", "config": "model.json"}

    wanted = fingerprint(profile, size, also)
    return Job(f"pre-training {size}", path, out_dir, wanted, profile, settings.precision, progress).run(recipe)


def fingerprint(profile: Profile, size: str, also: Sequence[JointSet] = ()) -> str:
    """Of everything that decides the numbers of a pre-training; nothing is trained for it."""
    return records.fingerprint({"kind": "pretrain", "parameters": pretraining_parameters(profile, size, also),
                                "data": data_hashes([*joint_sets(profile), *also])})


def pretraining_parameters(profile: Profile, size: str, also: Sequence[JointSet] = ()) -> dict:
    """Everything in the profile that decides the numbers of a pre-training."""
    settings = profile.pretraining.model_dump()
    if settings["fixed_atoms_loss"]:
        del settings["fixed_atoms_loss"]  # records from before there was a choice stay done
    return {"seed": profile.seed, "max_steps": profile.max_steps, "model": profile.models[size].to_dict(),
            "graphs": {key: dataclasses.asdict(profile.graphs[key])
                       for key in (*PRETRAINING_SETS, *(s.key for s in also))},
            **({"also": {s.key: s.settings.model_dump() for s in also}} if also else {}),
            "pretraining": settings, **profile.engine.numbers}


def new_model(profile: Profile, size: str, sets: int = len(PRETRAINING_SETS)) -> torch.nn.Module:
    """A pre-training network with heads for so many ``sets``; its random weights depend on the seed only."""
    torch.manual_seed(profile.seed)
    return PretrainModel(profile.models[size], num_tasks=sets, edge_dropout=profile.pretraining.edge_dropout)


def caches(profile: Profile, sets: list[JointSet], part: str, edge_dropout: float = 0.0) -> list[LabelledGraphs]:
    """The ``part`` ("train" or "val") of every set, with normalised labels and graphs."""
    return [LabelledGraphs(getattr(s, part), s.normalisers, profile.graphs[s.key], i, edge_dropout)
            for i, s in enumerate(sets)]


def scale_factors(profile: Profile, size: str, out_dir: Path, fit: bool = True) -> dict[str, float] | None:
    """The fitted factors of the ``size`` network: name of the buffer -> value; None without ``fit``
    where none are kept.

    Fitted once on 16 validation batches of the embedded sets with the random initial weights, and used by the
    pre-training and all fine-tunings, as the official release ships one file per size: arms from scratch need no
    pre-training data.
    """
    sets, settings = joint_sets(profile, "mini"), profile.pretraining
    wanted = records.fingerprint({
        "kind": "scale factors", "seed": profile.seed, "model": profile.models[size].to_dict(),
        "graphs": {key: dataclasses.asdict(profile.graphs[key]) for key in PRETRAINING_SETS},
        "batches": [settings.scale_factor_batches, settings.batch_size], "data": data_hashes(sets)})
    path = Path(out_dir) / "work" / "scale_factors" / f"{size}.json"

    def kept() -> dict[str, float] | None:
        if not path.exists():
            return None
        with reading(path, "delete it; they are fitted again"):
            stored = json.loads(path.read_text())
            return stored["factors"] if stored["fingerprint"] == wanted else None

    if not fit:
        return kept()
    with locked(path.with_suffix(".lock")):
        if (factors := kept()) is not None:
            return factors
        torch.set_num_threads(profile.threads)
        model = new_model(profile, size)
        sampler = Sampler.joint([len(s.val) for s in sets], settings.temperature, settings.batch_size, profile.seed)
        batches = UpdateBatches(caches(profile, sets, "val"), sampler)
        found = fit_scale_factors(model, [batches[k].parts[0] for k in range(settings.scale_factor_batches)])
        factors = {name: float(np.float32(value)) for name, value in found.items()}  # as they are used
        write_json(path, {"fingerprint": wanted, "factors": factors})
        return factors


def parts_of_run(profile: Profile, size: str, sets: list[JointSet], factors: dict[str, float], processes: Processes):
    """What the loop trains: (model, update batches, loss of a part of a batch, optimiser)."""
    settings, device = profile.pretraining, processes.device
    model = new_model(profile, size, len(sets)).to(device)
    set_factors(model, factors)
    sampler = Sampler.joint([len(s.train) for s in sets], settings.temperature, settings.batch_size, profile.seed,
                            [s.settings.sampled for s in sets])
    data = UpdateBatches(caches(profile, sets, "train", settings.edge_dropout), sampler,
                         draws=settings.edge_dropout_draws, max_edges=profile.engine.max_edges,
                         rank=processes.rank, processes=processes.size)
    energy_scale = torch.tensor([s.energy_scale for s in sets], device=device)
    force_scale = torch.tensor([s.force_scale for s in sets], device=device)

    def loss(batch: dict, counts: Counts) -> dict[str, torch.Tensor]:
        output = model(batch)
        return pretraining_loss(output["energy"], output["forces"], batch["energy"], batch["forces"], batch["batch"],
                                batch["dataset_index"], energy_scale, force_scale, settings.structurewise_loss, counts,
                                None if settings.fixed_atoms_loss else ~batch["fixed"])

    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "base_lr": settings.lr}], lr=settings.lr,
                                  betas=settings.betas, eps=1.0e-8, weight_decay=settings.weight_decay, fused=True)
    return model, data, loss, optimizer


def validate(model: torch.nn.Module, sets: list[JointSet], batches: list[EvaluationSet],
             processes: Processes) -> dict[str, float]:
    """Energy MAE (eV) and force MAE (eV/Å, free atoms only) of every validation set by the heads of that set."""
    values = {}
    for i, (s, part) in enumerate(zip(sets, batches)):
        output = predict(model, part,
                         lambda o, i=i: {"energy": o["energy"][:, i], "forces": o["forces"][:, :, i]}, False, processes)
        values[f"{s.name}_energy_mae"] = mae(denormalised(output["energy"], s.val, s.energy), s.val.scalars["energy"])
        free = ~s.val.fixed
        values[f"{s.name}_force_mae"] = mae(output["forces"][free] * s.forces.std, s.val.forces[free])
    return values
