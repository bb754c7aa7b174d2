"""The four graphs against brute force, and the rules of selection and symmetrisation."""

import itertools

import numpy as np
import pytest
from structures import methanol, random_molecule, skewed_crystal, slab

from jmp_lib.graphs import GraphConfig, build_graphs
from jmp_lib.graphs.build import a2a_edges, cut_graphs, drop_edges
from jmp_lib.graphs.indices import index_sets
from jmp_lib.graphs.neighbors import find_neighbors, rank_in_group
from tools.reference_check import count_members


def brute_force(structure, cutoff, periodic, reach=4):
    """All directed edges by trying every image in a box of offsets."""
    pos, cell = structure["pos"], structure["cell"].astype(np.float32)
    span = range(-reach, reach + 1) if periodic else (0,)
    edges = set()
    for s, t, o in itertools.product(range(len(pos)), range(len(pos)), itertools.product(span, repeat=3)):
        d2 = float(((pos[t] - (pos[s] + np.array(o, np.float32) @ cell)) ** 2).sum())
        if (1e-4 < d2 <= np.float32(cutoff) ** 2) if periodic else (s != t and d2 < np.float32(cutoff) ** 2):
            edges.add((s, t, *o))
    return edges


def edge_set(edge_index, offset):
    return {(int(s), int(t), *map(int, o)) for s, t, o in zip(*edge_index, offset)}


@pytest.mark.parametrize("make, cutoff, periodic", [
    (random_molecule, 3.0, False), (methanol, 12.0, False), (skewed_crystal, 6.0, True), (slab, 4.0, True),
])  # fmt: skip
def test_neighbors_equal_brute_force(make, cutoff, periodic):
    structure = make()
    edge_index, offset, _ = find_neighbors(structure["pos"], structure["cell"], structure["pbc"], cutoff, periodic)
    assert edge_set(edge_index, offset) == brute_force(structure, cutoff, periodic)
    assert len(edge_set(edge_index, offset)) == edge_index.shape[1]


def test_cells_far_smaller_than_the_cutoff_reach_beyond_adjacent_images():
    structure = skewed_crystal()
    _, offset, _ = find_neighbors(structure["pos"], structure["cell"], structure["pbc"], 9.0, True)
    assert np.abs(offset).max(axis=0).min() >= 2


def test_order_is_target_source_offset():
    structure = skewed_crystal()
    edge_index, offset, _ = find_neighbors(structure["pos"], structure["cell"], structure["pbc"], 6.0, True)
    rows = [tuple(r) for r in np.c_[edge_index[1], edge_index[0], offset]]
    assert rows == sorted(rows)


def test_partial_periodicity_is_obeyed():
    structure = slab() | {"pbc": np.array([True, True, False])}
    _, offset, _ = find_neighbors(structure["pos"], structure["cell"], structure["pbc"], 12.0, True)
    assert np.abs(offset[:, 2]).max() == 0 and np.abs(offset[:, 0]).max() > 0


def test_limits_per_target_and_their_rounding():
    config = GraphConfig(12.0, 100, False)
    assert config.limits() == {"main": 100, "a2ee2a": 66, "qint": 26, "a2a": 3333}
    reduced = GraphConfig(19.0, 30, True, reduce_above=((200, 10), (300, 5)))
    assert [reduced.limits(n)["main"] for n in (200, 201, 301)] == [30, 10, 5]
    assert reduced.limits(301) == {"main": 5, "a2ee2a": 3, "qint": 1, "a2a": 166}


@pytest.mark.parametrize("make, periodic", [(random_molecule, False), (skewed_crystal, True)])
def test_subgraphs_keep_the_nearest_of_every_target(make, periodic):
    structure = make()
    config = GraphConfig(5.0, 6, periodic)
    candidates = a2a_edges(structure, config)
    graphs = cut_graphs([structure], [candidates], [config])
    (_, target), _, squared = candidates
    for name, limit in (("a2ee2a", 4), ("qint", 1)):
        kept = edge_set(graphs[f"{name}_edge_index"], graphs[f"{name}_offset"])
        for atom in range(len(structure["pos"])):
            mine = np.flatnonzero(target == atom)
            nearest = mine[np.argsort(squared[mine], kind="stable")[:limit]]
            assert edge_set(candidates[0][:, nearest], candidates[1][nearest]) == {e for e in kept if e[1] == atom}


def test_main_graph_is_symmetric_and_reverse_points_at_the_reverse():
    graphs = build_graphs(skewed_crystal(), GraphConfig(6.0, 8, True))
    (s, t), o, rev = graphs["main_edge_index"], graphs["main_offset"], graphs["main_reverse"]
    assert np.array_equal(s[rev], t) and np.array_equal(t[rev], s) and np.array_equal(o[rev], -o)
    assert np.array_equal(rev[rev], np.arange(len(rev)))
    assert len(edge_set((s, t), o)) == len(s)


