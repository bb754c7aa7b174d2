"""A pre-training network as it starts: random weights of the seed, and scale factors fitted once for each size."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from jmp_lib import records
from jmp_lib.files import locked, write_json
from jmp_lib.model import PretrainModel, fit_scale_factors
from jmp_lib.settings import PRETRAINING_SETS, Profile
from jmp_lib.train.batches import UpdateBatches, graph_cache
from jmp_lib.train.joint_sets import data_hashes, joint_sets
from jmp_lib.train.sampling import Sampler


def new_model(profile: Profile, size: str, sets: int = len(PRETRAINING_SETS)) -> torch.nn.Module:
    """A pre-training network with heads for so many ``sets``; its random weights depend on the seed only."""
    torch.manual_seed(profile.seed)
    return PretrainModel(profile.models[size], num_tasks=sets, edge_dropout=profile.pretraining.edge_dropout)


def scale_factors(profile: Profile, size: str, out_dir: Path, fit: bool = True) -> dict[str, float] | None:
    """The fitted factors of the ``size`` network: name of the buffer -> value; None without ``fit`` where none are
    kept.

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
        with suppress(FileNotFoundError, json.JSONDecodeError):
            stored = json.loads(path.read_text())
            return stored["factors"] if stored.get("fingerprint") == wanted else None

    if not fit:
        return kept()
    with locked(path.with_suffix(".lock")):
        if (factors := kept()) is not None:
            return factors
        torch.set_num_threads(profile.threads)
        model = new_model(profile, size)
        caches = [graph_cache(s.val, s.normalisers, profile.graphs[s.key], dataset_index=i) for i, s in enumerate(sets)]
        sampler = Sampler.joint([len(s.val) for s in sets], settings.temperature, settings.batch_size, profile.seed)
        batches = UpdateBatches(caches, [s.name for s in sets], sampler, profile.seed)
        found = fit_scale_factors(model, [batches[k].parts[0] for k in range(settings.scale_factor_batches)])
        factors = {name: float(np.float32(value)) for name, value in found.items()}  # as they are used
        write_json(path, {"fingerprint": wanted, "factors": factors})
        return factors
