"""The recipe of fine-tuning on any data: several scalars, energy with forces, averages and layer-wise rates."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jmp_lib.model import HeadSpec, PretrainModel
from jmp_lib.model.scaling import scale_modules
from jmp_lib.records import read_record
from jmp_lib.settings import load_profile
from jmp_lib.train.finetuning import FinetuneSpec, finetune_data
from jmp_lib.train.losses import mae
from jmp_lib.data.normalise import fit_forces, fit_property
from jmp_lib.train.schedule import layerwise_groups
from jmp_lib.train.job import Job
from toy_sets import toy_set

WIDTH = {"width": lambda natoms, pos, z: np.array([x[:, 0].max() - x[:, 0].min() for x in pos])}


def problem(labels: tuple[str, ...], heads: list[HeadSpec], weights: dict | None, **changes) -> FinetuneSpec:
    profile = load_profile("smoke", device="cpu", **changes)
    train, val, test = (toy_set("own", n, seed, **WIDTH) for n, seed in ((10, 7), (4, 8), (5, 9)))
    numbers = [np.asarray(s["atomic_numbers"]) for s in train]
    normalisers = {label: fit_forces(train.forces) if label == "forces" else
                   fit_property(numbers, np.array([float(s[label]) for s in train])) for label in labels}
    network = PretrainModel(profile.models["small"], num_tasks=1)
    settings = profile.finetune_settings("qm9", "qm9_mu")
    return FinetuneSpec(
        train, val, test, heads, labels, normalisers, dict.fromkeys(labels, 1.0),
        lambda found, true: {"val_metric": sum(mae(found[n], true[n]) / normalisers[n].std for n in labels)},
        profile.models["small"], profile.graphs["qm9"], dict.fromkeys(scale_modules(network), 1.0),
        settings, settings.rate(weights is not None, "small"),
        layerwise_groups(0.3, (0.5,) * profile.models["small"].num_blocks), profile.seed, weights)


def run(folder: Path, what: FinetuneSpec):
    """Its record and the errors of the test part."""
    errors = {}

    def recipe(job):
        done, fields, found, true = finetune_data(what, job, {"units": dict.fromkeys(true_labels, "eV")})
        errors.update({name: mae(found[name], true[name]) for name in true})
        rates = sorted({group.multiplier for group in what.groups})
        return done, {"kind": "own", **fields, "rates": rates}, {"weights": "model.safetensors"}

    true_labels = what.predicted
    job = Job("own", folder / "own" / "a.json", folder, "f" * 64, load_profile("smoke", device="cpu"), progress=False)
    return job.run(recipe), errors


@pytest.mark.parametrize("ema", [None, 0.5])
def test_several_scalars_at_once(tmp_path, ema):
    heads = [HeadSpec("energy", "scalar", "sum"), HeadSpec("width", "scalar", "max")]
    what = problem(("energy", "width"), heads, None, **{"finetuning.defaults.ema_decay": ema})
    record, errors = run(tmp_path, what)
    assert errors.keys() == {"energy", "width"} and all(np.isfinite(list(errors.values())))
    assert (record == read_record(tmp_path / "own" / "a.json") and record["updates"] > 0
            and record["rates"] == [0.3, 0.5, 1.0])
    again, seen = run(tmp_path, what)
    assert again == record and not seen  # finished: nothing is trained again


def test_energy_and_forces_from_given_weights(tmp_path):
    heads = [HeadSpec("energy", "energy", "sum"), HeadSpec("forces", "gradient_forces", "sum")]
    torch.manual_seed(1)
    weights = PretrainModel(load_profile("smoke").models["small"], num_tasks=4).state_dict()
    rates = {"finetuning.defaults.lr": {"scratch": 1.0e-4, "pretrained": 3.0e-4}}
    record, errors = run(tmp_path / "given", problem(("energy", "forces"), heads, weights, **rates))
    other, others = run(tmp_path / "random", problem(("energy", "forces"), heads, None, **rates))
    assert errors.keys() == {"energy", "forces"} and errors != others
    assert record["history"][-1]["val_metric"] != other["history"][-1]["val_metric"]
    assert (record["lr"], other["lr"]) == (3.0e-4, 1.0e-4)  # each kind of arm learns at its own rate
    for ours, theirs in zip(record["history"], other["history"], strict=True):
        assert ours["lr"] == pytest.approx(3 * theirs["lr"])
