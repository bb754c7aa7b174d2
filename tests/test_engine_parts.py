"""Batches in parts: by edges, by running out of memory, prepared ahead, shared by processes. Always the same update."""

import gc
import weakref
from operator import itemgetter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from structures import random_molecule

from jmp_lib.graphs import GraphCache, GraphConfig, collate
from jmp_lib.graphs.padding import in_edges, shape
from jmp_lib.model import PretrainModel
from jmp_lib.settings import load_profile
from jmp_lib.records import read_record
from jmp_lib.train import joint_sets, pretraining
from jmp_lib.train.batches import (
    EvaluationSet,
    LabelledGraphs,
    UpdateBatches,
    is_out_of_memory,
    parts_that_fit,
    predict,
    prepared,
    quadruplet_shape,
)
from jmp_lib.train.losses import Counts
from jmp_lib.train.processes import Processes
from jmp_lib.train.sampling import Sampler



@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def update_batches(draws="batch", max_edges=None, rank=0, processes=1) -> UpdateBatches:
    """Batches of 6 from the toy sets of the pre-training, with edge dropout."""
    profile = load_profile("smoke")
    sets = joint_sets.joint_sets(profile)
    caches = [LabelledGraphs(s.train, s.normalisers, profile.graphs[s.key], dataset_index=i, edge_dropout=0.1)
              for i, s in enumerate(sets)]
    return UpdateBatches(caches, Sampler.joint([len(s.train) for s in sets], 2.0, 6, 1),
                         draws=draws, max_edges=max_edges, rank=rank, processes=processes)


def same(a: dict, b: dict) -> bool:
    """Whether two batches hold the same, to the last bit."""
    return a.keys() == b.keys() and all(np.array_equal(np.asarray(a[k]), np.asarray(b[k])) for k in a.keys())


def test_parts_that_fit():
    def parts(numbers, most):
        return parts_that_fit([{"atoms": n} for n in numbers], most, itemgetter("atoms"))

    assert parts([5, 5, 5], None) == ([[0, 1, 2]], [15])
    assert parts([5, 5, 5, 20, 1, 9, 1], 10) == ([[0, 1], [2], [3], [4, 5], [6]], [10, 5, 20, 10, 1])
    assert parts([], 10) == parts([], None) == ([], [])


class Structures(list):
    """A set in memory."""

    name = "made"
    natoms = property(lambda self: np.array([len(s["pos"]) for s in self]))

    def arrays(self, index: int) -> dict:
        return {**self[index], "id": index}


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_parts_are_cut_where_quadruplets_are_many(dropout):
    """A long molecule beside a dense one: each fits alone and the edges of both together,
    not the tables of quadruplets."""
    long, dense = random_molecule(60), random_molecule(24)
    long["pos"] = (1.4 * np.arange(60)[:, None] * [1, 0, 0] + 0.1 * long["pos"]).astype(np.float32)
    cache = LabelledGraphs(Structures([long, dense]), {}, GraphConfig(5.0, 30, False), edge_dropout=dropout)
    data = UpdateBatches([cache], Sampler.single(2, 2, 0))
    (whole,), (size,) = data[0].parts, data[0].sizes
    assert size == in_edges(shape(whole)) > 1.2 * whole["main_edge_index"].shape[1]
    data.max_edges = size - 1
    cut = data[0]
    assert data.max_edges > whole["main_edge_index"].shape[1] and [len(names) for names in cut.names] == [1, 1]
    assert cut.sizes == [in_edges(shape(part)) for part in cut.parts] and sum(cut.sizes) < 0.95 * size


def test_what_running_out_of_memory_looks_like():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def limited(monkeypatch, edges: int) -> list[int]:
    """Training passes of more than ``edges`` edges run out of memory; returns the list of those that did."""
    forward, failed = PretrainModel.forward, []

    def call(self, batch, pos=None):
        if self.training and batch["main_edge_index"].shape[1] > edges:
            failed.append(batch["main_edge_index"].shape[1])
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return forward(self, batch, pos)

    monkeypatch.setattr(PretrainModel, "forward", call)
    return failed


def weights(folder) -> dict:
    return load_file(folder / "work" / "pretrain" / "small" / "model.safetensors")


def test_out_of_memory_changes_nothing_but_the_parts(tmp_path, toy, float64, monkeypatch):
    """Weights after six updates, in float64: whole batches, parts of at most 60 edges, parts found by failing."""
    smoke = load_profile("smoke", device="cpu")
    whole = pretraining.pretrain(smoke, "small", tmp_path / "whole", progress=False)
    cut = pretraining.pretrain(load_profile("smoke", device="cpu", **{"engine.max_edges": 60}), "small",
                            tmp_path / "cut", progress=False)
    with monkeypatch.context() as patch:
        largest = max(quadruplet_shape(GraphCache(cache.structures, cache.config, max_mb=0)[i])["main"]
                      for cache in update_batches().caches for i in range(len(cache)))
        failed = limited(patch, largest)
        split = pretraining.pretrain(smoke, "small", tmp_path / "split", progress=False)
    assert failed and len(failed) < 6  # the smaller parts are kept for the updates that follow
    assert whole["max_edges"] is None and cut["max_edges"] == 60 and split["max_edges"] <= max(failed)
    a, b, c = (weights(tmp_path / name) for name in ("whole", "cut", "split"))
    assert a["embedding.atom_embedding.weight"].dtype == torch.float64
    for other in (b, c):
        assert max(float((a[k] - other[k]).abs().max()) for k in a) < 1e-12
    assert cut["fingerprint"] == whole["fingerprint"]  # the size of the parts does not decide the numbers
    with monkeypatch.context() as patch:
        limited(patch, 5)
        with pytest.raises(RuntimeError, match=r"toy\[\d+\] with \d+ edges \(quadruplets counted as such\) "
                           r"does not fit in memory by itself"):
            pretraining.pretrain(load_profile("smoke", device="cpu", seed=1), "small",
                                 tmp_path / "split", progress=False)


