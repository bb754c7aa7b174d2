"""Backbone plus heads: the pre-training model and the fine-tuning model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .blocks import Backbone
from .config import BackboneConfig
from .fast_grad import autocast_type, low_weights, only_positions
from .heads import HeadSpec, ScalarHead, SpatialExtentHead, head_mlp, reduce_atoms, sum_edge_forces

FORCE_SCALE = 256.0  # of gradient forces in mixed precision


def with_low_weights(forward: Callable) -> Callable:
    """Under autocast, ``forward`` of a network with all its weights in 16 bits, converted together; the embedding of
    elements, which enters no product, stays as it is."""

    @functools.wraps(forward)
    def run(self: Network, *args, **named):
        weight = next(self.backbone.parameters())
        low = autocast_type(weight)
        if low == weight.dtype:
            return forward(self, *args, **named)
        weights = {name: p for name, p in self.named_parameters() if not name.startswith("embedding.")}
        weights = dict(zip(weights, low_weights(low, *weights.values())))
        # no tied weights: a module with two names must be exchanged once
        return functional_call(self, weights, args, named, tie_weights=False)

    return run


class Network(nn.Module):
    """What both models share: an embedding of elements and a backbone. The names of all weights
    are the published ones."""

    def run_backbone(self, batch: dict, pos: Tensor | None = None) -> dict:
        """What ``Backbone`` gives, starting from row Z − 1 of the embedding for every atom."""
        table = getattr(self.embedding, "atom_embedding", self.embedding)
        return self.backbone(table(batch["atomic_numbers"] - 1), batch, pos)

    def embed(self, batch: dict) -> Tensor:
        """(N, A) final node embeddings."""
        return self.run_backbone(batch)["h"]

    def gradient_divisors(self) -> dict[str, int]:
        """How often each shared projection is used: by all blocks, that of the output also before the first; its
        gradient is divided by that (section 9)."""
        return {f"backbone.bases.{name}": self.config.num_blocks + name.startswith("mlp_rbf_out.")
                for name, _ in self.backbone.bases.named_parameters() if not name.startswith("edge_emb.")}


def position_gradient(energy: Tensor, pos: Tensor, create_graph: bool) -> Tensor:
    """Gradient (N, 3) of ``energy`` with respect to ``pos``.

    In float16 the energy is multiplied by 2^8 first and the gradient divided by it, so that small forces do not vanish;
    where that overflows, by half as much, and so on, which the host must ask for. In float32, and in bfloat16 with the
    same range of exponents, a power of two would change nothing. The official code keeps the factor from
    batch to batch and doubles it after 2000 finite ones; here every batch starts at 2^8, so a resumed run
    needs no memory of it.
    """
    kind = pos.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    scale = FORCE_SCALE if half else 1.0
    while True:
        with only_positions():
            scaled = torch.autograd.grad(energy * scale, pos, create_graph=create_graph,
                                         retain_graph=scale > 1 or create_graph)
        gradient = scaled[0] / scale if scale > 1 else scaled[0]
        if scale <= 1 or bool(torch.isfinite(gradient).all()):
            return gradient
        scale /= 2


def of_each_head(heads: nn.ModuleList, x: Tensor, batch: dict, key: str) -> Iterator[Tensor]:
    """Every head's scalar (rows,) for the rows of x that are its own by ``batch[key]``, zero for the others; for all
    rows where the batch does not say whose they are."""
    if key not in batch:
        yield from (head(x).squeeze(-1) for head in heads)
        return
    sets = batch[key].split(batch[f"{key}_counts"])
    for task, head in enumerate(heads):
        rows = sets[task] if task < len(sets) else sets[0][:0]
        values = head(x.index_select(0, rows)).squeeze(-1)
        yield values.new_zeros(len(x)).index_copy_(0, rows, values)


class PretrainModel(Network):
    """Joint pre-training: an energy and a direct-force head per data set; the loss picks those of each structure.

    Outputs are in normalised units (per data set, ``jmp_lib.data.normalise``).
    """

    def __init__(self, config: BackboneConfig, num_tasks: int = 4, edge_dropout: float = 0.1):
        super().__init__()
        self.config = config
        self.embedding = nn.ModuleDict({"atom_embedding": nn.Embedding(config.num_elements, config.emb_size_atom)})
        self.backbone = Backbone(config, edge_dropout)
        widths = {"out_energy": config.emb_size_atom, "out_forces": config.emb_size_edge}
        self.output = nn.ModuleDict({name: nn.ModuleList(head_mlp(width) for _ in range(num_tasks))
                                     for name, width in widths.items()})  # fmt: skip

    @with_low_weights
    def forward(self, batch: dict, pos: Tensor | None = None) -> dict[str, Tensor]:
        """-> energy (B, tasks), forces (N, 3, tasks), and the embeddings h (N, A), x_f (E, M).

        Where the batch was collated with the data set of each structure (``atoms_by_set``), each head is
        evaluated on its own structures only and is zero elsewhere: the loss reads nothing else.
        """
        out = self.run_backbone(batch, pos)
        h, x_f, index, count = out["h"], out["x_f"], batch["batch"], len(batch["natoms"])
        energy = [reduce_atoms(per_atom, index, count, "sum")
                  for per_atom in of_each_head(self.output.out_energy, h, batch, "atoms_by_set")]  # fmt: skip
        result = {"energy": torch.stack(energy, -1), "h": h, "x_f": x_f}
        if x_f is not None:
            forces = [sum_edge_forces(per_edge, out["u_main"], batch)
                      for per_edge in of_each_head(self.output.out_forces, x_f, batch, "edges_by_set")]  # fmt: skip
            result["forces"] = torch.stack(forces, -1)
        return result


class FinetuneModel(Network):
    """Backbone with new heads. The force branch exists only if a head uses it."""

    def __init__(self, config: BackboneConfig, heads: list[HeadSpec]):
        super().__init__()
        self.specs = list(heads)
        kinds = {spec.kind for spec in heads}
        if "gradient_forces" in kinds and "energy" not in kinds:
            raise ValueError("gradient forces need an energy head: they are its derivative")
        direct = "direct_forces" in kinds
        self.config = replace(config, direct_forces=direct)
        self.gradient_forces = "gradient_forces" in kinds
        self.embedding = nn.Embedding(config.num_elements, config.emb_size_atom)
        self.backbone = Backbone(self.config)
        named = nn.ModuleDict()
        self.graph_outputs = nn.ModuleDict({"_module_dict": named})
        for spec in heads:
            if spec.kind == "energy":
                self.out_energy = head_mlp(config.emb_size_atom, bias=False)
            elif spec.kind == "direct_forces":
                self.out_forces = head_mlp(config.emb_size_edge)
            elif spec.kind == "spatial_extent":
                named[f"ft_mlp_{spec.name}"] = SpatialExtentHead(config.emb_size_atom)
            elif spec.kind != "gradient_forces":
                named[f"ft_mlp_{spec.name}"] = ScalarHead(config.emb_size_atom, spec.reduction)

    @with_low_weights
    def forward(self, batch: dict) -> dict[str, Tensor]:
        """-> one (B,) tensor per scalar target, forces (N, 3); normalised units."""
        if not self.gradient_forces:
            return self._outputs(batch, batch["pos"])
        with torch.enable_grad():
            pos = batch["pos"].detach().clone().requires_grad_()
            result = self._outputs(batch, pos)
            gradient = position_gradient(result["energy"].sum(), pos, self.training)
        if not self.training:
            result = {name: value.detach() for name, value in result.items()}
        return {**result, "forces": -gradient}

    def _outputs(self, batch: dict, pos: Tensor) -> dict[str, Tensor]:
        out = self.run_backbone(batch, pos)
        result = {}
        for spec in self.specs:
            if spec.kind == "energy":
                per_atom = self.out_energy(out["h"]).squeeze(-1)
                result["energy"] = reduce_atoms(per_atom, batch["batch"], len(batch["natoms"]), "sum")
            elif spec.kind == "direct_forces":
                result["forces"] = sum_edge_forces(self.out_forces(out["x_f"]).squeeze(-1), out["u_main"], batch)
            elif spec.kind != "gradient_forces":
                result[spec.name] = self.graph_outputs["_module_dict"][f"ft_mlp_{spec.name}"](out["h"], batch)
        return result


def load_backbone(model: FinetuneModel, state: dict[str, Tensor]) -> None:
    """Copy embedding and backbone of a pre-training ``state`` into ``model``; heads stay as they are.

    ``ValueError``: a tensor of the backbone is missing or has another shape.
    """
    state = {name.replace("embedding.atom_embedding.", "embedding."): value for name, value in state.items()}
    own = {k: v for k, v in model.state_dict().items() if k.startswith(("embedding.", "backbone."))}
    for name, value in own.items():
        if name not in state:
            raise ValueError(f"pre-trained weights lack {name!r}: they belong to another backbone")
        if state[name].shape != value.shape:
            raise ValueError(f"pre-trained {name!r} has shape {tuple(state[name].shape)}, "
                             f"the model needs {tuple(value.shape)}")
    model.load_state_dict({k: state[k] for k in own}, strict=False)
