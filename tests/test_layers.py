"""Hand-written derivatives of the activation, of residuals and of what is formed again."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from jmp_lib.model import fast_grad, layers
from jmp_lib.model.fast_grad import formed_again, only_positions, scaled_silu


def test_activation_first_and_second_derivatives():
    x = torch.linspace(-6, 6, 24, dtype=torch.float64).view(4, 6).requires_grad_()
    assert gradcheck(scaled_silu, (x,)) and gradgradcheck(scaled_silu, (x,))


def _of_a_gradient(function, source, weights):
    """A function of positions, its gradient, and derivatives of a loss of both (as with gradient forces)."""
    with only_positions():
        force = torch.autograd.grad(function(source.sin()).sin().square().sum(), source, create_graph=True)[0]
    loss = force.pow(3).sum() + function(source.sin()).sin().square().sum()
    return [force.detach(), *torch.autograd.grad(loss, (source, *weights))]


def _chain(count=3, width=6):
    torch.manual_seed(0)
    chain = layers.residuals(count, width).double()
    return (chain, torch.randn(4, width, dtype=torch.float64, requires_grad=True),
            [w for one in chain for w in one.parameters()])


def test_a_chain_of_residuals_is_the_residuals_one_by_one():
    chain, x, weights = _chain()
    joined, plain = layers.apply_all(chain, x), fast_grad.plain_residuals(x, *weights)[0]
    assert joined.grad_fn.name().startswith("_Residuals")
    torch.testing.assert_close(joined, plain, rtol=1e-12, atol=1e-12)
    once = [torch.autograd.grad(y.sin().sum(), (x, *weights)) for y in (joined, plain)]
    both = [_of_a_gradient(f, x, weights) for f in (lambda y: layers.apply_all(chain, y),
                                                    lambda y: fast_grad.plain_residuals(y, *weights)[0])]  # fmt: skip
    for one, other in [*zip(*once, strict=True), *zip(*both, strict=True)]:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_derivatives_of_residuals_by_finite_differences():
    _, x, weights = _chain(2)
    joined = lambda *tensors: fast_grad._Residuals.apply(torch.float64, *tensors)[0]  # noqa: E731
    assert gradcheck(joined, (x, *weights)) and gradgradcheck(joined, (x, *weights))


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient_forces", [False, True])
def test_under_autocast_residuals_keep_16_bits_and_agree_with_plain_operators(gradient_forces, rows):
    """Both are within the coarseness of bfloat16 (8 binary digits) of float64; the node keeps no float32 but x."""
    chain, exact, weights = _chain(3, 32)
    plain = lambda y: fast_grad.plain_residuals(y, *weights, low=torch.bfloat16)[0]  # noqa: E731
    found, kept = {}, []

    def derivatives(form, x):
        if gradient_forces:
            return _of_a_gradient(form, x, weights)
        return torch.autograd.grad(form(x).sin().sum(), (x, *weights))

    def joined(y):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            found = layers.apply_all(chain, y)
        assert found.grad_fn.name().startswith("_Residuals") and found.dtype == y.dtype
        return found

    found["float64"] = derivatives(lambda y: layers.apply_all(chain, y), exact)
    chain.float()
    weights = list(chain.parameters())
    x = exact.detach().to(rows).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found["node"], found["plain"] = derivatives(joined, x), derivatives(plain, x)
    once = kept[: 1 + 4 * len(chain)]  # x, then two weights and two arrays of each residual
    assert [t.dtype for t in once if t.shape == x.shape] == [rows, *[torch.bfloat16] * (2 * len(chain))]
    for node, operators, true in zip(found["node"], found["plain"], found["float64"], strict=True):
        size = true.norm()
        assert (node - true).norm() < 0.05 * size and (node - operators).norm() < 0.05 * size


def test_second_derivatives_that_are_differentiated_again_come_from_the_plain_form_and_third_ones_are_refused():
    chain, x, weights = _chain(2)
    found = []
    for form in (lambda y: layers.apply_all(chain, y), lambda y: fast_grad.plain_residuals(y, *weights)[0]):
        with only_positions():
            force = torch.autograd.grad(form(x).sin().sum(), x, create_graph=True)[0]
        found.append(torch.autograd.grad(force.square().sum(), (x, *weights), create_graph=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found[0][0].square().sum().backward()


def test_residuals_keep_two_arrays_each_and_two_more_for_gradient_forces():
    chain, x, weights = _chain(3, 6)
    kept = {}

    def keep(t):
        if t.shape == x.shape:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = layers.apply_all(chain, x)
        assert len(kept) == 1 + 2 * len(chain)
        gradient = torch.ones_like(y)
        with only_positions():
            torch.autograd.grad(y, x, gradient, create_graph=True)
    assert len(kept) == 1 + 4 * len(chain)


def _weigh(x, rad, radial, down, gather):
    return scaled_silu((scaled_silu(x).index_select(0, gather) * (rad @ radial.t())) @ down.t())


def _weigh_inputs(dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((5, 4), (7, 3), (4, 3), (2, 4))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes] + [torch.tensor([0, 4, 1, 1, 2, 3, 0])]


def test_what_is_formed_again_has_the_same_derivatives(monkeypatch):
    """First and second derivatives by finite differences, and the first equal to those of the plain form to the bit."""
    inputs = _weigh_inputs()
    plain = torch.autograd.grad(_weigh(*inputs).square().sum(), inputs[:-1])
    monkeypatch.setattr(fast_grad, "LARGE", 0)
    again = lambda *tensors: formed_again(_weigh, 1, *tensors)  # noqa: E731
    assert type(again(*inputs).grad_fn).__name__ == "_FormedAgainBackward"
    assert all(torch.equal(a, b)
               for a, b in zip(torch.autograd.grad(again(*inputs).square().sum(), inputs[:-1]), plain))
    assert gradcheck(again, inputs) and gradgradcheck(again, inputs)


def test_gradient_forces_through_what_is_formed_again(monkeypatch):
    """Only positions are asked for in the first gradient; weights get theirs from the second."""
    x, rad, radial, down, gather = _weigh_inputs()
    source = torch.randn(7, dtype=torch.float64, requires_grad=True)

    def network(form):
        return lambda s: form(x * s.sum(), rad * s.unsqueeze(1), radial, down, gather)

    plain = _of_a_gradient(network(_weigh), source, (x, rad, radial, down))
    monkeypatch.setattr(fast_grad, "LARGE", 0)
    again = _of_a_gradient(network(lambda *tensors: formed_again(_weigh, 1, *tensors)), source, (x, rad, radial, down))
    for one, other in zip(again, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    assert not only_positions.active


def test_small_arrays_are_not_formed_again():
    inputs = _weigh_inputs()
    names = [type(formed_again(_weigh, elements, *inputs).grad_fn).__name__
             for elements in (fast_grad.LARGE - 1, fast_grad.LARGE)]
    assert names[0] != "_FormedAgainBackward" == names[1]


def test_what_is_formed_again_keeps_its_inputs_alone(monkeypatch):
    monkeypatch.setattr(fast_grad, "LARGE", 0)
    inputs, kept = _weigh_inputs(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        formed_again(_weigh, 1, *inputs)
    assert kept == [t.shape for t in inputs]