@pytest.mark.parametrize("draws", ["batch", "structure"])
def test_shares_of_processes_make_up_the_batch(toy, draws):
    """The same structures with the same dropped edges, whoever computes them."""
    for step in range(3):
        items, names, counts = update_batches(draws).items(step)
        found = {}
        for rank in range(3):
            own, own_names, own_counts = update_batches(draws, rank=rank, processes=3).items(step)
            assert own_counts == counts == Counts(6, sum(len(item["pos"]) for item in items))
            assert own
            for item, name in zip(own, own_names):
                found.setdefault(name, []).append(collate([item])["main_edge_index"].numpy())
        wanted = {}
        for item, name in zip(items, names):
            wanted.setdefault(name, []).append(collate([item])["main_edge_index"].numpy())
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert sorted(a.tobytes() for a in wanted[name]) == sorted(a.tobytes() for a in found[name])


def test_prepared_batches_are_the_same(toy):
    """In this process from the start, and ahead in two processes from the middle on."""
    wanted = list(prepared(update_batches(max_edges=50), 0, 9, workers=0, pin=False))
    found = list(prepared(update_batches(max_edges=50), 4, 9, workers=2, pin=False))
    assert len(wanted) == 9 and len(found) == 5
    for a, b in zip(wanted[4:], found):
        assert (a.names, a.sizes, a.counts, a.max_edges) == (b.names, b.sizes, b.counts, b.max_edges)
        assert len(a.parts) == len(b.parts) > 1 and all(same(x, y) for x, y in zip(a.parts, b.parts))


class Broken(torch.utils.data.Dataset):
    """Batch 2 cannot be read."""

    def __getitem__(self, step):
        if step == 2:
            raise ValueError(f"batch {step} is damaged")
        return step


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_preparing_is_one_sentence(workers):
    batches = prepared(Broken(), 0, 5, workers=workers, pin=False)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError) as caught:
        next(batches)
    assert str(caught.value) == "batch 2 is damaged"


def test_a_share_prepared_before_memory_ran_out_is_cut_anew(toy):
    data = update_batches()
    assert data[3].max_edges is None and len(data[3].parts) == 1
    data.max_edges = 40
    assert data[3].max_edges == 40 and len(data[3].parts) > 1


def test_large_sets_keep_no_graphs(toy, monkeypatch):
    from jmp_lib.train import batches

    usual = update_batches()[2]
    monkeypatch.setattr(batches, "KEPT_MB", 0)
    fresh = update_batches()
    assert same(fresh[2].parts[0], usual.parts[0])
    assert not any(cache.kept for cache in fresh.caches)


def evaluation_set(batch_size=4):
    profile = load_profile("smoke")
    s = joint_sets.joint_sets(profile)[2]
    return EvaluationSet(LabelledGraphs(s.train, s.normalisers, profile.graphs[s.key]), batch_size, torch.device("cpu"))


class FewAtoms(torch.nn.Module):
    """A network that runs out of memory above so many structures, and remembers what it is given."""

    def __init__(self, most=99):
        super().__init__()
        self.most, self.seen, self.given = most, [], []

    def forward(self, batch):
        self.seen.append(batch.num_graphs)
        self.given.append(weakref.ref(batch["pos"]))
        if batch.num_graphs > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return {"energy": batch["energy"] * 2.0}


def test_halves_of_an_evaluation_replace_the_whole(toy):
    """A batch that does not fit is computed in halves, also in the next validation."""
    pick = lambda output: output  # noqa: E731
    whole = predict(FewAtoms(), evaluation_set(), pick, False)["energy"]
    batches, model = evaluation_set(), FewAtoms(most=2)
    first, tried = predict(model, batches, pick, False)["energy"], list(model.seen)
    second = predict(model, batches, pick, False)["energy"]
    assert np.array_equal(whole, first) and np.array_equal(first, second) and len(whole) == 10
    assert tried == [4, 2, 2, 2, 2, 2] and model.seen[len(tried):] == [2, 2, 2, 2, 2]
    gc.collect()
    assert not any(array() is not None for array in model.given)  # no batch stays in memory until the next validation
    with pytest.raises(torch.OutOfMemoryError):
        predict(FewAtoms(most=0), evaluation_set(), pick, False)


def test_one_process_sums_nothing():
    alone = Processes()
    values = torch.tensor([1.5], dtype=torch.float64)
    assert alone.size == 1 and alone.first and alone.fabric.all_reduce(values, reduce_op="sum") is values
    assert alone.gather("a") == ["a"] and alone.fabric.broadcast("b") == "b"


def test_waiting_is_recorded(tmp_path, toy):
    record = pretraining.pretrain(load_profile("smoke", device="cpu"), "small", tmp_path, progress=False)
    assert record == read_record(tmp_path / "records" / "pretrain" / "small.json")
    assert 0.0 < record["waiting_share"] < 1.0 and record["workers_data"] == 0
    assert record["waiting_s"] == pytest.approx(record["waiting_share"] * record["train_time_s"])
