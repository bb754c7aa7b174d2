"""Backbone plus heads: the pre-training model and the fine-tuning model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .bases import shared_gradient_divisors
from .config import BackboneConfig
from .heads import (
    DIRECT_FORCES,
    ENERGY,
    GRADIENT_FORCES,
    SPATIAL_EXTENT,
    HeadSpec,
    ScalarHead,
    SpatialExtentHead,
    head_mlp,
    reduce_atoms,
    sum_edge_forces,
)
from .recompute import only_positions

FORCE_SCALE = 256.0  # of gradient forces in mixed precision


def embed_atoms(table: nn.Embedding, atomic_numbers: Tensor) -> Tensor:
    """Row Z − 1 of the embedding table for every atom."""
    if int(atomic_numbers.min()) < 1 or int(atomic_numbers.max()) > table.num_embeddings:
        raise ValueError(f"atomic numbers must lie between 1 and {table.num_embeddings}")
    return table(atomic_numbers - 1)


class AtomEmbedding(nn.Module):
    def __init__(self, num_elements: int, width: int):
        super().__init__()
        self.atom_embedding = nn.Embedding(num_elements, width)


def position_gradient(energy: Tensor, pos: Tensor, create_graph: bool) -> Tensor:
    """Gradient (N, 3) of ``energy`` with respect to ``pos``.

    In mixed precision the energy is multiplied by 2^8 first and the gradient divided by it, so that small forces do not
    vanish in 16 bits; where that overflows, by half as much, and so on. In float32 a power of two would change nothing.
    The official code keeps the factor from batch to batch and doubles it after 2000 finite ones; here every batch starts
    at 2^8, so a resumed run needs no memory of it.
    """
    scale = FORCE_SCALE if torch.is_autocast_enabled(pos.device.type) else 1.0
    while True:
        with only_positions():
            scaled = torch.autograd.grad(energy * scale, pos, create_graph=create_graph, retain_graph=scale > 1 or create_graph)
        gradient = scaled[0] / scale if scale > 1 else scaled[0]
        if scale <= 1 or bool(torch.isfinite(gradient).all()):
            return gradient
        scale /= 2


def rows_of(task: int, mlp: nn.Module, x: Tensor, owner: Tensor | None) -> Tensor:
    """The head's scalar for every row of x whose owner is ``task``, zero for the others: (rows,)."""
    if owner is None:
        return mlp(x).squeeze(-1)
    rows = torch.nonzero(owner == task).squeeze(-1)
    values = mlp(x[rows]).squeeze(-1)
    return values.new_zeros(len(x)).index_copy(0, rows, values)


class PretrainHeads(nn.Module):
    """One energy and one direct-force head per pre-training data set."""

    def __init__(self, c: BackboneConfig, num_tasks: int):
        super().__init__()
        self.out_energy = nn.ModuleList(head_mlp(c.emb_size_atom) for _ in range(num_tasks))
        self.out_forces = nn.ModuleList(head_mlp(c.emb_size_edge) for _ in range(num_tasks))


class PretrainModel(nn.Module):
    """Joint pre-training: every head is evaluated on every structure, the loss picks its own.

    Outputs are in normalised units (per data set, ``jmp_lib.train.normalise``).
    """

    def __init__(self, config: BackboneConfig, num_tasks: int = 4, edge_dropout: float = 0.1):
        super().__init__()
        self.config = config
        self.embedding = AtomEmbedding(config.num_elements, config.emb_size_atom)
        self.backbone = Backbone(config, edge_dropout)
        self.output = PretrainHeads(config, num_tasks)

    def forward(self, batch: dict, pos: Tensor | None = None) -> dict[str, Tensor]:
        """-> energy (B, tasks), forces (N, 3, tasks), and the embeddings h (N, A), x_f (E, M).

        Where the batch says which data set a structure is from (``dataset_index`` (B,)), each head is
        evaluated on its own structures only and is zero elsewhere: the loss reads nothing else.
        """
        out = self.backbone(embed_atoms(self.embedding.atom_embedding, batch["atomic_numbers"]), batch, pos)
        h, x_f, index, count = out["h"], out["x_f"], batch["batch"], len(batch["natoms"])
        own_atoms = batch["dataset_index"][index] if "dataset_index" in batch else None
        energy = [reduce_atoms(rows_of(t, mlp, h, own_atoms), index, count, "sum")
                  for t, mlp in enumerate(self.output.out_energy)]  # fmt: skip
        result = {"energy": torch.stack(energy, -1), "h": h, "x_f": x_f}
        if x_f is not None:
            own_edges = None if own_atoms is None else own_atoms[batch["main_edge_index"][1]]
            forces = [sum_edge_forces(rows_of(t, mlp, x_f, own_edges), out["u_main"], batch)
                      for t, mlp in enumerate(self.output.out_forces)]  # fmt: skip
            result["forces"] = torch.stack(forces, -1)
        return result

    def embed(self, batch: dict) -> Tensor:
        """(N, A) final node embeddings."""
        return self.backbone(embed_atoms(self.embedding.atom_embedding, batch["atomic_numbers"]), batch)["h"]

    def gradient_divisors(self) -> dict[str, int]:
        return shared_gradient_divisors(self.config.num_blocks)


