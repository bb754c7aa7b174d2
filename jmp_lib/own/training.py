"""Fine-tuning on a user's data: the recipe of the 40 tasks (averages, layer-wise rates), another start, the same records.

    start = own_start("mini-small", data)
    record = finetune_own(load_profile("mini"), data, split, start, "pre-trained", seed=42, out_dir=Path("results/mini"))
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from jmp_lib import records
from jmp_lib.data.splits import Split
from jmp_lib.files import file_sha256
from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig, HeadSpec
from jmp_lib.own.data import OwnData
from jmp_lib.settings import FinetuneSettings, Profile
from jmp_lib.train.finetuning import Finetuning, finetune_data, learning_rate_groups
from jmp_lib.train.loading import load, seen_elements
from jmp_lib.train.losses import mae
from jmp_lib.train.normalise import Normaliser, fit_forces, fit_property, numbers_of
from jmp_lib.train.trainer import Job

ARMS = ("pre-trained", "from scratch")


@dataclass(frozen=True)
class Start:
    """Where both arms begin: the same network, graphs and scale factors; the weights only for the pre-trained one."""

    config: BackboneConfig
    graph: GraphConfig
    factors: dict[str, float]
    state: dict[str, torch.Tensor]
    sha256: str
    elements: list[int] | None  # atomic numbers that the weights met in training; None: their model.json does not say


def own_start(checkpoint, data: OwnData) -> Start:
    """Backbone of a pre-training or fine-tuning folder; its crystal graphs when any structure is periodic, else molecules'.

    For forces of molecules the neighbour limit is raised (``smooth_limit``).
    """
    loaded = load(checkpoint)
    info, state = loaded.info, loaded.model.state_dict()
    if info["kind"] == "pretrain":
        wanted = "oc20" if data.structures.periodic else "ani1x"
        graph = info["graphs"].get(wanted) or next(iter(info["graphs"].values()))
    else:
        graph, state["embedding.atom_embedding.weight"] = info["graph"], state.pop("embedding.weight")
    config = GraphConfig.from_dict(graph)
    if data.forces and not data.structures.periodic:
        config = replace(config, max_neighbors=max(config.max_neighbors, smooth_limit(int(data.structures.natoms.max()))))
    factors = {name: value or 1.0 for name, value in info["scale_factors"].items()}  # 0: not fitted, acts as 1
    return Start(BackboneConfig.from_dict(info["backbone"]), config, factors, state, file_sha256(loaded.path),
                 seen_elements(info))


def smooth_limit(natoms: int, most: int = 100) -> int:
    """Smallest neighbour limit that drops no edge of a molecule of ``natoms`` atoms, at most the 100 of rMD17 (published).

    An edge that comes and goes with the order of the distances makes the energy jump: in dynamics it then drifts. The
    tightest of the four limits is that of the quadruplets, 8n/30.
    """
    return min(most, -(-30 * (natoms - 1) // 8))


def budget(settings: FinetuneSettings, updates: int | None) -> FinetuneSettings:
    """``settings`` with another number of updates, and validation ten times in a run."""
    if not updates:
        return settings
    schedule = settings.schedule.model_copy(update={
        "warmup": f"{updates // 10} updates", "cosine_until": f"{updates} updates", "stop_at": f"{updates} updates",
        "validate_every": f"{max(1, updates // 10)} updates"})
    return settings.model_copy(update={"schedule": schedule})


def fit_own(train, reduction: str, forces: bool) -> dict[str, Normaliser]:
    """Normalisers from the training part; energy and forces share one scale, so that forces stay its derivative."""
    numbers, made = numbers_of(train), {}
    for name, values in train.scalars.items():
        made[name] = fit_property(numbers, values, linear_reference=forces or reduction == "sum") \
            if values.std() > 0 else Normaliser(float(values.mean()), 1.0)
    if forces:
        made["forces"] = fit_forces(train.forces)
        made["energy"] = replace(made["energy"], std=made["forces"].std)
    return made


def finetune_own(profile: Profile, data: OwnData, split: Split, start: Start, arm: str, *, seed: int, out_dir: Path,
                 updates: int | None = None, reduction: str = "mean", progress: bool = True) -> dict:
    """Train one arm and predict its test part; returns its record, or the finished one of the same settings and data.

    The settings are those of rMD17 in the profile for energies and forces, of MatBench for other properties.
    Written: ``own/<name>/<arm>.seed<k>.json`` and, under ``work/own/<name>/<arm>.seed<k>``, model and predictions.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; arms are {', '.join(ARMS)}")
    pretrained = arm == ARMS[0]
    settings = budget(profile.finetune_settings("rmd17" if data.forces else "matbench", data.name), updates)
    train, val, test = (data.structures.subset(rows) for rows in (split.train, split.val, split.test))
    normalisers = fit_own(train, reduction, data.forces)
    if data.forces:  # forces as minus the gradient of the energy
        heads = [HeadSpec("energy", "energy", "sum"), HeadSpec("forces", "gradient_forces", "sum")]
        coefficients = {"forces": settings.force_coefficient, "energy": settings.energy_coefficient or 1.0}
    else:
        heads = [HeadSpec(name, "scalar", reduction) for name in data.properties]
        coefficients = dict.fromkeys(data.properties, 1.0)

    def judge(found: dict, true: dict) -> dict[str, float]:
        """MAE of every property; val_metric chooses the weights: that of the forces, or the mean in units of std."""
        errors = {f"val_{name}": mae(found[name], true[name]) for name in true}
        scaled = [errors[f"val_{name}"] / normalisers[name].std for name in true]
        return {**errors, "val_metric": errors["val_forces"] if data.forces else float(np.mean(scaled))}

    blocks, large = start.config.num_blocks, profile.models["large"].num_blocks
    size = "small" if blocks < large else "large"
    layerwise = pretrained and blocks == profile.models[size].num_blocks  # rates of each block, for the pre-trained arm
    if pretrained and not layerwise:
        warnings.warn(f"profile {profile.name} has layer-wise learning rates for {profile.models['small'].num_blocks} or "
                      f"{large} blocks, the network has {blocks}: all its parts learn at the full rate", stacklevel=2)
    groups = learning_rate_groups(profile, f"{'JMP' if layerwise else 'GN-OC'}-{size[0].upper()}")
    what = Finetuning(train, val, test, heads, data.properties, normalisers, coefficients, judge, start.config,
                      start.graph, start.factors, settings, settings.rate(pretrained, size), groups, seed,
                      start.state if pretrained else None)
    parameters = {"arm": arm, "seed": seed, "reduction": reduction, "max_steps": profile.max_steps,
                  "settings": settings.of_arm(pretrained, size), "backbone": start.config.to_dict(),
                  "graph": dataclasses.asdict(start.graph), "factors": start.factors, "units": data.units,
                  "checkpoint": start.sha256 if pretrained else None,
                  "learning_rate_multipliers": {g.name: g.multiplier for g in groups}, **profile.engine.numbers}
    fingerprint = records.fingerprint({"kind": "own", "parameters": parameters, "data": [data.structures.sha256, split.sha256]})
    label, out_dir = f"{arm.replace(' ', '-')}.seed{seed}", Path(out_dir).resolve()
    job = Job(f"{data.name}, {arm}, seed {seed}", out_dir / "own" / data.name / f"{label}.json", out_dir, fingerprint,
              profile, settings.precision, progress)

    def recipe(job: Job):
        done, fields, found, true = finetune_data(what, job, {
            "arm": arm, "units": data.units, "data": data.name,
            "pretraining_elements": start.elements if pretrained else None})
        if not job.processes.first:
            return done, {}, {}
        arrays = {f"{kind}_{name}": v[name] for kind, v in (("true", true), ("predicted", found)) for name in true}
        records.save_arrays(job.work / "predictions.npz", rows=split.test, natoms=what.test.natoms, **arrays)
        return done, {
            "kind": "own", "data": data.name, "arm": arm, "metric": "MAE (forces: over atoms and components)",
            "value": {name: mae(found[name], true[name]) for name in true}, "unit": data.units, **fields,
            "parameters": parameters, "data_sha256": data.structures.sha256, "split_sha256": split.sha256,
        }, {"predictions": "predictions.npz", "weights": "model.safetensors", "config": "model.json"}

    return job.run(recipe)
