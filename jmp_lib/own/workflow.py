"""The steps of notebook 14 from its parameters: data, network to start from, fine-tuning by the recipe of the 40
tasks (averages, layer-wise rates) with the same records, and what to use afterwards.

    start = own_start("mini-small", data)
    record = finetune_own(load_profile("mini"), data, split, start, "pre-trained", seed=42, out_dir=Path("results"))
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jmp_lib import paths, records
from jmp_lib.calculator import JMPCalculator
from jmp_lib.data.exchange import from_ase
from jmp_lib.data.normalise import MAX_ELEMENTS, Normaliser, fit_forces, fit_property, numbers_of
from jmp_lib.data.splits import Split
from jmp_lib.files import file_sha256
from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig, HeadSpec
from jmp_lib.own import evaluation, use
from jmp_lib.own.data import OwnData, read_own, split_own, units_of
from jmp_lib.pool import report, run_jobs
from jmp_lib.settings import FinetuneSettings, Profile
from jmp_lib.train import pretraining
from jmp_lib.train.finetuning import FinetuneSpec, finetune_data, learning_rate_groups
from jmp_lib.train.job import Job
from jmp_lib.train.loading import load, seen_elements
from jmp_lib.train.losses import mae

ARMS = ("pre-trained", "from scratch")
FORCES = ["energy", "forces"], ["eV", "eV/Å"]
# source -> properties and units: 100 frames of paracetamol (GFN2-xTB, 500 K), and 80 crystals (CHGNet)
EXAMPLES = {"example": FORCES, "crystals": (["last_phdos_peak"], ["1/cm"])}
SHIPPED = "mini-small"  # comes with the package
ROUNDING = 1e-6  # of the spread of a property: what references leave below it is rounding
ANI, OC20 = "ani1x", "oc20"  # heads and graphs of a pre-trained network: for molecules, for periodic structures


def read_data(run) -> OwnData:
    """The data of the parameters ``source``, ``properties``, ``units``, ``labels_csv``,
    ``group_key``; else an example."""
    values = run.parameters
    source = values["source"]
    if source is None or isinstance(source, str) and source in EXAMPLES:
        return read_example(source or "example")
    name = re.sub(r"\W+", "-", "table" if hasattr(source, "iterrows") else Path(source).expanduser().resolve().stem)
    return read_own(source, values["properties"] or [], values["units"], labels_csv=values["labels_csv"],
                    group_key=values["group_key"], name=name)


def read_example(name: str) -> OwnData:
    """One of ``EXAMPLES``, which come with the package; its name is as it is."""
    return replace(read_own(paths.PACKAGE_DIR / "own" / f"{name}.extxyz", *EXAMPLES[name]), name=name)


def split_data(run, data: OwnData) -> tuple[Split, np.ndarray]:
    """The split by the parameter ``split`` (by default groups where a ``group_key`` is given, else random), and what
    the bootstrap draws, (S,)."""
    kind = run.parameters["split"] or ("group" if run.parameters["group_key"] else "random")
    return split_own(data, kind, seed=run.profile.seed), units_of(data, kind)


def reduction(run) -> str:
    """How atoms add up to a property: mean (default), sum for one that grows with size, max."""
    chosen = run.parameters["reduction"] or "mean"
    if chosen not in ("mean", "sum", "max"):
        raise ValueError(f"reduction must be mean, sum or max, not {chosen!r}")
    return chosen


def checkpoint(run) -> str | Path:
    """Where fine-tuning starts: ``checkpoint`` (a folder, or a name such as mini-large), else the small network that
    the profile has pre-trained itself with its present settings and data (in a trial profile: on the spot), else the
    one that comes with the package."""
    if run.parameters["checkpoint"]:
        return run.parameters["checkpoint"]
    for folder in (() if "small" in run.profile.pretrained
                   else (run.results_dir, paths.results_dir() / run.profile.name)):
        path = records.pretrain_record_path(folder, "small")
        if not path.is_file():
            continue
        if found := records.finished_record(path, folder, pretraining.fingerprint(run.profile, "small")):
            return (folder / found["files"]["weights"]["file"]).parent
    if run.profile.comparable or "small" in run.profile.pretrained:
        return SHIPPED
    run.pretrain_all(["small"])
    return checkpoint(run)


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
    """Backbone of a pre-training or fine-tuning folder; its crystal graphs when any structure is periodic,
    else molecules'.

    For forces of molecules the neighbour limit is raised (``smooth_limit``).
    """
    loaded = load(checkpoint)
    info, state = loaded.info, loaded.model.state_dict()
    if info["kind"] == "pretrain":
        graph = info["graphs"].get(OC20 if data.structures.periodic else ANI) or next(iter(info["graphs"].values()))
    else:
        graph, state["embedding.atom_embedding.weight"] = info["graph"], state.pop("embedding.weight")
    config = GraphConfig.from_dict(graph)
    if data.forces and not data.structures.periodic:
        config = replace(config, max_neighbors=max(config.max_neighbors,
                                                   smooth_limit(int(data.structures.natoms.max()))))
    factors = {name: value or 1.0 for name, value in info["scale_factors"].items()}  # 0: not fitted, acts as 1
    return Start(BackboneConfig.from_dict(info["backbone"]), config, factors, state, file_sha256(loaded.path),
                 seen_elements(info))


def smooth_limit(natoms: int, most: int = 100) -> int:
    """Smallest neighbour limit that drops no edge of a molecule of ``natoms`` atoms, at most the 100 of rMD17
    (published); the tightest of the four limits is that of the quadruplets, 8n/30.

    An edge that comes and goes with the order of the distances makes the energy jump: in dynamics it then drifts.
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
    """Normalisers from the training part; energy and forces share one scale, so that forces stay its derivative. A
    sum has references by element; one for the atoms of all, where as many elements as structures would leave
    rounding noise to learn."""
    numbers, made = numbers_of(train), {}
    for name, values in train.scalars.items():
        made[name] = fit_property(numbers, values, linear_reference=forces or reduction == "sum") \
            if values.std() > 0 else Normaliser(float(values.mean()), 1.0)
        if not forces and made[name].std < ROUNDING * values.std():
            atoms = train.natoms.astype(float)
            each = float(atoms @ values / (atoms @ atoms))
            if (values - each * atoms).std() < ROUNDING * values.std():
                raise ValueError(f"'{name}' is {each:.6g} times the number of atoms of every "
                                 "structure: there is nothing to learn")
            made[name] = fit_property(numbers, values, linear_reference=True,
                                      reference_values=(0.0, *[each] * (MAX_ELEMENTS - 1)))
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
    settings = budget(profile.finetune_settings("rmd17" if data.forces else "matbench", "own"), updates)
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
        warnings.warn(f"profile {profile.name} has layer-wise learning rates for {profile.models['small'].num_blocks} "
                      f"or {large} blocks, the network has {blocks}: all its parts learn at the full rate",
                      stacklevel=2)
    groups = learning_rate_groups(profile, f"{'JMP' if layerwise else 'GN-OC'}-{size[0].upper()}")
    what = FinetuneSpec(train, val, test, heads, data.properties, normalisers, coefficients, judge, start.config,
                        start.graph, start.factors, settings, settings.rate(pretrained, size), groups, seed,
                        start.state if pretrained else None)
    parameters = {"arm": arm, "seed": seed, "reduction": reduction, "max_steps": profile.max_steps,
                  "settings": settings.of_arm(pretrained, size), "backbone": start.config.to_dict(),
                  "graph": dataclasses.asdict(start.graph), "factors": start.factors, "units": data.units,
                  "checkpoint": start.sha256 if pretrained else None,
                  "learning_rate_multipliers": {g.name: g.multiplier for g in groups}, **profile.engine.numbers}
    fingerprint = records.fingerprint({"kind": "own", "parameters": parameters,
                                       "data": [data.structures.sha256, split.sha256]})
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


