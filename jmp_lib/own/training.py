"""Fine-tuning on a user's data with the training loop of the workbook; the one file of ``own`` that knows that loop.

    start = own_start("results/mini/work/pretrain/small", data)
    record = finetune_own(data, split, start, "pre-trained", settings, seed=42, out_dir=Path("results/mini"))
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from jmp_lib import records
from jmp_lib.data.splits import Split
from jmp_lib.files import file_sha256, write_json
from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, load_backbone
from jmp_lib.own.dataset import OwnData
from jmp_lib.predict import graph_config
from jmp_lib.settings import FinetuneSettings
from jmp_lib.train.batches import EvaluationSet, UpdateBatches, choose_device, graph_cache, predict
from jmp_lib.train.checkpoint import remove_checkpoints
from jmp_lib.train.loading import load
from jmp_lib.train.losses import finetuning_loss, mae
from jmp_lib.train.normalise import Normaliser, fit_forces, fit_property
from jmp_lib.train.processes import Processes
from jmp_lib.train.sampling import Sampler
from jmp_lib.train.schedule import in_updates, plateau
from jmp_lib.train.trainer import Run, train
from jmp_lib.train.weights import save_weights, seen_elements, set_factors

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
        graph = info["graph"]
        state = {("embedding.atom_embedding.weight" if k == "embedding.weight" else k): v for k, v in state.items()}
    config = graph_config(graph)
    if data.forces and not data.structures.periodic:
        config = replace(config, max_neighbors=max(config.max_neighbors, smooth_limit(int(data.structures.natoms.max()))))
    return Start(BackboneConfig.from_dict(info["backbone"]), config, info["scale_factors"], state,
                 file_sha256(loaded.path), seen_elements(info))


def smooth_limit(natoms: int, most: int = 100) -> int:
    """Smallest neighbour limit that drops no edge of a molecule of ``natoms`` atoms, at most the 100 of rMD17 (published).

    An edge that comes and goes with the order of the distances makes the energy jump: in dynamics it then drifts. The
    tightest of the four limits is that of the quadruplets, 8n/30.
    """
    return min(most, -(-30 * (natoms - 1) // 8))


def budget(settings: FinetuneSettings, updates: int | None, lr: float | None = None,
           batch_size: int | None = None) -> FinetuneSettings:
    """``settings`` with another number of updates, learning rate or batch size; validation ten times in a run."""
    schedule = settings.schedule
    if updates:
        schedule = schedule.model_copy(update={
            "warmup": f"{updates // 10} updates", "cosine_until": f"{updates} updates", "stop_at": f"{updates} updates",
            "validate_every": f"{max(1, updates // 10)} updates"})
    return settings.model_copy(update={"schedule": schedule, "lr": lr or settings.lr,
                                       "batch_size": batch_size or settings.batch_size})


def heads(data: OwnData, reduction: str) -> list[HeadSpec]:
    """One head per property; forces as minus the gradient of the energy."""
    if data.forces:
        return [HeadSpec("energy", "energy", "sum"), HeadSpec("forces", "gradient_forces", "sum")]
    return [HeadSpec(name, "scalar", reduction) for name in data.properties]


def fit_own(data: OwnData, rows: np.ndarray, reduction: str) -> dict[str, Normaliser]:
    """Normalisers from the training part; energy and forces share one scale, so that forces stay its derivative."""
    structures = [data.structures[int(row)] for row in rows]
    numbers = [np.asarray(s["atomic_numbers"]) for s in structures]
    made = {}
    for name in (n for n in data.properties if n != "forces"):
        values = np.array([s[name] for s in structures])
        made[name] = fit_property(numbers, values, linear_reference=data.forces or reduction == "sum") \
            if values.std() > 0 else Normaliser(float(values.mean()), 1.0)
    if data.forces:
        made["forces"] = fit_forces([s["forces"] for s in structures])
        made["energy"] = replace(made["energy"], std=made["forces"].std)
    return made


def finetune_own(data: OwnData, split: Split, start: Start, arm: str, settings: FinetuneSettings, *, seed: int,
                 out_dir: Path, reduction: str = "mean", device: str = "auto", progress: bool = True) -> dict:
    """Train one arm and predict its test part; returns its record, or the finished one of the same settings and data.

    Written: ``own/<name>/<arm>.seed<k>.json`` and, under ``work/own/<name>/<arm>.seed<k>``, model and predictions.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; arms are {', '.join(ARMS)}")
    label = f"{arm.replace(' ', '-')}.seed{seed}"
    work, path = Path(out_dir) / "work" / "own" / data.name / label, Path(out_dir) / "own" / data.name / f"{label}.json"
    parameters = {"arm": arm, "seed": seed, "reduction": reduction, "settings": settings.model_dump(),
                  "backbone": start.config.to_dict(), "graph": dataclasses.asdict(start.graph), "factors": start.factors,
                  "units": data.units, "checkpoint": start.sha256 if arm == ARMS[0] else None}
    fingerprint = records.fingerprint({"kind": "own", "parameters": parameters, "data": [data.structures.sha256, split.sha256]})
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "lock"):
        done = records.finished_record(path, Path(out_dir), fingerprint)
        if done:
            return done
        run = _Training(data, split, start, arm, settings, seed, reduction, device)
        found = run.train(work, fingerprint, progress, f"{data.name}, {arm}, seed {seed}")
        return _write(run, found, work, path, Path(out_dir), parameters, fingerprint)


