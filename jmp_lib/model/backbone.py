"""GemNet-OC backbone: atoms and graphs in, atom and edge embeddings out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bases import Bases
from .blocks import InteractionBlock, OutputBlock
from .config import BackboneConfig
from .layers import Dense
from .residual import apply_all, residuals


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

    def forward(self, h: Tensor, batch: dict, pos: Tensor | None = None, trace: list | None = None) -> dict:
        """
        Args:
            h: (N, A) atom embeddings h⁰. batch: from ``jmp_lib.graphs.collate``.
            pos: (N, 3) positions in Å to differentiate through; default ``batch["pos"]``.
            trace: a list that receives m⁰ and then (h, m) of every block.

        Returns:
            h (N, A) final atom embedding, x_f (E, M) final edge embedding or None, and u_main (E, 3)
            float64 unit vectors of the main graph.
        """
        pos = (batch["pos"] if pos is None else pos).double()
        g_main, u_main, kernels = self.bases(batch, pos)
        m = self.bases.edge_emb(h, g_main, batch["main_edge_index"])
        compensation = 1 / (1 - self.edge_dropout) if self.training else 1.0
        if trace is not None:
            trace.append(m)
        atoms, edges = [], []
        for k, out_block in enumerate(self.out_blocks):
            if k > 0:
                h, m = self.int_blocks[k - 1](h, m, kernels, batch)
                if trace is not None:
                    trace.append((h, m))
            atom_part, edge_part = out_block(h, m, kernels.rad_out, batch, compensation)
            atoms.append(atom_part)
            edges.append(edge_part)
        x_f = self.out_mlp_F(edges) if self.config.direct_forces else None
        return {"h": self.out_mlp_E(atoms), "x_f": x_f, "u_main": u_main}
