"""The steps of notebook 14 from its parameters: data, checkpoint, runs, files to use afterwards."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import paths
from jmp_lib.calculator import JMPCalculator
from jmp_lib.data.exchange import from_ase
from jmp_lib.data.splits import Split
from jmp_lib.own import evaluation, use
from jmp_lib.own.data import OwnData, read_own
from jmp_lib.own.splitting import split_own, units_of
from jmp_lib.own.training import ARMS, Start, finetune_own, own_start
from jmp_lib.pool import report, run_jobs
from jmp_lib.train.loading import load, seen_elements

FORCES = ["energy", "forces"], ["eV", "eV/Å"]
# source -> properties and units: 100 frames of paracetamol (GFN2-xTB, 500 K), and 80 crystals (CHGNet)
EXAMPLES = {"example": FORCES, "crystals": (["last_phdos_peak"], ["1/cm"])}
NETWORK = "work/pretrain/small"  # of a results folder: what the notebook of the pre-training writes
SHIPPED = "mini-small"  # comes with the package
ANI, OC20 = "ani1x", "oc20"  # heads of a pre-trained network: for molecules, for periodic structures


def read_data(run) -> OwnData:
    """The data of the parameters ``source``, ``properties``, ``units``, ``labels_csv``, ``group_key``; else an example."""
    values = run.parameters
    source = values["source"]
    if source is None or isinstance(source, str) and source in EXAMPLES:
        return read_example(source or "example")
    name = re.sub(r"\W+", "-", "table" if hasattr(source, "iterrows") else Path(source).expanduser().resolve().stem)
    return read_own(source, values["properties"] or [], values["units"], labels_csv=values["labels_csv"],
                    group_key=values["group_key"], name=name)


def read_example(name: str) -> OwnData:
    """One of ``EXAMPLES``, which come with the package."""
    return read_own(paths.PACKAGE_DIR / "own" / f"{name}.extxyz", *EXAMPLES[name], name=name)


def split_data(run, data: OwnData) -> tuple[Split, np.ndarray]:
    """The split (a fifth of the structures for the test, a tenth for validation), and what the bootstrap draws, (S,).

    Kind: the parameter ``split``; by default groups where a ``group_key`` is given, else random.
    """
    kind = run.parameters["split"] or ("group" if run.parameters["group_key"] else "random")
    return split_own(data, kind, seed=run.profile.seed), units_of(data, kind)


def checkpoint(run) -> str | Path:
    """Where fine-tuning starts: ``checkpoint`` (a folder, or a name such as mini-large), else the small network that the profile
    has pre-trained itself (in a trial profile: on the spot), else the one that comes with the package."""
    if run.parameters["checkpoint"]:
        return run.parameters["checkpoint"]
    own = [] if "small" in run.profile.pretrained else \
        [run.results_dir / NETWORK, paths.results_dir() / run.profile.name / NETWORK]
    if not run.profile.comparable and not any((f / "model.safetensors").is_file() for f in own):
        run.pretrain_all(["small"])
    return next((f for f in own if (f / "model.safetensors").is_file()), SHIPPED)


def open_checkpoint(run, data: OwnData) -> Start:
    """The network of ``checkpoint`` for ``data``."""
    return own_start(checkpoint(run), data)


def networks(run, records: list[dict], data: OwnData) -> dict[str, JMPCalculator]:
    """Calculators to be compared: the pre-trained network before fine-tuning (its head for ANI-1x, or for OC20, where it has one
    and has met all elements of the data), and the first seed of every arm after it."""
    made, first, head = {}, load(checkpoint(run)), OC20 if data.structures.periodic else ANI
    present = set(np.concatenate([s["atomic_numbers"] for s in data.structures]).tolist())
    if first.info["kind"] == "pretrain" and head in first.info["datasets"] and present <= set(seen_elements(first.info) or present):
        made["before fine-tuning"] = JMPCalculator(first, dataset=head)
    for record in records:
        if record["arm"] not in made:
            made[record["arm"]] = JMPCalculator((run.results_dir / record["files"]["weights"]["file"]).parent)
    return made


def finetune_all(run, data: OwnData, split: Split, start: Start) -> list[dict]:
    """Both arms with every seed, the same budget, side by side in worker processes; records, the pre-trained arm last.
    RuntimeError when one fails."""
    values = run.parameters
    seeds = [run.profile.seed + k for k in range(values["seeds"] or 1)]
    train = partial(finetune_own, run.profile, data, split, start, out_dir=run.results_dir, updates=values["updates"],
                    reduction=reduction(run), progress=False)
    jobs = [(f"{data.name}, {arm}, seed {seed}", partial(train, arm=arm, seed=seed), ()) for arm in ARMS[::-1] for seed in seeds]
    outcomes = run_jobs(jobs, run.profile.workers, f"fine-tuning {data.name}")
    report(run.results_dir, outcomes, "fine-tuning", all_needed=True)
    return [outcome.result for outcome in outcomes]


def hard_example(run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same steps on the crystals: what each way predicts and what pre-training gained, as ``evaluation`` gives them."""
    data = read_example("crystals")
    split, groups = split_data(run, data)
    records = finetune_all(run, data, split, open_checkpoint(run, data))
    found = evaluation.baselines(data, split, reduction(run)) | evaluation.network_predictions(records, run.results_dir)
    return evaluation.compare(data, split, found, records, groups), evaluation.gain(data, split, found, groups)


def crystal(run, data: OwnData, split: Split, records: list[dict]) -> tuple[dict, object]:
    """Calculators and a crystal for an equation of state: those of the data, where they hold energies and forces of crystals,
    else the networks that both arms learn on silicon, and the potential that gave its labels. Nothing for other own data."""
    if data.forces and data.structures.pbc.all():
        return networks(run, records, data), data.structures[int(split.test[0])]
    if run.parameters["source"] is not None:
        return {}, None
    data = read_own(use.silicon(), *FORCES, name="silicon")
    records = finetune_all(run, data, split_own(data, seed=run.profile.seed), open_checkpoint(run, data))
    return {"labels": use.potential(), **networks(run, records, data)}, from_ase(use.shaken(0.0, 0.01, 0), where="silicon")


def reduction(run) -> str:
    """How atoms add up to a property: mean (default), sum for one that grows with size, max."""
    chosen = run.parameters["reduction"] or "mean"
    if chosen not in ("mean", "sum", "max"):
        raise ValueError(f"reduction must be mean, sum or max, not {chosen!r}")
    return chosen


def model_folder(run, records: list[dict]) -> Path:
    """Folder of the fine-tuned network: the pre-trained arm, first seed."""
    record = next(r for r in records if r["arm"] == ARMS[0])
    return (run.results_dir / record["files"]["weights"]["file"]).parent