class _Training:
    """Network, normalisers and parts of one arm."""

    def __init__(self, data, split, start, arm, settings, seed, reduction, device):
        self.data, self.split, self.settings, self.seed, self.start = data, split, settings, seed, start
        self.processes = Processes(choose_device(device), settings.precision)
        self.normalisers = fit_own(data, split.train, reduction)
        self.specs = heads(data, reduction)
        torch.manual_seed(seed)
        self.model = FinetuneModel(start.config, self.specs).to(self.processes.device)
        if arm == ARMS[0]:
            load_backbone(self.model, start.state)
        set_factors(self.model, start.factors)
        self.parts = {part: data.structures.subset(getattr(split, part)) for part in ("train", "val", "test")}
        self.evaluation = {part: EvaluationSet(graph_cache(self.parts[part], self.normalisers, start.graph),
                                               settings.eval_batch_size, self.processes.device) for part in ("val", "test")}

    def truth(self, part: str) -> dict[str, np.ndarray]:
        s = self.parts[part]
        return {name: s.forces.astype(float) if name == "forces" else s.scalars[name] for name in self.data.properties}

    def predicted(self, part: str) -> dict[str, np.ndarray]:
        output = predict(self.model, self.evaluation[part], lambda o: {n: o[n] for n in self.data.properties}, self.data.forces)
        numbers = [s["atomic_numbers"] for s in self.parts[part]]
        return {name: values * self.normalisers[name].std if values.ndim == 2 else
                np.array([self.normalisers[name].denormalise(v, z) for v, z in zip(values, numbers)])
                for name, values in output.items()}

    def validate(self) -> dict[str, float]:
        """MAE of every property; ``val_metric``, which chooses the weights: that of the forces, or the mean in units of std."""
        truth, found = self.truth("val"), self.predicted("val")
        errors = {f"val_{name}": mae(found[name], truth[name]) for name in truth}
        scaled = [errors[f"val_{name}"] / self.normalisers[name].std for name in truth]
        return {**errors, "val_metric": errors["val_forces"] if self.data.forces else float(np.mean(scaled))}

    def train(self, work: Path, fingerprint: str, progress: bool, name: str):
        model, s = self.model, self.settings
        sampler = Sampler.single(len(self.parts["train"]), s.batch_size, self.seed)
        batches = UpdateBatches([graph_cache(self.parts["train"], self.normalisers, self.start.graph)], [self.data.name],
                                sampler, self.seed)
        weights = {"forces": s.force_coefficient, "energy": s.energy_coefficient or 1.0} if self.data.forces else \
            {n: 1.0 for n in self.data.properties}
        optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "base_lr": s.lr}], lr=s.lr, betas=s.betas,
                                      eps=1.0e-8, weight_decay=s.weight_decay, fused=True)
        with tqdm(desc=name, unit="update", mininterval=5, disable=not progress) as bar:
            return train(Run(
                model=model, optimizer=optimizer, schedule=in_updates(s.schedule, sampler.batches_per_epoch),
                updates_per_epoch=sampler.batches_per_epoch, data=batches, validate=self.validate,
                loss=lambda batch, counts: {"total": finetuning_loss(model(batch), batch, weights, counts)},
                clip=lambda: torch.nn.utils.clip_grad_value_(model.parameters(), s.clip_value), fingerprint=fingerprint,
                checkpoint=work / "checkpoint.pt", checkpoint_every=s.checkpoint_every, processes=self.processes, name=name,
                gradient_divisors=model.gradient_divisors(), watch="val_metric", min_delta=s.min_delta,
                plateau=plateau(optimizer, s.plateau_factor, s.plateau_patience), patience=s.early_stopping_patience,
                stop_below_lr=s.stop_below_lr, bar=bar))


