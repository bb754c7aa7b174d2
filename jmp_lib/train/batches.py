"""From sets of structures to batches on a device, and from a model to predictions."""

from __future__ import annotations

from typing import Callable, Iterator, Sequence

import numpy as np
import torch

from jmp_lib.graphs import GraphCache, GraphConfig, collate
from jmp_lib.train.normalise import Normaliser
from jmp_lib.train.sampling import Sampler

GEOMETRY = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "id")
KEPT_BATCHES = 64  # an evaluation set of at most so many batches is collated once and kept


def choose_device(name: str) -> torch.device:
    """auto: the GPU when there is one.  Raises ``ValueError`` for cuda without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda but torch sees no GPU: write device: auto or cpu in the profile")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def to_device(batch: dict, device: torch.device) -> dict:
    """``batch`` with its tensors on ``device``."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


class Labelled:
    """A set of structures with normalised labels and, in pre-training, the index of the data set.

    Only geometry and the labels in ``normalisers`` are kept, so structures of different sets fit in one batch.
    """

    def __init__(self, structures, normalisers: dict[str, Normaliser], dataset_index: int | None = None):
        self.structures, self.normalisers, self.dataset_index = structures, normalisers, dataset_index

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> dict:
        structure = self.structures[index]
        item = {key: structure[key] for key in GEOMETRY}
        for label, normaliser in self.normalisers.items():
            item[label] = normaliser.normalise(structure[label], structure["atomic_numbers"])
        if self.dataset_index is not None:
            item["dataset_index"] = self.dataset_index
        return item


def graph_cache(structures, normalisers: dict[str, Normaliser], config: GraphConfig, *,
                dataset_index: int | None = None, edge_dropout: float = 0.0) -> GraphCache:
    """Structures with normalised labels and graphs, the graphs computed when first asked for."""
    return GraphCache(Labelled(structures, normalisers, dataset_index), config, edge_dropout=edge_dropout)


def batch_maker(caches: Sequence[GraphCache], names: Sequence[str], sampler: Sampler, seed: int,
                device: torch.device) -> Callable[[int], tuple[dict, list[str]]]:
    """Function from update number to (batch on the device, names of its structures).

    Edge dropout draws from a generator seeded by (seed, update number), so a resumed run drops the same edges.
    """

    def make(step: int) -> tuple[dict, list[str]]:
        pairs = sampler.batch(step)
        rng = np.random.default_rng([seed, 1, step])
        items = []
        for which, index in pairs:
            caches[which].rng = rng
            items.append(caches[which][index])
        labels = [f"{names[which]}[{item['id']}]" for (which, _), item in zip(pairs, items)]
        return to_device(collate(items), device), labels

    return make


class EvaluationSet:
    """A set in its own order, in batches; small sets are collated once."""

    def __init__(self, cache: GraphCache, batch_size: int, device: torch.device):
        self.cache, self.batch_size, self.device = cache, batch_size, device
        self._kept: list[dict] = []

    def __len__(self) -> int:
        return -(-len(self.cache) // self.batch_size)

    def __iter__(self) -> Iterator[dict]:
        for number in range(len(self)):
            if number < len(self._kept):
                yield self._kept[number]
                continue
            rows = range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.cache)))
            batch = to_device(collate([self.cache[row] for row in rows]), self.device)
            if len(self) <= KEPT_BATCHES:
                self._kept.append(batch)
            yield batch


def predict(model: torch.nn.Module, batches: EvaluationSet, pick: Callable[[dict], dict[str, torch.Tensor]],
            gradients: bool) -> dict[str, np.ndarray]:
    """Predictions of a whole set, in normalised units and in order: name -> (S,) or (ΣN,3), float64.

    pick: chooses arrays from the model's output.  gradients: the model differentiates with respect to
    positions (gradient forces), so automatic differentiation stays on.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        with torch.set_grad_enabled(gradients):
            output = pick(model(batch))
        for name, value in output.items():
            parts.setdefault(name, []).append(value.detach().double().cpu().numpy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def split_atoms(values: np.ndarray, structures) -> list[np.ndarray]:
    """(ΣN,3) -> one (N,3) array per structure of the set."""
    ends = np.cumsum([len(structures[i]["pos"]) for i in range(len(structures))])
    return np.split(values, ends[:-1])
