"""Distances and angular functions, and what gradient forces need: their first and second derivatives."""

import numpy as np
import pytest
import torch
from structures import methanol, skewed_crystal
from test_model import CRYSTAL, batch_of
from torch.autograd import gradcheck, gradgradcheck

from jmp_lib.graphs import build
from jmp_lib.model import geometry
from jmp_lib.model.bases import GRAPHS


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_legendre(count):
    z = torch.linspace(-1, 1, 21, dtype=torch.float64).view(3, 7).requires_grad_()
    found = geometry.legendre(z, count)
    for n in range(count):
        wanted = np.sqrt((2 * n + 1) / (4 * np.pi)) * np.polynomial.legendre.Legendre.basis(n)(z.detach().numpy())
        assert np.abs(found[..., n].detach().numpy() - wanted).max() < 1e-14
    assert gradcheck(lambda z: geometry.legendre(z, count), z)
    assert gradgradcheck(lambda z: geometry.legendre(z, count), z)


def test_slopes_of_legendre_in_mixed_precision_are_those_of_float32():
    z = torch.linspace(-1, 1, 21, requires_grad=True)
    slopes = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, mixed):
            slopes.append(torch.autograd.grad(geometry.legendre(z, 7).sum(), z)[0])
    assert torch.equal(*slopes)


def test_azimuth_waves():
    angle = torch.linspace(-3.1, 3.1, 12, dtype=torch.float64)
    x, y = (0.3 * angle.cos()).requires_grad_(), (0.3 * angle.sin()).requires_grad_()
    waves, collinear = geometry.azimuth_waves(x, y, 4, torch.float64)
    assert waves.shape == (2, 3, 12) and not collinear.any()
    for k in (1, 2, 3):
        assert torch.allclose(waves[0, k - 1], (k * angle).cos(), atol=1e-14)
        assert torch.allclose(waves[1, k - 1], (k * angle).sin(), atol=1e-14)

    def of(x, y):
        return geometry.azimuth_waves(x, y, 4, torch.float64)[0]

    assert gradcheck(of, (x, y)) and gradgradcheck(of, (x, y))


def test_collinear_members_are_zero_and_so_are_their_derivatives():
    x, y = (torch.tensor([0.0, 5e-7, 0.5], dtype=torch.float64, requires_grad=True) for _ in range(2))
    waves, collinear = geometry.azimuth_waves(x, y, 5, torch.float32)
    assert waves.dtype == torch.float32 and collinear.tolist() == [True, True, False]
    assert (waves[..., :2] == 0).all() and (waves[..., 2] != 0).any()
    first = torch.autograd.grad(waves.sum(), (x, y), create_graph=True)
    second = torch.autograd.grad(sum(f.pow(2).sum() for f in first), (x, y))
    assert all((d[:2] == 0).all() and torch.isfinite(d).all() for d in (*first, *second))


def test_vectors_of_all_graphs_are_those_of_each():
    assert GRAPHS == build.GRAPHS  # the network imports nothing of the room of graphs
    batch = batch_of(methanol(), skewed_crystal(), config=CRYSTAL)
    pos = batch["pos"].double()
    sizes = [batch[f"{graph}_edge_index"].shape[1] for graph in GRAPHS]
    together = zip(*(found.split(sizes) for found in geometry.edge_vectors(batch, GRAPHS, pos)), strict=True)
    for graph, (distance, u) in zip(GRAPHS, together, strict=True):
        source, target = batch[f"{graph}_edge_index"]
        cell = batch["cell"][batch["batch"][target]]
        away = pos[target] - pos[source] - torch.einsum("ei,eij->ej", batch[f"{graph}_offset"], cell)
        assert len(distance) and torch.allclose(distance.unsqueeze(1) * u, away, atol=1e-12)
        assert torch.allclose(u.norm(dim=1), torch.ones_like(distance))