def _write(run: _Training, done, work: Path, path: Path, out_dir: Path, parameters: dict, fingerprint: str) -> dict:
    data, split = run.data, run.split
    truth, found = run.truth("test"), run.predicted("test")
    first = run.specs[0]
    save_weights(work / "model", run.model, {
        "kind": "finetune", "task": data.name, "arm": parameters["arm"], "label": data.properties[-1],
        "unit": data.units[data.properties[-1]], "units": data.units, "backbone": run.start.config.to_dict(),
        "graph": parameters["graph"], "heads": [dataclasses.asdict(spec) for spec in run.specs],
        "head": run.specs[-1].kind, "reduction": first.reduction, "scale_factors": run.start.factors,
        "normalisers": {name: n.to_dict() for name, n in run.normalisers.items()}, "data": data.name,
        "elements": run.parts["train"].elements,
        "pretraining_elements": run.start.elements if parameters["arm"] == ARMS[0] else None})
    arrays = {f"{kind}_{name}": v[name] for kind, v in (("true", truth), ("predicted", found)) for name in truth}
    records.save_arrays(work / "predictions.npz", rows=split.test, natoms=run.parts["test"].natoms, **arrays)
    files = {"predictions": "predictions.npz", "weights": "model.safetensors", "config": "model.json"}
    record = {
        "schema": records.SCHEMA, "kind": "own", "data": data.name, "arm": parameters["arm"], "seed": run.seed,
        "metric": "MAE (forces: over atoms and components)", "value": {n: mae(found[n], truth[n]) for n in truth},
        "unit": data.units, "n_train": len(split.train), "n_val": len(split.val), "n_test": len(split.test),
        "best_step": done.best_step, "best_val": done.best_value, "updates": done.step, "history": done.history,
        "stopped": done.stopped or "budget used", "parameters": parameters,
        "n_parameters": sum(p.numel() for p in run.model.parameters()),
        "normalisers": {name: {"mean": n.mean, "std": n.std} for name, n in run.normalisers.items()},
        "data_sha256": data.structures.sha256, "split_sha256": split.sha256, "wall_time_s": done.seconds,
        "peak_memory_mb": records.peak_memory_mb(), "device": records.device_name(run.processes.device),
        "commit": records.git_commit(), "versions": records.versions(), "fingerprint": fingerprint,
        "files": {key: records.file_entry(work / file, out_dir) for key, file in files.items()}}
    write_json(path, record)
    remove_checkpoints(work / "checkpoint.pt")
    return records.read_record(path)
