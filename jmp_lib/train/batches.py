"""From sets of structures to batches on a device, in parts that fit and prepared ahead,
and from a model to predictions.

Losses of parts add up (``losses.Counts``), and so do gradients: how a batch is cut does not change the update.
"""

from __future__ import annotations

import gc
import resource
import signal
import traceback
from dataclasses import dataclass, field
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from jmp_lib.data.normalise import Normaliser
from jmp_lib.graphs import GraphCache, GraphConfig, collate
from jmp_lib.graphs.padding import Bucket, in_edges, padded_to_fit
from jmp_lib.train.losses import Counts
from jmp_lib.train.processes import Processes
from jmp_lib.train.sampling import Sampler

GEOMETRY = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "id")
KEPT_MB = 2000  # graphs of a set that are kept in memory (10^6 bytes); the others are computed at every access
AHEAD = 2  # batches that every process that prepares data keeps ready
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


class LabelledGraphs(GraphCache):
    """A set of structures with geometry, graphs (kept up to ``KEPT_MB``), the normalised labels of ``normalisers``
    and, in pre-training, the index of the data set: structures of different sets fit in one batch."""

    def __init__(self, structures, normalisers: dict[str, Normaliser], config: GraphConfig,
                 dataset_index: int | None = None, edge_dropout: float = 0.0):
        super().__init__(structures, config, edge_dropout, max_mb=KEPT_MB)
        self.normalisers, self.dataset_index = normalisers, dataset_index

    def structure(self, index: int) -> dict:
        structure = self.structures.arrays(index)
        item = {key: structure[key] for key in GEOMETRY}
        for label, normaliser in self.normalisers.items():
            item[label] = normaliser.normalise(structure[label], item["atomic_numbers"])
        if self.dataset_index is not None:
            item["dataset_index"] = self.dataset_index
        return item


def quadruplet_shape(item: dict) -> Bucket:
    """What ``in_edges`` asks of a structure: counted, or where ``collate`` is still to cut its graphs from
    ``candidates``, every atom's edges up to the limit (made symmetric, they hardly become more, but the widest atom
    may get more)."""
    natoms, names = len(item["pos"]), ("main", "qint")
    if "graphs" in item:
        at_atoms = [np.bincount(item["graphs"][f"{name}_edge_index"][1], minlength=natoms) for name in names]
    else:
        (edge_index, *_), config = item["candidates"]
        found, limits = np.bincount(edge_index[1], minlength=natoms), config.limits(natoms)
        at_atoms = [np.minimum(found, limits[name]) for name in names]
    return {"atoms": natoms, **{name: int(count.sum()) for name, count in zip(names, at_atoms)},
            **{f"{name}_width": int(count.max()) or 1 for name, count in zip(names, at_atoms)}}


def parts_that_fit(shapes: Sequence[Bucket], most: int | None,
                   size: Callable[[Bucket], int] = in_edges) -> tuple[list[list[int]], list[int]]:
    """Places 0, 1, ... in consecutive parts of a size up to ``most``, and their sizes; a larger
    structure is a part alone.

    shapes: of the structures, one by one; in a part they add up, but for widths, of which the largest counts.
    """
    parts: list[list[int]] = []
    wholes: list[Bucket] = []
    for place, own in enumerate(shapes):
        if parts:
            joined = {key: max(n, own[key]) if key.endswith("width") else n + own[key] for key, n in wholes[-1].items()}
            if most is None or size(joined) <= most:
                parts[-1].append(place)
                wholes[-1] = joined
                continue
        parts.append([place])
        wholes.append(own)
    return parts, [size(whole) for whole in wholes]


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory, of a GPU or of the machine, is used up."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or \
        isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def give_back() -> None:
    """Memory that nothing refers to any more is free again, also on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Share:
    """What one process computes of one update: ``parts`` of the batch, one after the other."""

    parts: list[Batch]
    sizes: list[int]  # of every part (``in_edges``)
    names: list[list[str]]  # of the structures of every part
    counts: Counts  # of the whole batch
    max_edges: int | None  # with which the parts were cut
    # of every part: by which share it is dearer; None: not padded
    padding: list[float | None] = field(default_factory=list)

    def pin_memory(self) -> Share:
        """For copies to a GPU that run beside the computation."""
        self.parts = [part.pin_memory() for part in self.parts]
        return self


def balanced(sizes: Sequence[int], processes: int) -> list[list[int]]:
    """Places of a batch for every process: the largest first, always to the process with the least so far."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    load = [0] * processes
    for place in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        lightest = load.index(min(load))
        shares[lightest].append(place)
        load[lightest] += sizes[place]
    return [sorted(share) for share in shares]


