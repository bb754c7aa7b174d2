"""Figures say whose values they show, cut nothing off, and are saved twice."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from jmp_lib.results import figures, overview, speedup, style
from jmp_lib.results.figures import PAPER
from jmp_lib.results.style import ARM_COLOURS, unit_text

TASKS = [f"qm9_{n}" for n in range(30)]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def gains_of(own, published, low=float("nan"), high=float("nan")) -> pd.DataFrame:
    """A table as of ``views.gains``."""
    return pd.DataFrame({"this workbook (mini data)": own, "from": low, "to": high, PAPER: published}, TASKS[:len(own)])


def words(figure) -> list[str]:
    return [text.get_text() for legend in [*figure.legends, *(a.get_legend() for a in figure.axes)] if legend
            for text in legend.get_texts()]


def test_gains_name_both_sides_and_show_every_bar_whole():
    own = np.linspace(-20, 40, 30)
    table = gains_of(own, np.linspace(-60, 80, 30), own - 5, own + 5)
    figure = figures.gains(table)
    axis = figure.axes[0]
    assert words(figure) == ["this workbook (mini data)", PAPER]
    low, high = axis.get_xlim()
    bars = [bar for group in axis.containers for bar in group]
    assert (len(bars) == 60
            and all(low <= bar.get_x() + min(bar.get_width(), 0) and bar.get_width() <= high for bar in bars))
    bottom, top = axis.get_ylim()
    assert bottom > top and bottom - top <= len(table) + 0.5, "first task on top, no empty margin"
    assert all(top <= bar.get_y() and bar.get_y() + bar.get_height() <= bottom for bar in bars)
    (lines,) = [c for c in axis.collections if len(c.get_segments()) == 30]
    for bar, ((low, y), (high, _)) in zip(axis.containers[0], lines.get_segments()):
        assert ((low, high) == pytest.approx((bar.get_width() - 5, bar.get_width() + 5))
                and bar.get_y() < y < bar.get_y() + bar.get_height())


def test_gains_of_the_smoke_profile_show_no_published_bars():
    figure = figures.gains(gains_of([1.0, 2.0], float("nan")))
    assert words(figure) == ["this workbook (mini data)"] and [len(bars) for bars in figure.axes[0].containers] == [2]


def test_scaling_and_speedup_name_both_sides():
    table = pd.DataFrame({"family": ["all"], "comparison": ["JMP-L over GN-OC-L"], "own_mean_gain_percent": [20.0],
                          "own_mean_gain_from": [10.0], "own_mean_gain_to": [30.0],
                          "published_mean_gain_percent": [58.7]})
    assert words(figures.scaling(table)) == ["this workbook", PAPER]
    table = pd.DataFrame({"task": ["a", "b"], "ratio_steps": [2.0, float("nan")], "ratio_seconds": [3.0, float("nan")]})
    figure = figures.speedup(table, pd.Series({"ratio_steps_all": 1.5, "ratio_seconds_all": 1.8}))
    assert words(figure) == [f"{PAPER}, totals: 12x", "this workbook, totals over all tasks"]
    assert [axis.get_title() for axis in figure.axes] == ["updates, in total 1.50x",
                                                          "time on this machine, in total 1.80x"]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["not reached"] * 2


def test_large_over_small_has_a_panel_for_the_paper_and_intervals_for_ours():
    rows = [(task, of, data, gain, gain - 3 if ours else float("nan"), gain + 3 if ours else float("nan"))
            for data, ours in (("this workbook", True), (PAPER, False))
            for of, gain in (("from scratch", -8.0), ("pre-trained", 21.0))
            for task in ("a", "b")]
    figure = figures.large_over_small(pd.DataFrame(rows, columns=["task", "of", "data", "gain", "from", "to"]))
    assert ([axis.get_title() for axis in figure.axes] == ["this workbook", PAPER]
            and words(figure) == ["from scratch", "pre-trained"])
    lines = [sorted(tuple(part[:, 0]) for part in c.get_segments()) for axis in figure.axes for c in axis.collections
             if len(c.get_segments()) == 2]
    assert lines == [[(-11.0, -5.0)] * 2, [(18.0, 24.0)] * 2], "of ours alone"


def test_axes_have_units():
    record = {"task": "rmd17_ethanol", "arm": "JMP-S", "unit": "meV/A", "value": 3.0,
              "history": [{"step": 1, "val_metric": 5.0}, {"step": 2, "val_metric": 4.0}]}
    assert figures.learning_curves([record]).axes[0].get_ylabel() == "validation MAE / meV Å⁻¹"
    axis = figures.parity([record], {"rmd17_ethanol": (np.arange(3.0), np.arange(3.0))}, "JMP-S").axes[0]
    assert axis.get_xlabel() == "label / meV Å⁻¹" and axis.get_title() == "ethanol\nMAE 3.00 meV Å⁻¹"
    written = {"a0^3": "a₀³", "eV": "eV", "cm^-1": "cm⁻¹", "log10(GPa)": "log₁₀ GPa",
               "meV/atom": "meV per atom", "D": "D"}
    assert {unit: unit_text(unit) for unit in written} == written
    assert style.axis_label("MAE", "unitless") == "MAE (no unit)"


def test_what_was_not_run_leaves_an_empty_figure(tmp_path):
    none = pd.Series(dtype=float)
    no_ratio = pd.DataFrame(columns=["task", "ratio_steps", "ratio_seconds"], dtype=float)
    for draw in (lambda: figures.learning_curves([]),
                 lambda: figures.pretraining_loss([]), lambda: figures.parity([], {}),
                 lambda: figures.gains(gains_of([], none)), lambda: figures.speedup(no_ratio, {}),
                 lambda: figures.large_over_small(pd.DataFrame(columns=["task", "of", "data", "gain", "from", "to"])),
                 lambda: figures.shortened(speedup.shortened(tmp_path))):
        assert not [line for axis in draw().axes for line in axis.get_lines() if len(line.get_xdata()) > 2]


def test_arms_differ_for_the_colour_blind_too():
    """Luminance (ITU-R BT.709) of small against large and of scratch against pre-trained differs by 8 % at least."""
    def luminance(colour: str) -> float:
        return float(np.dot([int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)], [0.2126, 0.7152, 0.0722]))

    values = sorted(luminance(colour) for colour in ARM_COLOURS.values())
    assert luminance(ARM_COLOURS["GN-OC-S"]) - luminance(ARM_COLOURS["GN-OC-L"]) > 0.08
    assert luminance(ARM_COLOURS["JMP-S"]) - luminance(ARM_COLOURS["JMP-L"]) > 0.08 and len(set(values)) == 4


def test_saved_as_png_and_svg_with_the_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        style.save(figures.gains(gains_of([1.0], 2.0)), tmp_path / folder, "g")
    for name in ("g.png", "g.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("ends", [(0.9, 1.1), (0.35, 1.3), (290, 1050), (1.1, 8), (3, 250), (0.02, 900)])
def test_a_logarithmic_axis_has_two_written_ticks_at_least(ends):
    figure, (axis,) = style.new_figure()
    axis.plot([1, 2], ends)
    style.log_axis(axis, "y")
    figure.canvas.draw()
    low, high = axis.get_ylim()
    written = [tick for minor in (False, True)
               for tick in (axis.yaxis.get_minor_ticks() if minor else axis.yaxis.get_major_ticks())
               if tick.label1.get_text() and low <= tick.get_loc() <= high]
    assert len(written) >= 2


def test_intervals_are_those_of_the_seeds():
    table = pd.DataFrame({"task": "qm9_mu", "comparison": "JMP-S over GN-OC-S",
                          "seed": [1, 2, 3], "gain": [10.0, 12.0, 20.0]})
    axis = figures.gain_spread(table).axes[0]
    ends = [line.get_xdata() for line in axis.get_lines()
            if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]]
    assert [list(line) for line in ends if 0 < line[0]] == [[10.0, 20.0]]
    assert words(axis.figure) == ["JMP-S over GN-OC-S, 3 seeds"]


@pytest.mark.parametrize("low, high", [(0.95, 1.06), (150, 700), (0.5, 1.4), (250, 560), (0.01, 30), (1, 1e6)])
def test_logarithmic_axes_have_three_ticks_and_do_not_blow_up_small_differences(low, high):
    figure, (axis,) = style.new_figure()
    axis.plot([1, 2], [low, high])
    style.log_axis(axis, "y")
    bottom, top = axis.get_ylim()
    assert (sum(bottom <= tick <= top for tick in axis.get_yticks()) >= 3 and bottom <= low
            and top >= high and top / bottom >= 1.6)


def test_parity_has_equal_axes_and_is_shown_without_the_composition():
    record = {"task": "qm9_u0", "arm": "JMP-L", "unit": "meV", "value": 300.0}
    true, part = np.array([-4e5, -3e5, -5e5]), np.array([-4e5, -3e5, -5e5]) + 100.0
    axis = figures.parity([record], {"qm9_u0": (true, true + 50)}, "JMP-L", {"qm9_u0": part}).axes[0]
    assert axis.get_xlim() == axis.get_ylim() and max(map(abs, axis.get_xlim())) < 200
    assert axis.get_xlabel() == "label less composition / meV"


def test_the_method_is_drawn_from_the_facts():
    said = "\n".join(text.get_text() for text in overview.method().axes[0].texts)
    assert ("OC20\n100 million structures" in said and "57 % of draws" in said
            and "MatBench, 8 tasks" in said and "40 times" in said)


def test_costs_stand_beside_those_of_the_paper():
    table = pd.DataFrame({"step": ["once", "scratch", "tuned"], "paper / GPU-hours": [34400, 3300, 275],
                          "this workbook / minutes": [40.0, 20.0, 0.0]})
    figure = overview.costs(table)
    assert [axis.get_xlabel() for axis in figure.axes] == list(table)[1:] and figure.axes[0].get_xscale() == "log"


def test_parity_of_values_far_from_zero_is_shown_less_their_mean():
    true = np.linspace(-12000, -9000, 50)
    record = {"task": "qm9_eps_homo", "arm": "JMP-L", "value": 100.0, "unit": "meV"}
    axis = figures.parity([record], {"qm9_eps_homo": (true, true + 100)}).axes[0]
    assert axis.get_xlim()[0] > -2000 and "less the mean" in axis.get_xlabel()


@pytest.mark.parametrize("labels", [list(ARM_COLOURS), [f"transition1x-sample-{k}" for k in range(8)]])
def test_a_legend_is_never_wider_than_its_figure(labels):
    figure, axes = style.new_figure(width=7.6, height=3.0)
    for label in labels:
        axes[0].plot([0, 1], [0, 1], label=label)
    style.legend_below(figure, axes)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.width and len(figure.legends[0].get_texts()) == len(labels)