class NamedHeads(nn.Module):
    """Heads under the published names ``<group>._module_dict.ft_mlp_<target>``."""

    def __init__(self):
        super().__init__()
        self._module_dict = nn.ModuleDict()

    def add(self, target: str, head: nn.Module) -> None:
        self._module_dict[f"ft_mlp_{target}"] = head

    def __getitem__(self, target: str) -> nn.Module:
        return self._module_dict[f"ft_mlp_{target}"]


class FinetuneModel(nn.Module):
    """Backbone with new heads. The force branch exists only if a head uses it."""

    def __init__(self, config: BackboneConfig, heads: list[HeadSpec]):
        super().__init__()
        self.specs = list(heads)
        kinds = {spec.kind for spec in heads}
        if GRADIENT_FORCES in kinds and ENERGY not in kinds:
            raise ValueError("gradient forces need an energy head: they are its derivative")
        direct = DIRECT_FORCES in kinds
        self.config = config if config.direct_forces == direct else BackboneConfig(
            **{**config.to_dict(), "direct_forces": direct})  # fmt: skip
        self.gradient_forces = GRADIENT_FORCES in kinds
        self.embedding = nn.Embedding(config.num_elements, config.emb_size_atom)
        self.backbone = Backbone(self.config)
        self.graph_outputs = NamedHeads()
        for spec in heads:
            if spec.kind == ENERGY:
                self.out_energy = head_mlp(config.emb_size_atom, bias=False)
            elif spec.kind == DIRECT_FORCES:
                self.out_forces = head_mlp(config.emb_size_edge)
            elif spec.kind == SPATIAL_EXTENT:
                self.graph_outputs.add(spec.name, SpatialExtentHead(config.emb_size_atom))
            elif spec.kind != GRADIENT_FORCES:
                self.graph_outputs.add(spec.name, ScalarHead(config.emb_size_atom, spec.reduction))

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
        out = self.backbone(embed_atoms(self.embedding, batch["atomic_numbers"]), batch, pos)
        result = {}
        for spec in self.specs:
            if spec.kind == ENERGY:
                per_atom = self.out_energy(out["h"]).squeeze(-1)
                result["energy"] = reduce_atoms(per_atom, batch["batch"], len(batch["natoms"]), "sum")
            elif spec.kind == DIRECT_FORCES:
                result["forces"] = sum_edge_forces(self.out_forces(out["x_f"]).squeeze(-1), out["u_main"], batch)
            elif spec.kind != GRADIENT_FORCES:
                result[spec.name] = self.graph_outputs[spec.name](out["h"], batch)
        return result

    def embed(self, batch: dict) -> Tensor:
        """(N, A) final node embeddings."""
        return self.backbone(embed_atoms(self.embedding, batch["atomic_numbers"]), batch)["h"]

    def gradient_divisors(self) -> dict[str, int]:
        return shared_gradient_divisors(self.config.num_blocks)


def load_backbone(model: FinetuneModel, state: dict[str, Tensor]) -> None:
    """Copy embedding and backbone of a pre-training ``state`` into ``model``; heads stay as they are.

    Raises:
        ValueError: a tensor of the backbone is missing or has another shape.
    """
    renamed = {}
    for name, value in state.items():
        if name == "embedding.atom_embedding.weight":
            renamed["embedding.weight"] = value
        elif name.startswith("backbone."):
            renamed[name] = value
    own = {k: v for k, v in model.state_dict().items() if k.startswith(("embedding.", "backbone."))}
    for name, value in own.items():
        if name not in renamed:
            raise ValueError(f"pre-trained weights lack {name!r}: they belong to another backbone")
        if renamed[name].shape != value.shape:
            raise ValueError(
                f"pre-trained {name!r} has shape {tuple(renamed[name].shape)}, the model needs {tuple(value.shape)}"
            )
    model.load_state_dict({k: renamed[k] for k in own}, strict=False)