def finetune_all(run, data: OwnData, split: Split, start: Start) -> list[dict]:
    """Both arms with every seed, the same budget, side by side in worker processes; records, the pre-trained arm last.
    ValueError with the sentence of the first that fails for its data or settings; RuntimeError when
    one fails otherwise."""
    values = run.parameters
    seeds = [run.profile.seed + k for k in range(values["seeds"] or 1)]
    train = partial(finetune_own, run.profile, data, split, start, out_dir=run.results_dir, updates=values["updates"],
                    reduction=reduction(run), progress=run.profile.workers < 2)
    jobs = [(f"{data.name}, {arm}, seed {seed}", partial(train, arm=arm, seed=seed), ())
            for arm in ARMS[::-1] for seed in seeds]
    outcomes = run_jobs(jobs, run.profile.workers, f"fine-tuning {data.name}")
    try:
        report(run.results_dir, outcomes, "fine-tuning", all_needed=True)
    except RuntimeError:
        kind, _, sentence = next(outcome.error for outcome in outcomes if outcome.error).partition(": ")
        if kind == "ValueError":
            raise ValueError(sentence) from None
        raise
    return [outcome.result for outcome in outcomes]


def model_folder(run, records: list[dict], arm: str = ARMS[0]) -> Path:
    """Folder of the fine-tuned network of ``arm``, first seed."""
    record = next(r for r in records if r["arm"] == arm)
    return (run.results_dir / record["files"]["weights"]["file"]).parent


