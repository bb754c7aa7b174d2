"""The graph cache, batches from dropped edges, and known faults of neighbour searches."""

import numpy as np
import pytest
import torch
from structures import random_molecule, skewed_crystal, slab

from jmp_lib.graphs import GraphCache, GraphConfig, build_graphs, collate, indices
from jmp_lib.graphs.build import a2a_edges, cut_graphs, drop_edges
from jmp_lib.graphs.neighbors import find_neighbors, nearest_per_target

CONFIG = GraphConfig(6.0, 8, True)


def structures():
    return [random_molecule(), skewed_crystal(), slab(), random_molecule(12, 3)]


def assert_equal_batches(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[key].dtype and torch.equal(value, b[key]), key
        else:
            assert value == b[key], key


def test_kept_graphs_give_the_same_batch_as_new_ones():
    cache = GraphCache(structures(), CONFIG)
    new = collate([{**s, "graphs": build_graphs(s, CONFIG)} for s in structures()])
    assert_equal_batches(collate([cache[i] for i in range(4)]), new)
    assert_equal_batches(collate([cache[i] for i in range(4)]), new)


def test_a_batch_of_dropped_edges_equals_the_graphs_of_each_structure():
    cache = GraphCache(structures(), CONFIG, 0.2, np.random.default_rng(7))
    together = collate([cache[i] for i in range(4)])
    rng, items = np.random.default_rng(7), []
    for s in structures():
        items.append({**s, "graphs": cut_graphs([s], [drop_edges(a2a_edges(s, CONFIG), 0.2, rng)], [CONFIG])})
    assert_equal_batches(together, collate(items))


def test_dropping_every_edge_keeps_them_all():
    candidates = a2a_edges(slab(), CONFIG)
    assert drop_edges(candidates, 1.0, np.random.default_rng(0)) is candidates


def test_the_cache_stays_within_its_megabytes():
    everything = GraphCache(structures(), CONFIG)
    for row in range(4):
        everything[row]
    assert len(everything.kept) == 4
    half = GraphCache(structures(), CONFIG, max_mb=everything.bytes / 2e6)
    for row in (0, 1, 2, 3, 2, 1):
        half[row]
        assert half.bytes <= everything.bytes / 2
        assert half.bytes == sum(a.nbytes for g in half.kept.values() for a in g.values())
    assert 0 < len(half.kept) < 4
    none = GraphCache(structures(), CONFIG, max_mb=0)
    assert none[0]["graphs"]["main_edge_index"].size and not none.kept and none.bytes == 0


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="rng"):
        GraphCache(structures(), CONFIG, 0.1)[0]
    with pytest.raises(ValueError, match="structure 5 has no graphs"):
        collate([{**slab(), "id": 5}])


def test_looking_up_quadruplets_in_portions_changes_nothing(monkeypatch):
    whole = build_graphs(slab(), CONFIG)
    monkeypatch.setattr(indices, "AT_ONCE", 7)
    portions = build_graphs(slab(), CONFIG)
    assert whole["quad_same"].size and all(np.array_equal(whole[key], portions[key]) for key in whole)


@pytest.mark.parametrize("limits", [[3] * 40, [0, 1, 5, 200] * 10])
def test_nearest_keeps_the_first_of_equal_distances(limits):
    rng = np.random.default_rng(1)
    target = np.sort(rng.integers(0, 40, 1500))
    distance = rng.integers(0, 12, 1500).astype(np.float32)  # many equal ones
    expected = {}
    for atom, limit in enumerate(limits):
        mine = np.flatnonzero(target == atom)
        nearest = mine[np.argsort(distance[mine], kind="stable")][:limit]
        expected.update((edge, rank) for rank, edge in enumerate(nearest))
    kept, rank = nearest_per_target(target, distance, np.array(limits))
    assert dict(zip(kept.tolist(), rank.tolist())) == expected and (np.diff(kept) > 0).all()


def test_the_third_direction_is_periodic_too():
    structure = skewed_crystal()
    _, offset, _ = find_neighbors(structure["pos"], structure["cell"], structure["pbc"], 6.0, True)
    for axis in range(3):
        assert {-1, 1} <= set(offset[:, axis].tolist())


@pytest.mark.parametrize("cutoff", [2.5, 4.0, 9.0])
def test_no_edge_is_longer_than_the_cutoff_and_its_distance_is_right(cutoff):
    s = slab()
    (source, target), offset, squared = find_neighbors(s["pos"], s["cell"], s["pbc"], cutoff, True)
    length = np.linalg.norm(s["pos"][target].astype(float) - s["pos"][source] - offset @ s["cell"], axis=1)
    assert length.max() <= cutoff + 1e-5 and length.max() > cutoff - 1.5
    np.testing.assert_allclose(np.sqrt(squared), length, atol=1e-4)


def test_atoms_hundreds_of_cells_away_keep_their_neighbours():
    structure = skewed_crystal()
    moved = structure | {"pos": structure["pos"].copy()}
    moved["pos"][2] += (300 * structure["cell"][0] - 200 * structure["cell"][2]).astype(np.float32)
    near, far = (a2a_edges(s, GraphConfig(6.0, 30)) for s in (structure, moved))
    assert near[0].shape == far[0].shape
    assert np.abs(far[1]).max() >= 300
    assert cut_graphs([moved], [far], [CONFIG])["main_edge_index"].shape[1] > 0


def test_a_lone_atom_beside_a_molecule_has_no_edges_and_does_no_harm():
    structure = random_molecule()
    structure["pos"][4] += 100.0
    graphs = build_graphs(structure, GraphConfig(6.0, 8, False))
    assert not (graphs["main_edge_index"] == 4).any() and graphs["main_edge_index"].size
