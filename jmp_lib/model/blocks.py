"""Interaction block, output block and the backbone that they make up (sections 6 and 7 of the specification)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bases import Bases, EdgeEmbedding, Kernels
from .config import BackboneConfig
from .fast_grad import INV_SQRT_2, formed_again
from .interactions import (
    AtomEdgeInteraction,
    AtomInteraction,
    EdgeAtomInteraction,
    QuadrupletInteraction,
    TripletInteraction,
)
from .layers import INV_SQRT_3, Dense, Scale, apply_all, residuals, sum_at


def weigh(m: Tensor, rad: Tensor, dense: Dense) -> Tensor:
    """(E, M) edge rows ⊙ radial weights; the weights are formed again when needed."""
    return formed_again(lambda m, rad, weight: m * F.linear(rad, weight), m.numel(), m, rad, dense.linear.weight)


class AtomUpdate(nn.Module):
    """Edge embeddings, weighted by the radial basis, summed onto atoms."""

    def __init__(self, c: BackboneConfig):
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge)
        self.scale_sum = Scale()
        to_atoms = [] if c.emb_size_edge == c.emb_size_atom else [Dense(c.emb_size_edge, c.emb_size_atom, True)]
        self.layers = nn.ModuleList([*to_atoms, *residuals(c.num_atom, c.emb_size_atom)])

    def forward(self, m: Tensor, rad: Tensor, batch: dict, compensation: float = 1.0) -> Tensor:
        """``compensation``: 1/(1 − edge dropout) in training mode, else 1."""
        y = sum_at(batch["main_edge_index"][1], weigh(m, rad, self.dense_rbf), len(batch["batch"])) * compensation
        return apply_all(self.layers, self.scale_sum(y, reference=lambda: (m, None)))


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

    def forward(self, h: Tensor, m: Tensor, rad: Tensor, batch: dict,
                compensation: float) -> tuple[Tensor, Tensor | None]:
        y = super().forward(m, rad, batch, compensation)
        if len(self.seq_energy2):
            y = apply_all(self.seq_energy2, (y + h) * INV_SQRT_2)
        if not self.direct_forces:
            return y, None
        x = apply_all(self.seq_forces, m)
        return y, self.scale_rbf_F(weigh(x, rad, self.dense_rbf_F), reference=lambda: (x, None))


class OutputMLP(nn.Module):
    """Concatenated output blocks -> one embedding."""

    def __init__(self, width: int, num_inputs: int, num_layers: int):
        super().__init__()
        self.out_mlp = nn.Sequential(Dense(width * num_inputs, width, True), *residuals(num_layers, width))

    def forward(self, parts: list[Tensor]) -> Tensor:
        return apply_all(self.out_mlp, torch.cat(parts, dim=-1))


class Backbone(nn.Module):
    """B interaction blocks with an output block before the first and after each."""

    def __init__(self, config: BackboneConfig, edge_dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.edge_dropout = edge_dropout
        self.bases = Bases(config)
        self.int_blocks = nn.ModuleList(InteractionBlock(config) for _ in range(config.num_blocks))
        self.out_blocks = nn.ModuleList(OutputBlock(config) for _ in range(config.num_blocks + 1))
        num_inputs, num_layers = config.num_blocks + 1, config.num_global_out_layers
        self.out_mlp_E = OutputMLP(config.emb_size_atom, num_inputs, num_layers)
        if config.direct_forces:
            self.out_mlp_F = OutputMLP(config.emb_size_edge, num_inputs, num_layers)

    def forward(self, h: Tensor, batch: dict, pos: Tensor | None = None) -> dict:
        """-> h (N, A) final atom embedding, x_f (E, M) final edge embedding or None, u_main (E, 3) float64
        unit vectors of main.

        h: (N, A) atom embeddings h⁰. batch: from ``jmp_lib.graphs.collate``. pos: (N, 3) positions in Å to
        differentiate through; default ``batch["pos"]``.
        """
        pos = (batch["pos"] if pos is None else pos).double()
        g_main, u_main, kernels = self.bases(batch, pos)
        m = self.bases.edge_emb(h, g_main, batch["main_edge_index"])
        compensation = 1 / (1 - self.edge_dropout) if self.training else 1.0
        atoms, edges = [], []
        for k, out_block in enumerate(self.out_blocks):
            if k > 0:
                h, m = self.int_blocks[k - 1](h, m, kernels, batch)
            atom_part, edge_part = out_block(h, m, kernels.rad_out, batch, compensation)
            atoms.append(atom_part)
            edges.append(edge_part)
        x_f = self.out_mlp_F(edges) if self.config.direct_forces else None
        return {"h": self.out_mlp_E(atoms), "x_f": x_f, "u_main": u_main}
