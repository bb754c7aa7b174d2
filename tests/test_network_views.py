"""What notebook 02 counts and traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jmp_lib.graphs import GraphConfig, build_graphs
from jmp_lib.model import BackboneConfig, PretrainModel
from jmp_lib.results import network_views as views

SMALL = dict(emb_size_atom=8, emb_size_edge=8, emb_size_trip_in=4, emb_size_trip_out=4, emb_size_quad_in=4,
             emb_size_quad_out=4, emb_size_aint_in=4, emb_size_aint_out=4, emb_size_rbf=4, emb_size_cbf=4,
             emb_size_sbf=4, num_radial=8, num_spherical=3)


def edges(graphs: dict, name: str) -> list[tuple]:
    """(source, target, cell of the source as seen from the target)."""
    return list(zip(*graphs[f"{name}_edge_index"].tolist(), map(tuple, graphs[f"{name}_offset"].astype(int).tolist())))


@pytest.mark.parametrize("periodic", [True, False])
def test_terms_are_those_of_a_list_with_images(periodic):
    structure = made(periodic)
    graphs = build_graphs(structure, GraphConfig(cutoff=4.0, max_neighbors=15, periodic=periodic))
    main, ae, middle = (edges(graphs, name) for name in ("main", "a2ee2a", "qint"))
    found = list(views.members(graphs, len(structure["pos"])).values())
    into = lambda atom, which: [e for e in which if e[1] == atom]  # noqa: E731
    triplets = sum((b, p) != (c, q) for b, a, p in main for c, _, q in into(a, main))
    mixed = sum((b, p) != (c, q) for b, a, p in main for c, _, q in into(a, ae))
    quadruplets = 0
    for b, a, p in middle:
        for c, _, q in into(a, main):
            for d, _, r in into(b, main):
                of_d = tuple(np.add(p, r))  # seen from a
                quadruplets += (c, q) != (b, p) and (d, of_d) != (a, (0, 0, 0)) and (d, of_d) != (c, q)
    assert found == [triplets, quadruplets, mixed, mixed, len(edges(graphs, "a2a"))]


def made(periodic: bool) -> dict:
    rng = np.random.default_rng(1)
    cell = 4.5 * np.eye(3) if periodic else np.zeros((3, 3))
    pos = np.array([[0, 0, 0], [1.5, 0.2, 0], [0.1, 1.6, 0.4], [2.2, 2.1, 1.9]]) + 0.1 * rng.random((4, 3))
    return {"pos": pos.astype(np.float32), "atomic_numbers": np.array([6, 8, 1, 1]), "cell": cell,
            "pbc": np.full(3, periodic), "tags": np.array([1, 2, 0, 0])}


def test_silenced_interactions_speak_again_and_a_trace_leaves_no_hook():
    torch.manual_seed(0)
    model = PretrainModel(BackboneConfig(**SMALL, num_blocks=1)).eval()
    batch = views.batch_of([made(False)], GraphConfig(cutoff=4.0, periodic=False))
    with torch.no_grad():
        before = model(batch)["energy"]
        with views.silenced(model, views.INTERACTIONS):
            assert not torch.equal(model(batch)["energy"], before)
        traced = views.trace(model, batch, {"backbone.int_blocks.0": "block", "backbone.out_mlp_E": "end"})
        assert torch.equal(model(batch)["energy"], before)
    assert traced["shape"].tolist() == [(4, 8), (len(batch["main_reverse"]), 8), (4, 8)]
    assert not any(module._forward_hooks for module in model.modules())


def test_parameters_of_the_parts_add_up():
    found = views.parameters(PretrainModel(BackboneConfig(**SMALL, num_blocks=1)))
    assert sum(found.values()) == 2 * found["all"] and min(found.values()) > 0