def test_qint_needs_a_tagged_end():
    structure = slab()
    graphs = build_graphs(structure, GraphConfig(6.0, 30, True))
    s, t = graphs["qint_edge_index"]
    tagged = structure["tags"] > 0
    assert (tagged[s] | tagged[t]).all()
    everything = build_graphs(structure | {"tags": np.full(len(structure["pos"]), 2)}, GraphConfig(6.0, 30, True))
    assert everything["qint_edge_index"].shape[1] > len(s)


def test_edge_dropout_removes_directed_edges_before_the_cut():
    structure, config = slab(), GraphConfig(6.0, 8, True)
    full = build_graphs(structure, config)
    dropped, again = (cut_graphs([structure],
                                 [drop_edges(a2a_edges(structure, config), 0.1, np.random.default_rng(0))], [config])
                      for _ in range(2))
    share = dropped["a2a_edge_index"].shape[1] / full["a2a_edge_index"].shape[1]
    assert 0.85 < share < 0.95
    assert all(np.array_equal(dropped[k], again[k]) for k in dropped)


@pytest.mark.parametrize("make, periodic", [(random_molecule, False), (skewed_crystal, True), (slab, True)])
def test_counts_of_triplets_and_quadruplets_equal_enumeration(make, periodic):
    """Every exclusion compares images: atom number and offset (section 3 of the specification)."""
    structure = make()
    g = build_graphs(structure, GraphConfig(4.5, 7, periodic))
    main = list(zip(*g["main_edge_index"], map(tuple, g["main_offset"])))
    ae = list(zip(*g["a2ee2a_edge_index"], map(tuple, g["a2ee2a_offset"])))
    qint = list(zip(*g["qint_edge_index"], map(tuple, g["qint_offset"])))
    add = lambda a, b: tuple(int(x + y) for x, y in zip(a, b))  # noqa: E731
    e2e = sum(i != j and i[1] == j[1] for i in main for j in main)
    a2e = sum(i[1] == j[1] and not (i[0] == j[0] and i[2] == j[2]) for i in ae for j in main)
    quads = 0
    for s_p, t_p, o_p in qint:
        inner = [i for i in main if i[1] == s_p and not (i[0] == t_p and add(i[2], o_p) == (0, 0, 0))]
        outer = [j for j in main if j[1] == t_p and not (j[0] == s_p and j[2] == o_p)]
        quads += sum(not (i[0] == j[0] and add(i[2], o_p) == tuple(map(int, j[2]))) for i in inner for j in outer)
    assert count_members(g, len(structure["pos"])) == (e2e, a2e, a2e, quads)
    assert quads > 0


def test_moving_an_atom_by_a_lattice_vector_keeps_the_edges():
    structure = skewed_crystal()
    moved = structure | {"pos": structure["pos"].copy()}
    moved["pos"][2] += (structure["cell"][0] - 2 * structure["cell"][2]).astype(np.float32)
    config = GraphConfig(6.0, 8, True)
    a, b = build_graphs(structure, config), build_graphs(moved, config)
    for name in ("main", "a2a", "a2ee2a", "qint"):
        assert a[f"{name}_edge_index"].shape == b[f"{name}_edge_index"].shape
        assert np.array_equal(np.bincount(a[f"{name}_edge_index"][1]), np.bincount(b[f"{name}_edge_index"][1]))


def test_structures_without_a_graph_are_named():
    apart = methanol() | {"id": 17}
    apart["pos"] = apart["pos"] * 100
    with pytest.raises(ValueError, match="structure 17 .*12.0 Å"):
        build_graphs(apart, GraphConfig(12.0, 30, False))
    empty = {k: v[:0] if k not in ("cell", "pbc") else v for k, v in methanol().items()}
    with pytest.raises(ValueError, match="no atoms"):
        build_graphs(empty, GraphConfig(12.0, 30, False))


def test_a_single_atom_in_a_crystal_has_a_graph():
    from ase.build import bulk
    from structures import from_ase

    graphs = build_graphs(from_ase(bulk("Cu")), GraphConfig(6.0, 30, True))
    assert graphs["main_edge_index"].shape[1] > 0


def test_rank_in_group_counts_from_zero():
    assert rank_in_group(np.array([2, 0, 2, 2, 0])).tolist() == [0, 0, 1, 2, 1]
    assert rank_in_group(np.zeros(0, dtype=np.int64)).tolist() == []


def test_atoms_in_cells_too_far_apart_are_refused():
    """Numbers that stand for an edge must fit in 64 bits."""
    graphs = {name: (np.array([[0, 1], [1, 0]]), np.array([[0, 0, 0], [0, 0, 2_000_000]]))
              for name in ("main", "a2ee2a", "qint", "a2a")}
    with pytest.raises(ValueError, match="wrap the positions into the cell"):
        index_sets(graphs, 2)
