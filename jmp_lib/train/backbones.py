"""The pre-trained networks that come with the package, by name: ``mini-small`` and ``mini-large``.

    loaded = jmp_lib.load("mini-small")                     # averaged weights, with the heads of the pre-training sets
    pretrained: {small: mini-small, large: mini-large}      # in a profile: its JMP arms start from them

``jmp_lib/backbones/<name>`` holds model.safetensors and model.json, record.json (settings, seeds, hashes, held-out errors),
training.csv and validation.csv (the whole curves) and card.md; ``python -m tools.ship mini-backbone`` puts a run there.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from jmp_lib import paths
from jmp_lib.files import file_sha256, reading
from jmp_lib.graphs import GraphConfig
from jmp_lib.records import read_record
from jmp_lib.settings import Pretraining, Profile, build
from jmp_lib.strict import merge

LIVE_STRUCTURES = 6400  # drawn by the first updates, which a notebook trains again: two to three minutes of one quiet core
LIVE_AVERAGE = 0.9  # of their weights; the long average of the recorded run would still be at the random ones


def names() -> list[str]:
    """Names of the networks that ship."""
    return sorted(path.name for path in paths.BACKBONES_DIR.glob("*-*") if path.is_dir())


def record_of(name: str) -> dict:
    """The record of the pre-training of ``name``."""
    return read_record(paths.BACKBONES_DIR / name / "record.json")


def weights_of(name: str) -> Path:
    """The weights of ``name``, which must be those of its record; ``FileNotFoundError`` or ``ValueError`` in one sentence."""
    path, wanted = paths.BACKBONES_DIR / name / "model.safetensors", record_of(name)["files"]["weights"]["sha256"]
    with reading(path, "install the package again"):
        found = file_sha256(path)
    if found != wanted:
        raise ValueError(f"{path} is not the file that record.json beside it describes (the sha256 differs): install the package "
                         "again, or give another folder its own name")
    return path


def training_curve(name: str) -> pd.DataFrame:
    """Losses and learning rate over the updates of the recorded run; means over blocks of updates after the first 1,000."""
    with reading(path := paths.BACKBONES_DIR / name / "training.csv", "install the package again"):
        return pd.read_csv(path)


def first_updates(profile: Profile, size: str) -> Profile:
    """``profile`` for a live run of the first updates of the pre-training of its shipped network of ``size``.

    Seed, graphs, sampling, batches, optimiser and schedule are those of the record; other are the data (the embedded sets,
    validated as the profile says) and the average of the weights, which acts on no update.
    """
    recorded, own = record_of(profile.pretrained[size])["parameters"], profile.pretraining
    updates = -(-LIVE_STRUCTURES // recorded["pretraining"]["batch_size"])
    settings = merge(recorded["pretraining"], {
        "data": "mini", "ema_decay": LIVE_AVERAGE, "eval_batch_size": own.eval_batch_size, "checkpoint_every": 50,
        "schedule": {"stop_at": f"{updates} updates", "validate_every": f"{-(-updates // 5)} updates"},
        "datasets": {key: {"max_val": one.max_val, "max_train": None} for key, one in own.datasets.items()}})
    graphs = profile.graphs | {key: GraphConfig.from_dict(graph) for key, graph in recorded["graphs"].items()}
    return profile.model_copy(update={"seed": recorded["seed"], "pretrained": {}, "graphs": graphs,
                                      "pretraining": build(Pretraining, settings, f"settings of {profile.pretrained[size]}")})
