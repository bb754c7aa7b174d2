"""Radial and angular bases, their shared projections, and the kernels that all blocks use.

The projections and angles do not depend on the block, so the sums of section 4.4 reduce to one
small matrix product per atom and block. With R a projected radial basis and Y the Legendre basis,

    e2e     Z[j] = Σ_i K[j, i] x(i),  K[j, a, i] = Σ_l R[j, a, l] Y_l(u_i·u_j)

and likewise for the other interactions. Quadruplets are never listed: with azimuths φ about the
middle bond p, cos k(φ_j − φ_i) = cos kφ_j cos kφ_i + sin kφ_j sin kφ_i separates the two ends, so
the inner edges i are first summed onto p in 2L channels and these onto the outer edges j
(section 11 of the specification; ``jmp_lib.model.interactions`` holds the sums).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import BackboneConfig
from .fast_grad import lowered, scaled_silu
from .geometry import azimuth_harmonics, cosine_expansion, edge_vectors, frames, legendre, pad
from .layers import Dense, standardized_orthogonal_, sum_at, take


class GaussianBasis(nn.Module):
    """K Gaussians with centres μ on [0, 1] and width (K−1)²/2 (float32 buffers, section 4.1)."""

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("offset", torch.linspace(0, 1, count))
        self.register_buffer("temps", torch.full((count,), 0.5 * (count - 1) ** 2))


class RadialBasis(nn.Module):
    """w(D/12)·exp(−τ(D/12 − μ)²) with the polynomial envelope w of exponent 5."""

    def __init__(self, count: int, cutoff: float):
        super().__init__()
        self.rbf = GaussianBasis(count)
        self.cutoff = cutoff

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å float64 -> (E, K) in the dtype of the network."""
        dtype = self.rbf.temps.dtype
        x = distance / self.cutoff
        envelope = 1 + x**5 * (-21 + x * (35 - 15 * x))
        envelope = torch.where(x < 1, envelope, torch.zeros_like(x)).to(dtype)
        exponent = -self.rbf.temps * (x.unsqueeze(-1) - self.rbf.offset.double()).to(dtype) ** 2
        # exp(-40) = 4e-18 counts as zero: subnormal tails would slow every later product down.
        return envelope.unsqueeze(-1) * exponent.masked_fill(exponent < -40, -torch.inf).exp()


class AngularBasis(nn.Module):
    """Holds the radial part of an angular basis (its buffers are part of the published state dict)."""

    def __init__(self, radial_basis: RadialBasis):
        super().__init__()
        self.radial_basis = radial_basis


class BasisProjection(nn.Module):
    """A three-index weight (K, S, I): g (E, K) -> R (E, I, S).

    The product g·W̃ with W̃ the row-major (K, S·I) flattening is re-read row-major as (I, S); this is
    the published layout and not a transpose (section 4.3).
    """

    def __init__(self, num_radial: int, num_angular: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_radial, num_angular, out_features))
        standardized_orthogonal_(self.weight)

    def forward(self, g: Tensor) -> Tensor:
        num_radial, num_angular, out_features = self.weight.shape
        return (g @ self.weight.reshape(num_radial, -1)).view(-1, out_features, num_angular)


class EdgeEmbedding(nn.Module):
    """σ(W·[h_s, h_t, m]): initial edge embedding, and the concatenation at the end of a block."""

    def __init__(self, emb_size_atom: int, edge_features: int, out_features: int):
        super().__init__()
        self.dense = Dense(2 * emb_size_atom + edge_features, out_features, True)

    def forward(self, h: Tensor, m: Tensor, edge_index: Tensor) -> Tensor:
        # The columns of W that act on h are applied to the atoms, which are fewer than the edges.
        width, weight = h.shape[1], self.dense.linear.weight
        h = lowered(h)
        source = take(F.linear(h, weight[:, :width]), edge_index[0])
        target = take(F.linear(h, weight[:, width : 2 * width]), edge_index[1])
        return scaled_silu(F.linear(m, weight[:, 2 * width :]) + source + target)


@dataclass
class Kernels:
    """What the blocks share. n atoms; dm, da, dq, dp the slot widths of main, a2ee2a, qint, pairs."""

    rad_e2e: Tensor  # (E, Er) radial weights of the e2e input edges
    rad_quad: Tensor  # (E, Er)
    rad_a2e: Tensor  # (E_ae, Er)
    rad_e2a: Tensor  # (E, Er)
    rad_h: Tensor  # (E, Er) atom update
    rad_out: Tensor  # (E, Er) output blocks
    e2e: Tensor  # (n, dm·Ec, dm)
    a2e: Tensor  # (n, dm·Ec, da)
    e2a: Tensor  # (n, Ec, dm)
    a2a: Tensor  # (n, Er, dp)
    q_in_cbf: Tensor  # χ (E_q, dm, Ec)
    q_in_azimuth: Tensor  # (E_q, 2L, dm): 1, cos kφ, sin kφ, collinear
    q_out: Tensor  # (n, dm·Es, 2L·dq)
    q_same: Tensor  # (n·dm, Es, dq): weight of the excluded c = d
    q_same_in: Tensor  # (n·dm, dq): its row in the (E_q·dm) table of inner edges, or the zero row