class UpdateBatches(torch.utils.data.Dataset):
    """``batches[k]``: this process's share of the batch of update k, a function of (seed of the sampler, k) alone.

    Shares are balanced by atoms (edges follow them: the neighbour limit is the same), parts are cut by edges and
    quadruplets (``in_edges``).  Edge dropout draws from a generator seeded by (seed, k), or with ``draws`` "structure"
    by (seed, k, place in the batch).
    """

    def __init__(self, caches: Sequence[LabelledGraphs], sampler: Sampler, *, draws: str = "batch",
                 max_edges: int | None = None, rank: int = 0, processes: int = 1):
        self.caches, self.sampler, self.draws, self.rank, self.processes = list(caches), sampler, draws, rank, processes
        self.buckets: list[Bucket] = []  # to which parts are padded
        self._max_edges = torch.tensor([max_edges or 0]).share_memory_()  # seen by the processes that prepare ahead

    @property
    def max_edges(self) -> int | None:
        """Largest size of a part (``in_edges``); a change holds for batches that are prepared from now on."""
        return int(self._max_edges[0]) or None

    @max_edges.setter
    def max_edges(self, value: int | None) -> None:
        self._max_edges[0] = value or 0

    def __getitem__(self, step: int) -> Share:
        items, names, counts = self.items(step)
        max_edges = self.max_edges
        parts, sizes = parts_that_fit([quadruplet_shape(item) for item in items], max_edges)
        share = Share(parts=[collate([items[i] for i in part]) for part in parts], sizes=sizes,
                      names=[[names[i] for i in part] for part in parts], counts=counts, max_edges=max_edges)
        if self.buckets and parts:
            # memory is short
            small = [bucket for bucket in self.buckets if max_edges is None or in_edges(bucket) <= max_edges]
            share.parts, share.padding = map(list, zip(*(padded_to_fit(part, small) for part in share.parts)))
            for part, padding in zip(share.parts, share.padding):
                if padding is not None:
                    part["counts"] = torch.tensor(counts[:2])
        return share

    def items(self, step: int) -> tuple[list[dict], list[str], Counts]:
        """This process's structures of update ``step``, their names, and the counts of the whole batch."""
        pairs = self.sampler.batch(step)
        natoms = [int(self.caches[which].structures.natoms[index]) for which, index in pairs]
        own = set(balanced(natoms, self.processes)[self.rank])
        seed = [self.sampler.seed, 1, step]
        rng = np.random.default_rng(seed)
        items, names = [], []
        for place, (which, index) in enumerate(pairs):
            cache = self.caches[which]
            in_sequence = self.draws == "batch" and cache.edge_dropout  # others' draws come before ours
            if place not in own and not in_sequence:
                continue
            cache.rng = rng if self.draws == "batch" else np.random.default_rng([*seed, place])
            item = cache[index]
            if place in own:
                items.append(item)
                names.append(f"{cache.structures.name}[{item['id']}]")
        return items, names, Counts(len(pairs), sum(natoms))


def prepared(data, first: int, stop: int, workers: int, pin: bool) -> Iterator:
    """``data[first]``, ``data[first + 1]``, ... up to ``stop``, prepared ahead by ``workers`` processes (0: none).

    Batch k depends on k alone, so the number of workers changes nothing and a resumed run just starts at its k.
    Workers are spawned: they hold no copy of a GPU context, and open memory maps of their own.  Close the iterator to
    end them; they also end by themselves when this process is gone.
    """
    several = {}
    if workers and first < stop:
        _many_open_files()
        several = {"num_workers": workers, "prefetch_factor": AHEAD, "multiprocessing_context": "spawn",
                   "worker_init_fn": _start_worker}
    loader = DataLoader(_Sentences(data), batch_size=None, sampler=range(first, stop), pin_memory=pin,
                        generator=torch.Generator(), **several)  # nothing is drawn from torch's own
    for found in loader:
        if isinstance(found, Exception):
            raise found
        yield found


class _Sentences(torch.utils.data.Dataset):
    """``data`` with errors handed over as they are: a DataLoader would put a traceback in place of the sentence."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, step: int):
        try:
            return self.data[step]
        except Exception as error:
            error.add_note(traceback.format_exc())
            return error


def _start_worker(number: int) -> None:
    """One thread; the training process, not the signal, decides when a worker ends."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
    _many_open_files()


def _many_open_files() -> None:
    """Tensors travel between processes as open files: as many as the system lets a user have,
    but no more than 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class EvaluationSet:
    """A set in its own order, in batches of ``batch_size``; of a batch, ``most`` structures are computed at once."""

    def __init__(self, cache: GraphCache, batch_size: int, device: torch.device):
        self.cache, self.device = cache, device
        self.batches = [range(k, min(k + batch_size, len(cache))) for k in range(0, len(cache), batch_size)]
        self.most = batch_size  # becomes smaller where memory runs out


def predict(model: torch.nn.Module, batches: EvaluationSet, pick: Callable[[dict], dict[str, torch.Tensor]],
            gradients: bool, processes: Processes | None = None) -> dict[str, np.ndarray]:
    """Predictions of a whole set, in normalised units and in order: name -> (S,) or (ΣN,3), float64.

    pick: chooses arrays from the model's output.  gradients: the model differentiates with respect to
    positions (gradient forces), so automatic differentiation stays on.  processes: each takes every n-th batch,
    and all get all predictions.  A part that does not fit in memory is halved, for this and later calls.
    """
    rank, size = (processes.rank, processes.size) if processes else (0, 1)

    def outputs(rows: range) -> dict[str, np.ndarray]:
        found: list[dict[str, np.ndarray]] = []
        while rows:
            part = rows[:batches.most]
            try:
                batch = collate([batches.cache[row] for row in part]).to(batches.device)
                with torch.set_grad_enabled(gradients):
                    output = pick(model(batch))
                found.append({name: value.detach().double().cpu().numpy() for name, value in output.items()})
                rows = rows[len(part):]
                continue
            except Exception as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
            batches.most = len(part) // 2  # here the error is gone, and with it what it held in memory
            batch = output = None
            give_back()
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    own = {number: outputs(batches.batches[number]) for number in range(rank, len(batches.batches), size)}
    every = {number: found for part in (processes.gather(own) if processes else [own])
             for number, found in part.items()}
    return {name: np.concatenate([every[number][name] for number in sorted(every)]) for name in every[0]}
