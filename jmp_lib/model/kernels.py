"""Element-wise chains of ``fast_grad`` as one kernel each, for a GPU (Triton comes with PyTorch there).

A chain of PyTorch's operators reads and writes its arrays once for every operator; with sizes of a few MB, that and the
starting of kernels take longer than the matrix products between. Computed in float32 whatever the number types.
``fast_grad`` holds the same formulas by plain operators, which a CPU and float64 use.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _read(x, at, inside):
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _write(out, at, inside, value):
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _first(x):
    """silu'(x)"""
    s = tl.sigmoid(x)
    return s * (1 + x * (1 - s))


@triton.jit
def _curve(x):
    """silu''(x)"""
    s = tl.sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


@triton.jit
def _silu(out, x, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _read(x, at, at < n)
    _write(out, at, at < n, scale * x * tl.sigmoid(x))


@triton.jit
def _slope(out, activated, gradient, x, onto, n, scale, onto_scale, ONTO: tl.constexpr, ACTIVATED: tl.constexpr,
           BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _read(x, at, at < n)
    slope = scale * _read(gradient, at, at < n) * _first(x)
    if ONTO:
        slope += onto_scale * _read(onto, at, at < n)
    _write(out, at, at < n, slope)
    if ACTIVATED:
        _write(activated, at, at < n, x * tl.sigmoid(x))


@triton.jit
def _sum(out, low, x, p, n, a, b, SILU: tl.constexpr, LOW: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    p = _read(p, at, at < n)
    if SILU:
        p = p * tl.sigmoid(p)
    total = a * _read(x, at, at < n) + b * p
    _write(out, at, at < n, total)
    if LOW:
        _write(low, at, at < n, total)


@triton.jit
def _second(curved, outer_slope, slope, x, gradient, outer, onto, n, scale, onto_scale, ONTO: tl.constexpr,
            SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, g, o = _read(x, at, at < n), _read(gradient, at, at < n), _read(outer, at, at < n)
    first = _first(x)
    _write(curved, at, at < n, scale * g * o * _curve(x))
    o = scale * o * first
    if ONTO:
        o += onto_scale * _read(onto, at, at < n)
    _write(outer_slope, at, at < n, o)
    if SLOPE:
        _write(slope, at, at < n, g * first)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _start(kernel, out: Tensor, *arguments, **fixed) -> Tensor:
    arguments = [a.contiguous() if torch.is_tensor(a) else a for a in arguments]
    kernel[(triton.cdiv(out.numel(), BLOCK),)](out, *arguments, BLOCK=BLOCK, **fixed)
    return out


def silu(x: Tensor, scale: float) -> Tensor:
    """scale · silu(x)"""
    return _start(_silu, _empty(x), x, x.numel(), scale)


def slope(gradient: Tensor, x: Tensor, scale: float = 1.0, onto: Tensor | None = None, onto_scale: float = 1.0,
          activated: bool = False) -> tuple[Tensor, Tensor | None]:
    """(scale · gradient · silu'(x) + onto_scale · onto, silu(x) if ``activated`` else None), in x's number type."""
    out = _empty(x)
    silu_ = _empty(x) if activated else out
    _start(_slope, out, silu_, gradient, x, x if onto is None else onto, x.numel(), scale, onto_scale,
           ONTO=onto is not None, ACTIVATED=activated)
    return out, silu_ if activated else None


def weighted_sum(x: Tensor, p: Tensor, a: float, b: float, activated: bool = False,
                 low: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """a · x + b · p, or b · silu(p), in the number type of x, and in the number type ``low``."""
    out = _empty(x)
    another = low not in (None, x.dtype)
    lower = torch.empty_like(out, dtype=low) if another else out
    _start(_sum, out, lower, x, p, x.numel(), a, b, SILU=activated, LOW=another)
    return out, lower


def second(x: Tensor, gradient: Tensor, outer: Tensor, scale: float, onto: Tensor | None = None,
           onto_scale: float = 0.0, with_slope: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """(scale · gradient · outer · silu''(x), scale · outer · silu'(x) + onto_scale · onto, gradient
    · silu'(x) or None)."""
    curved = _empty(x)
    moved = _empty(x if onto is None else onto)
    slope_ = torch.empty_like(curved) if with_slope else curved
    _start(_second, curved, moved, slope_, x, gradient, outer, x if onto is None else onto, x.numel(), scale,
           onto_scale, ONTO=onto is not None, SLOPE=with_slope)
    return curved, moved, slope_ if with_slope else None


@triton.jit
def _gate(y, x, w, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _read(x, at, at < n)
    _write(y, at, at < n, scale * x * tl.sigmoid(x) * _read(w, at, at < n))


@triton.jit
def _gate_first(at_x, at_w, gradient, x, w, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, g = _read(x, at, at < n), scale * _read(gradient, at, at < n)
    _write(at_x, at, at < n, g * _read(w, at, at < n) * _first(x))
    _write(at_w, at, at < n, g * x * tl.sigmoid(x))


@triton.jit
def _gate_second(at_g, at_x, at_w, a, b, gradient, x, w, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, w, g = _read(x, at, at < n), _read(w, at, at < n), scale * _read(gradient, at, at < n)
    a, b, first = _read(a, at, at < n), _read(b, at, at < n), _first(x)
    _write(at_g, at, at < n, scale * (a * w * first + b * x * tl.sigmoid(x)))
    _write(at_x, at, at < n, g * (a * w * _curve(x) + b * first))
    _write(at_w, at, at < n, g * a * first)


class Gate:
    """scale · silu(x) · w, its derivatives and theirs."""

    @staticmethod
    def value(scale: float, x: Tensor, w: Tensor) -> Tensor:
        return _start(_gate, _empty(x), x, w, x.numel(), scale)

    @staticmethod
    def first(scale: float, gradient: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        out = [_empty(t) for t in (x, w)]
        _start(_gate_first, *out, gradient, x, w, x.numel(), scale)
        return tuple(out)

    @staticmethod
    def second(scale: float, outer: tuple[Tensor, Tensor], gradient: Tensor, x: Tensor, w: Tensor) -> tuple:
        out = [_empty(t) for t in (gradient, x, w)]
        _start(_gate_second, *out, *outer, gradient, x, w, x.numel(), scale)
        return tuple(out)


@triton.jit
def _places(reverse, width, BLOCK: tl.constexpr):
    """Of one row of (rows, width): which are inside, their places; those in the left and the right half of (rows, 2 ·
    width); of the same column at the reverse edge the place, and that in the right half."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    back, left = tl.load(reverse + row), 2 * row * width + column
    back_left = 2 * back * width + column
    return column < width, row * width + column, left, left + width, back * width + column, back_left + width


@triton.jit
def _lift(y, p, reverse, width, scale, BLOCK: tl.constexpr):
    inside, at, left, _, _, back_right = _places(reverse, width, BLOCK)
    own, other = _read(p, left, inside), _read(p, back_right, inside)
    _write(y, at, inside, scale * (own * tl.sigmoid(own) + other * tl.sigmoid(other)))


@triton.jit
def _lift_first(at_p, gradient, p, reverse, width, scale, BLOCK: tl.constexpr):
    inside, at, left, right, back, _ = _places(reverse, width, BLOCK)
    _write(at_p, left, inside, scale * _read(gradient, at, inside) * _first(_read(p, left, inside)))
    _write(at_p, right, inside, scale * _read(gradient, back, inside) * _first(_read(p, right, inside)))


@triton.jit
def _lift_second(at_g, at_p, outer, gradient, p, reverse, width, scale, BLOCK: tl.constexpr):
    inside, at, left, right, back, back_right = _places(reverse, width, BLOCK)
    own, other = _read(p, left, inside), _read(p, right, inside)
    o_own, o_other = _read(outer, left, inside), _read(outer, right, inside)
    _write(at_p, left, inside, scale * _read(gradient, at, inside) * o_own * _curve(own))
    _write(at_p, right, inside, scale * _read(gradient, back, inside) * o_other * _curve(other))
    other, o_other = _read(p, back_right, inside), _read(outer, back_right, inside)
    _write(at_g, at, inside, scale * (o_own * _first(own) + o_other * _first(other)))


class Lift:
    """p (E, 2·M) -> scale · (silu of the left half + silu of the right half at the reverse edge) (E, M), its
    derivatives and theirs."""

    @staticmethod
    def value(scale: float, p: Tensor, reverse: Tensor) -> Tensor:
        return _start_rows(_lift, [p.new_empty(len(p), p.shape[1] // 2)], p, reverse, scale)[0]

    @staticmethod
    def first(scale: float, gradient: Tensor, p: Tensor, reverse: Tensor) -> tuple[Tensor, None]:
        return *_start_rows(_lift_first, [_empty(p)], gradient, p, reverse, scale), None

    @staticmethod
    def second(scale: float, outer: tuple[Tensor, None], gradient: Tensor, p: Tensor, reverse: Tensor) -> tuple:
        out = [p.new_empty(gradient.shape), _empty(p)]
        return *_start_rows(_lift_second, out, outer[0], gradient, p, reverse, scale), None


def _start_rows(kernel, out: list[Tensor], *arguments) -> list[Tensor]:
    """One program for each edge; the last of ``arguments`` is the scale."""
    *tensors, scale = arguments
    rows, width = len(tensors[-1]), tensors[-2].shape[1] // 2
    kernel[(rows,)](*out, *(t.contiguous() for t in tensors), width, scale, BLOCK=triton.next_power_of_2(width))
    return out
