"""Structures, sets and batches in the terms of torch_geometric, both ways; the worked examples of
docs/examples.md run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from structures import random_molecule, skewed_crystal, slab
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

from jmp_lib.data.mini import load_mini
from jmp_lib.graphs import AddGraphs, GraphCache, GraphConfig, build_graphs, collate

CONFIG = GraphConfig(6.0, 8, True)
EXAMPLES = (Path(__file__).parents[1] / "docs" / "examples.md").read_text().split("## 4.")[1]


def equal(a, b):
    return (list(a.keys()) == list(b.keys())
            and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a.keys()))


def as_data(structure, *names):
    """A ``Data`` of tensors with the fields ``names``, atomic numbers as z."""
    return Data(z=torch.from_numpy(structure["atomic_numbers"]),
                **{name: torch.as_tensor(structure[name]) for name in names})


@pytest.mark.parametrize("code", re.findall(r"```python\n(.+?)```", EXAMPLES, re.DOTALL),
                         ids=["SchNet here", "JMP there"])
def test_examples_of_the_documentation_learn(code):
    found = {}
    exec(code, found)
    losses = found["losses"]
    assert len(losses) >= 10 and np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_collate_gives_a_batch():
    data = load_mini("rmd17-mini-ethanol")
    batch = collate([AddGraphs(CONFIG)(data[i]) for i in range(3)])
    assert isinstance(batch, Batch) and batch.num_graphs == len(batch) == 3 and batch.num_nodes == 27
    assert batch.ptr.tolist() == [0, 9, 18, 27] and batch["batch"].tolist() == sorted([0, 1, 2] * 9)
    assert batch.forces.dtype == batch.energy.dtype == torch.float32 and batch.cell.dtype == torch.float64
    assert isinstance(batch.main_width, int) and batch.id.tolist() == [0, 1, 2]
    moved = batch.to("cpu")
    assert equal(moved, batch) and equal({**batch}, batch)


@pytest.mark.parametrize("make", [random_molecule, skewed_crystal, slab])
def test_dicts_of_arrays_and_data_of_tensors_give_the_same_batch(make):
    structure = make()
    wanted = collate([{**structure, "graphs": build_graphs(structure, CONFIG)}])
    tensors = Data(**{key: torch.from_numpy(np.array(value)) for key, value in structure.items()})
    assert equal(collate([AddGraphs(CONFIG)(tensors)]), wanted)


def test_a_foreign_molecule_needs_no_more_than_z_and_pos():
    structure = random_molecule()
    found = AddGraphs(GraphConfig(6.0, 30, False))(as_data(structure, "pos"))
    wanted = {**structure, "graphs": build_graphs(structure, GraphConfig(6.0, 30, False))}
    wanted.pop("fixed")
    assert equal(collate([found]), collate([wanted]))


def test_a_foreign_crystal_is_periodic_along_the_vectors_of_its_cell():
    structure = skewed_crystal()
    data = as_data(structure, "pos")
    data.cell, data.y = torch.from_numpy(structure["cell"])[None], torch.tensor([[1.5, 2.5]])  # as PyG's sets have them
    batch = collate([AddGraphs(CONFIG)(data)] * 2)
    assert torch.equal(batch.main_edge_index[:, : batch.main_edge_index.shape[1] // 2],
                       torch.from_numpy(build_graphs(structure, CONFIG)["main_edge_index"]))  # fmt: skip
    assert batch.y.shape == (2, 2) and batch.cell.shape == (2, 3, 3) and data.cell.shape == (1, 3, 3)


def test_the_structure_itself_gets_no_graphs():
    data = as_data(slab(), "pos", "cell", "pbc", "tags")
    assert AddGraphs(CONFIG)(data)["graphs"]["main_rank"].dtype == np.int32 and "graphs" not in data


def test_dropped_edges_are_those_of_the_cached_sequence():
    structures = [random_molecule(), slab()]
    graphs = AddGraphs(CONFIG, 0.2, np.random.default_rng(3))
    data = [graphs(as_data(s, "pos", "cell", "pbc", "tags", "fixed")) for s in structures]
    cache = GraphCache(structures, CONFIG, 0.2, np.random.default_rng(3))
    found, wanted = collate(data), collate([cache[0], cache[1]])
    assert all(torch.equal(found[key], wanted[key]) for key in wanted.keys() if isinstance(wanted[key], torch.Tensor))


def test_a_set_with_the_transform_goes_through_a_loader():
    data = load_mini("qm9-mini")[:8]
    data.transform = AddGraphs(GraphConfig(6.0, 8, False))
    batches = list(DataLoader(data, batch_size=4, collate_fn=collate))
    assert [batch.num_graphs for batch in batches] == [4, 4]
