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
from .geometry import azimuth_waves, cosine_expansion, edge_vectors, frames, legendre, pad
from .layers import Dense, standardized_orthogonal_, sum_at, take

GRAPHS = ("main", "a2ee2a", "qint", "a2a")


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

    def flat(self) -> Tensor:
        """W̃ (K, S·I)"""
        return self.weight.flatten(1)

    def forward(self, g: Tensor) -> Tensor:
        _, num_angular, out_features = self.weight.shape
        return (g @ self.flat()).view(-1, out_features, num_angular)


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
        distance, u = edge_vectors(batch, GRAPHS, pos)
        sizes = [batch[f"{graph}_edge_index"].shape[1] for graph in GRAPHS]
        g = dict(zip(GRAPHS, lowered(self.radial_basis(distance)).split(sizes)))
        u = dict(zip(GRAPHS, u.split(sizes)))
        main = [self.mlp_rbf_tint, self.mlp_rbf_qint, self.mlp_rbf_eaint, self.mlp_rbf_h, self.mlp_rbf_out]
        weights = torch.cat([projection.linear.weight for projection in main])  # one product for the five
        rad_e2e, rad_quad, rad_e2a, rad_h, rad_out = F.linear(g["main"], weights).chunk(5, dim=1)
        kernels = Kernels(rad_e2e, rad_quad, self.mlp_rbf_aeint(g["a2ee2a"]), rad_e2a, rad_h, rad_out,
                          **self.interaction_kernels(batch, g, u))
        return g["main"], u["main"], kernels

    def interaction_kernels(self, batch: dict, g: dict, u: dict) -> dict[str, Tensor]:
        """What the interactions sum with: of atoms, triplets and quadruplets."""
        L, dtype = self.num_spherical, self.radial_basis.rbf.temps.dtype
        n, dm, da, dq = len(batch["batch"]), batch["main_width"], batch["a2ee2a_width"], batch["qint_width"]
        u_main = pad(u["main"], batch["main_slot"], n * dm).view(n, dm, 3)
        u_ae = pad(u["a2ee2a"], batch["a2ee2a_slot"], n * da).view(n, da, 3)
        frame = frames(u["qint"])  # (E_q, 3, 3): the middle bond p = b -> a and two axes across
        table = pad(frame, batch["qint_slot"], n * dq).view(n, dq * 3, 3)
        # In the frame of p: inner edges i = d -> b at its source (E_q·dm, 3), outer edges j = c -> a at its target
        # (n·dm·dq, 3). The first component is the cosine z, the others give the azimuth about p.
        inner = (u_main.index_select(0, batch["qint_edge_index"][0]) @ frame.mT).view(-1, 3)
        outer = (u_main @ table.mT).view(-1, 3)
        z, x, y = torch.cat([inner, outer]).unbind(-1)
        cosines = [(u_main @ u_main.mT).flatten(), (u_main @ u_ae.mT).flatten(), z]
        sizes = [len(cosines[0]), len(cosines[1]), len(inner), len(outer)]
        y_e2e, y_ae, y_in, y_out = legendre(torch.cat(cosines).to(dtype), L).split(sizes)
        waves, collinear = azimuth_waves(x, y, L, dtype)
        # Radial weights of the main edges, in slots. Y_{l₂}(cos ϑ) as a cosine series (and its values at cos ϑ = 0
        # and 1) is folded into the projection.
        sbf = self.mlp_sbf_qint.weight
        series = sbf.reshape(len(sbf), -1, L, L) @ cosine_expansion(L, sbf.dtype, sbf.device)
        weights = [self.mlp_cbf_tint.flat(), self.mlp_cbf_aeint.flat(), series.mT.reshape(len(sbf), -1)]
        r = pad(g["main"] @ torch.cat(weights, 1), batch["main_slot"], n * dm).split([w.shape[1] for w in weights], 1)
        r_tint, r_aeint, r_sbf = (part.view(n * dm, -1, L) for part in r)
        return {**self.triplet_kernels(batch, g, y_e2e, y_ae, r_tint, r_aeint),
                **self.inner_kernels(batch, g["qint"], y_in, waves[..., : len(inner)], collinear[: len(inner)]),
                **self.outer_kernels(batch, r_sbf, y_out, waves[..., len(inner) :], collinear, len(inner))}  # fmt: skip

    def triplet_kernels(self, batch: dict, g: dict, y: Tensor, y_ae: Tensor, r_tint: Tensor,
                        r_aeint: Tensor) -> dict[str, Tensor]:
        """e2e, a2e, e2a and a2a kernels; members whose two edges share an image are left out."""
        n, dm, da, dp = len(batch["batch"]), batch["main_width"], batch["a2ee2a_width"], batch["pair_width"]
        y = y.view(n, dm, dm, -1)  # output edge j, input edge i
        y = (y * (1 - torch.eye(dm, dtype=y.dtype, device=y.device)).unsqueeze(-1)).view(n * dm, dm, -1)
        y_ae = lowered(y_ae.index_fill(0, batch["ae_same"], 0.0)).view(n * dm, da, -1)
        r_eaint = pad(self.mlp_cbf_eaint(g["a2ee2a"]), batch["a2ee2a_slot"], n * da).view(n, da, -1, y.shape[-1])
        pair_rad = sum_at(batch["a2a_pair"], self.mlp_rbf_aint(g["a2a"]), len(batch["pair_source"]))
        return {
            "e2e": (r_tint @ y.mT).view(n, -1, dm),
            "a2e": (r_aeint @ y_ae.mT).view(n, -1, da),
            "e2a": r_eaint.permute(0, 2, 1, 3).flatten(2) @ y_ae.view(n, dm, -1).mT,
            "a2a": pad(pair_rad, batch["pair_slot"], n * dp).view(n, dp, -1).mT,
        }

    def inner_kernels(self, batch: dict, g: Tensor, y: Tensor, waves: Tensor, collinear: Tensor) -> dict[str, Tensor]:
        """Inner edges i = d -> b onto p = b -> a: circular weights, and azimuths."""
        dm, L = batch["main_width"], self.num_spherical
        col = collinear.to(y.dtype).unsqueeze(0)
        azimuth = torch.cat([1 - col, waves.flatten(0, 1), col]).index_fill(1, batch["qin_back"], 0.0)
        return {"q_in_cbf": y.view(-1, dm, L) @ self.mlp_cbf_qint(g).mT,
                "q_in_azimuth": lowered(azimuth.view(2 * L, -1, dm).transpose(0, 1).contiguous())}

    def outer_kernels(self, batch: dict, r: Tensor, y: Tensor, waves: Tensor, collinear: Tensor,
                      inner: int) -> dict[str, Tensor]:
        """Outer edges j = c -> a about every p at the same atom; ``collinear`` says it of the ``inner`` edges, too."""
        n, dm, dq, L = len(batch["batch"]), batch["main_width"], batch["qint_width"], self.num_spherical
        y = y.index_fill(0, batch["qout_same"], 0.0).view(n * dm, dq, L)
        a = (r @ y.mT).view(n * dm, -1, L + 2, dq)
        series, at_zero, at_one = a[:, :, :L], a[:, :, L], a[:, :, L + 1]
        outer = collinear[inner:].view(n * dm, 1, dq)
        constant = torch.where(outer, at_zero, series[:, :, 0]).unsqueeze(2)
        waves = lowered(waves).view(2, L - 1, n * dm, dq).permute(2, 0, 1, 3)  # (n·dm, 2, L - 1, dq)
        waves = (series[:, :, None, 1:] * waves.unsqueeze(1)).flatten(2, 3)
        # c = d is not a quadruplet: cos ϑ = 1 there (0 if collinear); its inner edge, or the zero row.
        same_in = torch.full((n * dm * dq,), inner, dtype=torch.long, device=y.device)
        same_in[batch["quad_same_out"]] = batch["quad_same_in"]
        straight = torch.cat([collinear[:inner], collinear.new_zeros(1)])[same_in].view(n * dm, 1, dq)
        return {
            "q_out": torch.cat([constant, waves, at_zero.unsqueeze(2)], dim=2).reshape(n, -1, 2 * L * dq),
            "q_same": torch.where(outer | straight, at_zero, at_one),
            "q_same_in": same_in.view(n * dm, dq),
        }