def networks(run, records: list[dict], data: OwnData) -> dict[str, JMPCalculator]:
    """Calculators to be compared: the pre-trained network before fine-tuning (its head for ANI-1x, or for OC20, where
    it has one where the data of that head hold all elements), and the first seed of every arm after it."""
    made, first, head = {}, load(checkpoint(run)), OC20 if data.structures.periodic else ANI
    heads, present = first.info["datasets"] if first.info["kind"] == "pretrain" else {}, set(data.structures.elements)
    if head in heads and present <= set(heads[head].get("elements") or present):
        made["before fine-tuning"] = JMPCalculator(first, dataset=head)
    return made | {arm: JMPCalculator(model_folder(run, records, arm))
                   for arm in dict.fromkeys(r["arm"] for r in records)}


def known_structure(data: OwnData, split: Split):
    """The first test structure whose elements are all in the training part, None without one: of others the
    networks know no energy."""
    known = set(data.structures.subset(split.train).elements)
    return next((s for s in map(data.structures.__getitem__, map(int, split.test))
                 if known.issuperset(s["atomic_numbers"].tolist())), None)


def hard_example(run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same steps on the crystals: what each way predicts and what pre-training gained,
    as ``evaluation`` gives them."""
    data = read_example("crystals")
    split, groups = split_data(run, data)
    records = finetune_all(run, data, split, own_start(checkpoint(run), data))
    found = evaluation.baselines(data, split, reduction(run)) | evaluation.network_predictions(records, run.results_dir)
    return evaluation.compare(data, split, found, records, groups), evaluation.gain(data, split, found, records, groups)


def crystal(run, data: OwnData, split: Split, records: list[dict]) -> tuple[dict, object]:
    """Calculators and a crystal for an equation of state: those of the data, where they hold energies and forces of
    crystals, else the networks that both arms learn on silicon, and the potential that gave its labels. Nothing for
    other own data."""
    if data.forces and data.structures.pbc.all() and (first := known_structure(data, split)) is not None:
        return networks(run, records, data), first
    if run.parameters["source"] is not None:
        return {}, None
    data = replace(read_own(use.silicon(), *FORCES), name="silicon")
    records = finetune_all(run, data, split_own(data, seed=run.profile.seed), own_start(checkpoint(run), data))
    return ({"labels": use.potential(), **networks(run, records, data)},
            from_ase(use.shaken(0.0, 0.01, 0), where="silicon"))