class Bases(nn.Module):
    """All shared bases and projections (``backbone.bases``); forward returns m⁰'s basis and the kernels."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        c, K, L = config, config.num_radial, config.num_spherical
        self.num_spherical = L
        self.radial_basis = RadialBasis(K, c.absolute_rbf_cutoff)
        self.cbf_basis_qint = AngularBasis(self.radial_basis)
        self.sbf_basis_qint = AngularBasis(self.radial_basis)
        self.radial_basis_aeaint = self.radial_basis
        self.cbf_basis_aeint = AngularBasis(self.radial_basis)
        self.cbf_basis_eaint = AngularBasis(self.radial_basis)
        self.radial_basis_aint = self.radial_basis
        self.cbf_basis_tint = AngularBasis(self.radial_basis)
        self.mlp_rbf_qint = Dense(K, c.emb_size_rbf)
        self.mlp_cbf_qint = BasisProjection(K, L, c.emb_size_cbf)
        self.mlp_sbf_qint = BasisProjection(K, L**2, c.emb_size_sbf)
        self.mlp_rbf_aeint = Dense(K, c.emb_size_rbf)
        self.mlp_cbf_aeint = BasisProjection(K, L, c.emb_size_cbf)
        self.mlp_rbf_eaint = Dense(K, c.emb_size_rbf)
        self.mlp_cbf_eaint = BasisProjection(K, L, c.emb_size_cbf)
        self.mlp_rbf_aint = nn.Linear(K, c.emb_size_rbf, bias=False)
        standardized_orthogonal_(self.mlp_rbf_aint.weight)
        self.mlp_rbf_tint = Dense(K, c.emb_size_rbf)
        self.mlp_cbf_tint = BasisProjection(K, L, c.emb_size_cbf)
        self.mlp_rbf_h = Dense(K, c.emb_size_rbf)
        self.mlp_rbf_out = Dense(K, c.emb_size_rbf)
        self.edge_emb = EdgeEmbedding(c.emb_size_atom, K, c.emb_size_edge)

    def forward(self, batch: dict, pos: Tensor) -> tuple[Tensor, Tensor, Kernels]:
        """pos (N, 3) float64 -> g_main (E, K), u_main (E, 3) float64, kernels."""
        distance, u = {}, {}
        for graph in ("main", "a2ee2a", "qint", "a2a"):
            distance[graph], u[graph] = edge_vectors(batch, graph, pos)
        g = {graph: lowered(self.radial_basis(d)) for graph, d in distance.items()}
        kernels = Kernels(
            rad_e2e=self.mlp_rbf_tint(g["main"]), rad_quad=self.mlp_rbf_qint(g["main"]),
            rad_a2e=self.mlp_rbf_aeint(g["a2ee2a"]), rad_e2a=self.mlp_rbf_eaint(g["main"]),
            rad_h=self.mlp_rbf_h(g["main"]), rad_out=self.mlp_rbf_out(g["main"]),
            **self.triplet_kernels(batch, g, u), **self.quadruplet_kernels(batch, g, u),
        )  # fmt: skip
        return g["main"], u["main"], kernels

    def triplet_kernels(self, batch: dict, g: dict, u: dict) -> dict[str, Tensor]:
        """e2e, a2e, e2a and a2a kernels; members whose two edges share an image are left out."""
        dtype, L = self.radial_basis.rbf.temps.dtype, self.num_spherical
        n, dm, da, dp = len(batch["batch"]), batch["main_width"], batch["a2ee2a_width"], batch["pair_width"]
        u_main = pad(u["main"], batch["main_slot"], n * dm).view(n, dm, 3)
        u_ae = pad(u["a2ee2a"], batch["a2ee2a_slot"], n * da).view(n, da, 3)
        y = legendre((u_main @ u_main.mT).to(dtype), L)  # (n, dm, dm, L): output edge j, input edge i
        y = y * (1 - torch.eye(dm, dtype=dtype, device=y.device)).unsqueeze(-1)
        y_ae = lowered(legendre((u_main @ u_ae.mT).to(dtype), L).view(-1, L).index_fill(0, batch["ae_same"], 0.0))

        r_tint = pad(self.mlp_cbf_tint(g["main"]), batch["main_slot"], n * dm)  # (n·dm, Ec, L)
        r_aeint = pad(self.mlp_cbf_aeint(g["main"]), batch["main_slot"], n * dm)
        r_eaint = pad(self.mlp_cbf_eaint(g["a2ee2a"]), batch["a2ee2a_slot"], n * da).view(n, da, -1, L)
        pair_rad = sum_at(batch["a2a_pair"], self.mlp_rbf_aint(g["a2a"]), len(batch["pair_source"]))
        return {
            "e2e": (r_tint @ y.view(n * dm, dm, L).mT).view(n, -1, dm),
            "a2e": (r_aeint @ y_ae.view(n * dm, da, L).mT).view(n, -1, da),
            "e2a": r_eaint.permute(0, 2, 1, 3).flatten(2) @ y_ae.view(n, dm, da * L).mT,
            "a2a": pad(pair_rad, batch["pair_slot"], n * dp).view(n, dp, -1).mT,
        }

    def quadruplet_kernels(self, batch: dict, g: dict, u: dict) -> dict[str, Tensor]:
        """Inner edges i = d -> b about p = b -> a, and outer edges j = c -> a about p."""
        dtype, L = self.radial_basis.rbf.temps.dtype, self.num_spherical
        n, dm, dq = len(batch["batch"]), batch["main_width"], batch["qint_width"]
        u_main = pad(u["main"], batch["main_slot"], n * dm).view(n, dm, 3)
        frame = frames(u["qint"])  # (E_q, 3, 3)

        # Inner edges: z₂ = u_p·u_i (head to tail), azimuth of u_i about u_p.
        z, x, y = (u_main.index_select(0, batch["qint_edge_index"][0]) @ frame.mT).unbind(-1)  # (E_q, dm) each
        cos, sin, collinear_in = azimuth_harmonics(x, y, L, dtype)
        col = collinear_in.to(dtype)
        azimuth = torch.stack([1 - col, *cos, *sin, col], dim=-1).view(-1, 2 * L)
        azimuth = azimuth.index_fill(0, batch["qin_back"], 0.0).view(-1, dm, 2 * L)
        chi = legendre(z.to(dtype), L) @ self.mlp_cbf_qint(g["qint"]).mT

        # Outer edges: z₁ = u_j·u_p and azimuth of u_j about u_p, for every p at the same atom.
        table = pad(frame, batch["qint_slot"], n * dq).view(n, dq * 3, 3)
        z, x, y = (u_main @ table.mT).view(n * dm, dq, 3).unbind(-1)
        cos, sin, collinear_out = azimuth_harmonics(x, y, L, dtype)
        y_out = legendre(z.to(dtype), L).view(-1, L).index_fill(0, batch["qout_same"], 0.0).view(n * dm, dq, L)
        # Y_{l₂}(cos ϑ) as a cosine series (and its values at cos ϑ = 0 and 1), folded into the projection.
        weight = self.mlp_sbf_qint.weight
        expansion = cosine_expansion(L, weight.dtype, weight.device)
        weight = (weight.reshape(len(weight), -1, L, L) @ expansion).mT.reshape(len(weight), -1)
        r = pad(g["main"] @ weight, batch["main_slot"], n * dm).view(n * dm, -1, L)  # (n·dm, Es·(L+2), L)
        a = (r @ y_out.mT).view(n * dm, -1, L + 2, dq)
        collinear = collinear_out.unsqueeze(1)
        series, at_zero, at_one = a[:, :, :L], a[:, :, L], a[:, :, L + 1]
        constant = torch.where(collinear, at_zero, series[:, :, 0]).unsqueeze(2)
        waves, cos, sin = series[:, :, 1:], lowered(torch.stack(cos, 1)), lowered(torch.stack(sin, 1))
        q_out = torch.cat([constant, waves * cos.unsqueeze(1), waves * sin.unsqueeze(1), at_zero.unsqueeze(2)], dim=2)

        # c = d is not a quadruplet: cos ϑ = 1 there (0 if collinear); its inner edge, or the zero row.
        same_in = torch.full((n * dm * dq,), len(chi) * dm, dtype=torch.long, device=z.device)
        same_in[batch["quad_same_out"]] = batch["quad_same_in"]
        straight = torch.cat([collinear_in.flatten(), collinear_in.new_zeros(1)])[same_in].view(n * dm, 1, dq)
        return {
            "q_in_cbf": chi,
            "q_in_azimuth": lowered(azimuth).mT.contiguous(),
            "q_out": q_out.reshape(n, -1, 2 * L * dq),
            "q_same": torch.where(collinear | straight, at_zero, at_one),
            "q_same_in": same_in.view(n * dm, dq),
        }
