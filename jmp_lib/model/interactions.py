"""The five interactions of GemNet-OC (section 6 of the specification).

    trip_interaction       e2e   edges that meet at an atom
    quad_interaction             chains c -> a <- b <- d
    atom_edge_interaction  a2e   atoms onto edges
    edge_atom_interaction  e2a   edges onto atoms
    atom_interaction       a2a   atoms onto atoms

Each projects its input down, sums over members with the kernels of ``bases.Kernels``, and projects
up. Z is flattened with the basis index slow and the channel fast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bases import Kernels
from .config import BackboneConfig
from .fast_grad import INV_SQRT_2, SILU, formed_again, fused, kernels_for, scaled_silu
from .geometry import pad
from .layers import Dense, Scale, take


class Bilinear(nn.Module):
    """Holds the map of the flattened sum Z (rows, basis·channels) to the output width."""

    def __init__(self, basis: int, channels: int, out_features: int):
        super().__init__()
        self.bilinear = Dense(basis * channels, out_features)

    @property
    def weight(self) -> Tensor:
        """(out, basis·channels)"""
        return self.bilinear.linear.weight


class Member(nn.Module):
    """What triplet-like interactions share: input before the sum, symmetric lift after it.

    Subclasses add ``down_projection`` and the up-projections (their order is that of the published state dict).
    """

    def __init__(self, dense: str, width: int, emb_size_rbf: int):
        super().__init__()
        self._dense = dense
        setattr(self, dense, Dense(width, width, True))
        self.mlp_rbf = Dense(emb_size_rbf, width)
        self.scale_rbf = Scale()

    def project(self, x: Tensor, rad: Tensor, gather: Tensor | None = None) -> Tensor:
        """σ(W x), at the edges ``gather`` if given, ⊙ radial weights, scaled, projected down; kept is W x."""
        x = getattr(self, self._dense).linear(x)
        weights = (self.mlp_rbf.linear.weight, self.down_projection.linear.weight)
        indices = () if gather is None else (gather,)
        return formed_again(self._weigh, len(rad) * x.shape[1], x, rad, *weights, *indices)

    def _weigh(self, x: Tensor, rad: Tensor, radial: Tensor, down: Tensor, gather: Tensor | None = None) -> Tensor:
        kernels = kernels_for(x)
        if kernels and self.scale_rbf.observer is None:
            x = x if gather is None else take(x, gather)
            product = fused(kernels.Gate, SILU * self.scale_rbf.factor, x, F.linear(rad, radial))
            return scaled_silu(F.linear(product, down))
        x = scaled_silu(x, 1.0)
        x = x if gather is None else take(x, gather)
        product = x * F.linear(rad, radial * (SILU * self.scale_rbf.factor))  # constants go where the numbers are few
        product = self.scale_rbf(product, reference=lambda: (x * SILU, None), folded=True)
        return scaled_silu(F.linear(product, down))

    def sum_members(self, kernel: Tensor, x: Tensor, slot: Tensor) -> Tensor:
        """Z = K x summed over the members of every slot, and its map to the output width; kept are K and x."""
        weight = self.mlp_cbf.weight
        return formed_again(_bilinear, kernel.shape[0] * kernel.shape[1] * x.shape[1], kernel, x, weight, slot)

    def lift(self, z: Tensor, reverse: Tensor) -> Tensor:
        """Symmetric up-projection: (σ(U_ca z)[e] + σ(U_ac z)[rev(e)])/√2; kept is z."""
        weights = (self.up_projection_ca.linear.weight, self.up_projection_ac.linear.weight)
        return formed_again(_symmetric, len(z) * len(weights[0]), z, *weights, reverse)


def _bilinear(kernel: Tensor, x: Tensor, weight: Tensor, slot: Tensor) -> Tensor:
    """kernel (n, rows·basis, width), x (members, C) at ``slot`` of the (n·width) table -> (n·rows, out)."""
    n, _, width = kernel.shape
    z = kernel @ pad(x, slot, n * width).view(n, width, -1)
    return F.linear(z.view(-1, weight.shape[1]), weight)


def _symmetric(z: Tensor, ca: Tensor, ac: Tensor, reverse: Tensor) -> Tensor:
    kernels = kernels_for(z)
    if kernels:
        return fused(kernels.Lift, INV_SQRT_2 * SILU, F.linear(z, torch.cat([ca, ac])), reverse)
    both = scaled_silu(F.linear(z, ca), 1.0) + scaled_silu(F.linear(z.index_select(0, reverse), ac), 1.0)
    return both * (INV_SQRT_2 * SILU)


def _inner(x: Tensor, angle: Tensor, weight: Tensor, source: Tensor) -> Tensor:
    """Inner edges d -> b of every middle bond b -> a, weighted by their angle: (E_q, dm, Qi)."""
    return take(x, source) * F.linear(angle, weight)


def _outer(q_out: Tensor, table: Tensor, q_same: Tensor, same: Tensor, weight: Tensor) -> Tensor:
    """Channels on the middle bonds onto the outer edges, the inner edge c = d taken out, and the bilinear map."""
    z = q_out @ table  # (n, dm·Es, Qi)
    z = torch.baddbmm(z.view(len(q_same), -1, z.shape[-1]), q_same, same, alpha=-1)
    return F.linear(z.flatten(1), weight)


class Triplets(Member):
    """Parts of the three interactions by triplets, from rows of ``width`` onto edges or, without ``ac``, onto atoms."""

    def __init__(self, c: BackboneConfig, width: int, ac: bool = True):
        super().__init__("dense_ba", width, c.emb_size_rbf)
        out = c.emb_size_edge if ac else c.emb_size_atom
        self.mlp_cbf = Bilinear(c.emb_size_cbf, c.emb_size_trip_in, c.emb_size_trip_out)
        self.scale_cbf_sum = Scale()
        self.down_projection = Dense(width, c.emb_size_trip_in, True)
        self.up_projection_ca = Dense(c.emb_size_trip_out, out, True)
        if ac:
            self.up_projection_ac = Dense(c.emb_size_trip_out, out, True)


class TripletInteraction(Triplets):
    """e2e: edges b -> a onto edges c -> a."""

    def __init__(self, c: BackboneConfig):
        super().__init__(c, c.emb_size_edge)

    def forward(self, m: Tensor, kernels: Kernels, batch: dict) -> Tensor:
        x = self.project(m, kernels.rad_e2e)
        z = self.sum_members(kernels.e2e, x, batch["main_slot"]).index_select(0, batch["main_slot"])
        z = self.scale_cbf_sum(z, reference=lambda: (x, degree(batch, "main") - 1))
        return self.lift(z, batch["main_reverse"])


class AtomEdgeInteraction(Triplets):
    """a2e: source atoms of the a2ee2a edges onto edges c -> a."""

    def __init__(self, c: BackboneConfig):
        super().__init__(c, c.emb_size_atom)

    def forward(self, h: Tensor, kernels: Kernels, batch: dict) -> Tensor:
        x = self.project(h, kernels.rad_a2e, gather=batch["a2ee2a_edge_index"][0])
        z = self.sum_members(kernels.a2e, x, batch["a2ee2a_slot"]).index_select(0, batch["main_slot"])
        z = self.scale_cbf_sum(z, reference=lambda: (x, partners_of_a2ee2a(batch)))
        return self.lift(z, batch["main_reverse"])


class EdgeAtomInteraction(Triplets):
    """e2a: edges b -> a onto atom a, through the directions of its a2ee2a edges."""

    def __init__(self, c: BackboneConfig):
        super().__init__(c, c.emb_size_edge, ac=False)

    def forward(self, m: Tensor, kernels: Kernels, batch: dict) -> Tensor:
        x = self.project(m, kernels.rad_e2a)
        z = self.sum_members(kernels.e2a, x, batch["main_slot"])
        z = self.scale_cbf_sum(z, reference=lambda: (x, partners_of_main(batch)))
        return self.up_projection_ca(z)


class QuadrupletInteraction(Member):
    """Edges d -> b through b -> a onto c -> a, summed in 2L azimuth channels on b -> a."""

    def __init__(self, c: BackboneConfig):
        super().__init__("dense_db", c.emb_size_edge, c.emb_size_rbf)
        self.mlp_cbf = Dense(c.emb_size_cbf, c.emb_size_quad_in)
        self.scale_cbf = Scale()
        self.mlp_sbf = Bilinear(c.emb_size_sbf, c.emb_size_quad_in, c.emb_size_quad_out)
        self.scale_sbf_sum = Scale()
        self.down_projection = Dense(c.emb_size_edge, c.emb_size_quad_in, True)
        self.up_projection_ca = Dense(c.emb_size_quad_out, c.emb_size_edge, True)
        self.up_projection_ac = Dense(c.emb_size_quad_out, c.emb_size_edge, True)

    def forward(self, m: Tensor, kernels: Kernels, batch: dict) -> Tensor:
        x = self.project(m, kernels.rad_quad)
        n, dm, dq = len(batch["batch"]), batch["main_width"], batch["qint_width"]
        x = pad(x, batch["main_slot"], n * dm).view(n, dm, -1)
        source, weight = batch["qint_edge_index"][0], self.mlp_cbf.linear.weight
        y = formed_again(_inner, len(source) * dm * x.shape[2], x, kernels.q_in_cbf, weight, source)
        members = lambda: (x.index_select(0, source), q_in_members(batch), q_in_members(batch))  # noqa: E731
        y = self.scale_cbf(y, reference=members)  # (E_q, dm, Qi)
        on_p = kernels.q_in_azimuth @ y  # (E_q, 2L, Qi): inner edges summed onto the middle bond
        channels = on_p.shape[1]
        table = pad(on_p, batch["qint_slot"], n * dq).view(n, dq, channels, -1).transpose(1, 2)
        same = torch.cat([y.flatten(0, 1), y.new_zeros(1, y.shape[-1])]).index_select(0, kernels.q_same_in.flatten())
        weight = self.mlp_sbf.weight
        z = formed_again(_outer, n * dm * weight.shape[1], kernels.q_out, table.reshape(n, channels * dq, -1),
                         kernels.q_same, same.view(n * dm, dq, -1), weight)  # fmt: skip
        z = z.index_select(0, batch["main_slot"])
        z = self.scale_sbf_sum(z, reference=lambda: (y.flatten(0, 1), quadruplets_of_q_in(batch)))
        return self.lift(z, batch["main_reverse"])


class AtomInteraction(nn.Module):
    """a2a: every atom within the cutoff onto the target atom, by distance alone."""

    def __init__(self, c: BackboneConfig):
        super().__init__()
        self.bilinear = Dense(c.emb_size_rbf * c.emb_size_aint_in, c.emb_size_aint_out)
        self.scale_rbf_sum = Scale()
        self.down_projection = Dense(c.emb_size_atom, c.emb_size_aint_in, True)
        self.up_projection = Dense(c.emb_size_aint_out, c.emb_size_atom, True)

    def forward(self, h: Tensor, kernels: Kernels, batch: dict) -> Tensor:
        x = self.down_projection(h)
        n, dp = len(h), batch["pair_width"]
        z = kernels.a2a @ pad(take(x, batch["pair_source"]), batch["pair_slot"], n * dp).view(n, dp, -1)
        z = self.bilinear(z.view(n, -1))
        z = self.scale_rbf_sum(z, reference=lambda: (x[batch["a2a_edge_index"][0]], None))
        return self.up_projection(z)


# How often a member enters a sum; used only while scale factors are fitted.


def degree(batch: dict, graph: str, of: str = "main") -> Tensor:
    """For every edge of ``of``, the number of ``graph`` edges at its target."""
    count = torch.bincount(batch[f"{graph}_edge_index"][1], minlength=len(batch["batch"]))
    return count[batch[f"{of}_edge_index"][1]]


def partners_of_a2ee2a(batch: dict) -> Tensor:
    """Main edges that each a2ee2a edge meets, its own image left out."""
    table = _exceptions(batch, "ae_same", "main_width", "a2ee2a_width").sum(1)
    return degree(batch, "main", "a2ee2a") - table.flatten()[batch["a2ee2a_slot"]]


def partners_of_main(batch: dict) -> Tensor:
    table = _exceptions(batch, "ae_same", "main_width", "a2ee2a_width").sum(2)
    return degree(batch, "a2ee2a", "main") - table.flatten()[batch["main_slot"]]


def _exceptions(batch: dict, key: str, rows: str, columns: str) -> Tensor:
    table = torch.zeros(len(batch["batch"]) * batch[rows] * batch[columns], dtype=torch.long)
    table[batch[key].cpu()] = 1
    return table.view(-1, batch[rows], batch[columns]).to(batch["batch"].device)


def q_in_members(batch: dict) -> Tensor:
    """1 for every true member of the (E_q·dm) table of inner edges, else 0."""
    dm, source = batch["main_width"], batch["qint_edge_index"][0]
    count = torch.bincount(batch["main_edge_index"][1], minlength=len(batch["batch"]))[source]
    member = torch.arange(dm, device=source.device) < count.unsqueeze(1)
    return member.flatten().index_fill(0, batch["qin_back"], False).long()


def quadruplets_of_q_in(batch: dict) -> Tensor:
    """In how many quadruplets every entry of the (E_q·dm) table takes part."""
    dm = batch["main_width"]
    own = _exceptions(batch, "qout_same", "main_width", "qint_width").sum(1).flatten()[batch["qint_slot"]]
    count = (degree(batch, "main", "qint") - own).repeat_interleave(dm)
    count = count * q_in_members(batch)
    return count.index_add(0, batch["quad_same_in"], -torch.ones_like(batch["quad_same_in"]))
