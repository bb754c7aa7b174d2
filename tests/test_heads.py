"""Fine-tuning heads against stored outputs of the official ones, and by their definition."""

import json
import os
from pathlib import Path

import pytest
import torch

from jmp_lib.model.heads import ScalarHead, SpatialExtentHead, head_mlp, reduce_atoms, sum_edge_forces


@pytest.fixture(scope="module")
def heads():
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: stored head outputs are not at hand")
    return json.loads((Path(folder) / "golden_training.json").read_text())["heads"]


def inputs(heads):
    x = heads["inputs"]
    batch = {"batch": torch.tensor(x["batch"]).long(), "pos": torch.tensor(x["pos"]), "natoms": torch.zeros(3),
             "atomic_numbers": torch.tensor(x["atomic_numbers"]).long()}  # fmt: skip
    return torch.tensor(x["atom_embedding"]), batch


def load(module, weights):
    module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    return module


@pytest.mark.parametrize("reduction", ["sum", "mean", "max"])
def test_scalar_head(heads, reduction):
    h, batch = inputs(heads)
    head = load(ScalarHead(h.shape[1], reduction), heads["graph_scalar"]["weights"])
    assert torch.allclose(head(h, batch), torch.tensor(heads["graph_scalar"]["outputs"][reduction]), atol=1e-6)


def test_spatial_extent_head(heads):
    h, batch = inputs(heads)
    stored = heads["spatial_extent_R_2_Abs"]
    head = load(SpatialExtentHead(h.shape[1]), stored["weights"])
    assert torch.allclose(head(h, batch), torch.tensor(stored["output"]), atol=1e-6)


def test_force_head(heads):
    h, batch = inputs(heads)
    x, stored = heads["inputs"], heads["node_vector"]
    x_f, u, target = (torch.tensor(x[k]) for k in ("edge_embedding", "edge_unit_vector", "edge_target"))
    mlp = head_mlp(x_f.shape[1])
    load(mlp, {k.removeprefix("out_mlp."): v for k, v in stored["weights"].items()})
    batch["main_edge_index"] = torch.stack([target, target]).long()
    assert torch.allclose(sum_edge_forces(mlp(x_f).squeeze(-1), u, batch),
                          torch.tensor(stored["outputs"]["sum"]), atol=1e-6)


def test_classification_heads(heads):
    h, batch = inputs(heads)
    for name, width in (("graph_binary", 1), ("graph_multiclass", 3)):
        mlp = head_mlp(h.shape[1], out_features=width)
        load(mlp, {k.removeprefix("out_mlp."): v for k, v in heads[name]["weights"].items()})
        per_atom = mlp(h)
        out = torch.stack([reduce_atoms(c, batch["batch"], 3, heads[name]["reduction"]) for c in per_atom.T], -1)
        assert torch.allclose(out.squeeze(-1), torch.tensor(heads[name]["output"]), atol=1e-6)


def test_bias_patterns():
    """A layer with one output has no bias; the energy head of gradient-force models has none at all."""
    assert [m.bias is not None for m in head_mlp(4) if hasattr(m, "bias")] == [True] * 4 + [False]
    assert [m.bias is not None for m in head_mlp(4, bias=False) if hasattr(m, "bias")] == [False] * 5
    assert [m.bias is not None for m in SpatialExtentHead(4).scalar_mlp if hasattr(m, "bias")] == [False] * 6


def test_reductions():
    x, index = torch.tensor([1.0, 4.0, -2.0]), torch.tensor([0, 0, 1])
    assert reduce_atoms(x, index, 2, "sum").tolist() == [5, -2]
    assert reduce_atoms(x, index, 2, "mean").tolist() == [2.5, -2]
    assert reduce_atoms(x, index, 2, "max").tolist() == [4, -2]


def test_spatial_extent_does_not_depend_on_the_origin():
    torch.manual_seed(0)
    head, h = SpatialExtentHead(4), torch.randn(3, 4)
    batch = {"batch": torch.zeros(3, dtype=torch.long), "natoms": torch.tensor([3]), "pos": torch.randn(3, 3),
             "atomic_numbers": torch.tensor([8, 1, 1])}  # fmt: skip
    moved = batch | {"pos": batch["pos"] + torch.tensor([5.0, -3.0, 2.0])}
    assert torch.allclose(head(h, batch), head(h, moved), atol=1e-5)
