"""The steps of notebook 14 from its parameters: data, checkpoint, runs, files to use afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jmp_lib import paths
from jmp_lib.data.splits import Split
from jmp_lib.own.data import OwnData, read_own
from jmp_lib.own.splitting import split_own, units_of
from jmp_lib.own.training import ARMS, Start, finetune_own, own_start

EXAMPLE = paths.PACKAGE_DIR / "own" / "example.extxyz"
EXAMPLE_LABEL, EXAMPLE_UNIT = "last_phdos_peak", "1/cm"
NETWORK = "work/pretrain/small"  # of a results folder: what the notebook of the pre-training writes
SHIPPED = "mini-small"  # comes with the package


def read_data(run) -> OwnData:
    """The data of the parameters ``source``, ``properties``, ``units``, ``labels_csv``, ``group_key``; else the example."""
    values = run.parameters
    source = values["source"]
    if source is None:
        return read_own(EXAMPLE, [EXAMPLE_LABEL], [EXAMPLE_UNIT], name="example")
    name = re.sub(r"\W+", "-", "table" if hasattr(source, "iterrows") else Path(source).expanduser().resolve().stem)
    return read_own(source, values["properties"] or [], values["units"], labels_csv=values["labels_csv"],
                    group_key=values["group_key"], name=name)


def split_data(run, data: OwnData) -> tuple[Split, np.ndarray]:
    """The split (a fifth of the structures for the test, a tenth for validation), and what the bootstrap draws, (S,).

    Kind: the parameter ``split``; by default groups where a ``group_key`` is given, else random.
    """
    kind = run.parameters["split"] or ("group" if run.parameters["group_key"] else "random")
    return split_own(data, kind, seed=run.profile.seed), units_of(data, kind)


def open_checkpoint(run, data: OwnData) -> Start:
    """Where fine-tuning starts: ``checkpoint`` (a folder, or a name such as mini-large), else the small network that the profile
    has pre-trained itself (in a trial profile: on the spot), else the one that comes with the package."""
    if run.parameters["checkpoint"]:
        return own_start(run.parameters["checkpoint"], data)
    own = [] if "small" in run.profile.pretrained else \
        [run.results_dir / NETWORK, paths.results_dir() / run.profile.name / NETWORK]
    if not run.profile.comparable and not any((f / "model.safetensors").is_file() for f in own):
        run.pretrain_all(["small"])
    return own_start(next((f for f in own if (f / "model.safetensors").is_file()), SHIPPED), data)


def finetune_all(run, data: OwnData, split: Split, start: Start) -> list[dict]:
    """Both arms with every seed, the same budget; records, the pre-trained arm last."""
    values = run.parameters
    seeds = [run.profile.seed + k for k in range(values["seeds"] or 1)]
    return [finetune_own(run.profile, data, split, start, arm, seed=seed, out_dir=run.results_dir, updates=values["updates"],
                         reduction=reduction(run)) for arm in ARMS[::-1] for seed in seeds]


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
