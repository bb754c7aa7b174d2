"""Interaction block, atom update and output block (sections 6 and 7 of the specification)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .bases import EdgeEmbedding, Kernels
from .config import BackboneConfig
from .interactions import (
    AtomEdgeInteraction,
    AtomInteraction,
    EdgeAtomInteraction,
    QuadrupletInteraction,
    TripletInteraction,
)
from .layers import INV_SQRT_2, INV_SQRT_3, Dense, Scale, sum_at
from .recompute import formed_again
from .residual import Residual, apply_all, residuals


def atom_layers(c: BackboneConfig) -> nn.ModuleList:
    """Edge width to atom width (absent if they are equal), then ``num_atom`` residuals."""
    first = [] if c.emb_size_edge == c.emb_size_atom else [Dense(c.emb_size_edge, c.emb_size_atom, True)]
    return nn.ModuleList([*first, *(Residual(c.emb_size_atom) for _ in range(c.num_atom))])


def _weigh(m: Tensor, rad: Tensor, weight: Tensor) -> Tensor:
    return m * F.linear(rad, weight)


class AtomUpdate(nn.Module):
    """Edge embeddings, weighted by the radial basis, summed onto atoms."""

    def __init__(self, c: BackboneConfig):
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge)
        self.scale_sum = Scale()
        self.layers = atom_layers(c)

    def edge_sum(self, m: Tensor, rad: Tensor, batch: dict, compensation: float = 1.0) -> Tensor:
        y = sum_at(batch["main_edge_index"][1], self.weigh(m, rad, self.dense_rbf), len(batch["batch"])) * compensation
        return apply_all(self.layers, self.scale_sum(y, reference=lambda: (m, None)))

    def weigh(self, m: Tensor, rad: Tensor, dense: Dense) -> Tensor:
        """(E, M) edge rows ⊙ radial weights; the weights are formed again when needed."""
        return formed_again(_weigh, m.numel(), m, rad, dense.linear.weight)

    def forward(self, m: Tensor, rad: Tensor, batch: dict) -> Tensor:
        return self.edge_sum(m, rad, batch)


class InteractionBlock(nn.Module):
    """h (N, A), m (E, M) -> updated h, m. All interactions read the incoming h and m."""

    def __init__(self, c: BackboneConfig):
        super().__init__()
        self.dense_ca = Dense(c.emb_size_edge, c.emb_size_edge, True)
        self.trip_interaction = TripletInteraction(c)
        self.quad_interaction = QuadrupletInteraction(c)
        self.atom_edge_interaction = AtomEdgeInteraction(c)
        self.edge_atom_interaction = EdgeAtomInteraction(c)
        self.atom_interaction = AtomInteraction(c)
        self.layers_before_skip = residuals(c.num_before_skip, c.emb_size_edge)
        self.layers_after_skip = residuals(c.num_after_skip, c.emb_size_edge)
        self.atom_emb_layers = residuals(c.num_atom_emb_layers, c.emb_size_atom)
        self.atom_update = AtomUpdate(c)
        self.concat_layer = EdgeEmbedding(c.emb_size_atom, c.emb_size_edge, c.emb_size_edge)
        self.residual_m = residuals(c.num_concat, c.emb_size_edge)

    def forward(self, h: Tensor, m: Tensor, kernels: Kernels, batch: dict) -> tuple[Tensor, Tensor]:
        x = self.dense_ca(m)
        x = x + self.trip_interaction(m, kernels, batch)
        x = x + self.quad_interaction(m, kernels, batch)
        x = (x + self.atom_edge_interaction(h, kernels, batch)) * 0.5
        h_edges = self.edge_atom_interaction(m, kernels, batch)
        h_atoms = self.atom_interaction(h, kernels, batch)
        h = (h + h_edges + h_atoms) * INV_SQRT_3

        x = apply_all(self.layers_before_skip, x)
        m = (m + x) * INV_SQRT_2
        m = apply_all(self.layers_after_skip, m)
        h = apply_all(self.atom_emb_layers, h)
        h = (h + self.atom_update(m, kernels.rad_h, batch)) * INV_SQRT_2
        m_new = apply_all(self.residual_m, self.concat_layer(h, m, batch["main_edge_index"]))
        return h, (m + m_new) * INV_SQRT_2


class OutputBlock(AtomUpdate):
    """One contribution to the final atom embedding and, with a force branch, edge embedding."""

    def __init__(self, c: BackboneConfig):
        super().__init__(c)
        self.seq_energy_pre = self.layers  # a second name in the published state dict
        self.seq_energy2 = residuals(c.num_output_afteratom, c.emb_size_atom)
        self.direct_forces = c.direct_forces
        if c.direct_forces:
            self.scale_rbf_F = Scale()
            self.seq_forces = residuals(c.num_atom, c.emb_size_edge)
            self.dense_rbf_F = Dense(c.emb_size_rbf, c.emb_size_edge)

    def forward(
        self, h: Tensor, m: Tensor, rad: Tensor, batch: dict, compensation: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """``compensation``: 1/(1 − edge dropout) in training mode, else 1."""
        y = self.edge_sum(m, rad, batch, compensation)
        if len(self.seq_energy2):
            y = apply_all(self.seq_energy2, (y + h) * INV_SQRT_2)
        if not self.direct_forces:
            return y, None
        x = apply_all(self.seq_forces, m)
        return y, self.scale_rbf_F(self.weigh(x, rad, self.dense_rbf_F), reference=lambda: (x, None))
