"""Tiny fine-tuned and pre-trained networks with random weights, written as the training writes them."""

from __future__ import annotations

import dataclasses

import torch

from jmp_lib.graphs import GraphConfig
from jmp_lib.model import FinetuneModel, HeadSpec, PretrainModel
from jmp_lib.model.scaling import scale_modules
from jmp_lib.settings import load_profile
from jmp_lib.model.weights import save_weights

CONFIG = load_profile("smoke").models["small"]


def _factors(model) -> dict[str, float]:
    factors = {name: 1.0 for name in scale_modules(model)}
    for module in scale_modules(model).values():
        module.set(1.0)
    return factors


def finetuned(folder, kind: str = "gradient_forces", periodic: bool = True, elements=None, energy: bool = True):
    """A folder with a network for energies and forces (without ``energy``: forces alone), or for the scalar ``gap``."""
    torch.manual_seed(0)
    scalar = kind == "scalar"
    heads = [HeadSpec("gap", "scalar", "mean")] if scalar else [HeadSpec("energy", "energy"), HeadSpec("forces", kind)]
    model = FinetuneModel(CONFIG, heads)
    norm = {"mean": 2.0, "std": 3.0, "reference": None}
    save_weights(folder / "model", model, {
        "kind": "finetune", "units": {"gap" if scalar else "forces": "eV"}, "backbone": CONFIG.to_dict(),
        "graph": dataclasses.asdict(GraphConfig(6.0, 40, periodic)), "heads": [dataclasses.asdict(h) for h in heads],
        "normalisers": {h.name: norm for h in heads if energy or h.name != "energy"},
        "scale_factors": _factors(model), "elements": elements})
    return folder


def pretrained(folder):
    """A folder with a pre-training network of two data sets."""
    torch.manual_seed(0)
    model, norm = PretrainModel(CONFIG, 2), {"mean": 0.0, "std": 1.0, "reference": None}
    factors = _factors(model)
    save_weights(folder / "model", model, {
        "kind": "pretrain", "backbone": CONFIG.to_dict(), "scale_factors": factors,
        "datasets": {k: {"energy": norm, "forces": norm} for k in ("oc20", "ani1x")},
        "graphs": {k: dataclasses.asdict(GraphConfig(6.0, 8, k == "oc20")) for k in ("oc20", "ani1x")}})
    return folder
