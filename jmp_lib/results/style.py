"""Colours, sizes, units and saving, the same for every figure.

The colours are those of Okabe and Ito (2008), told apart under the common colour vision deficiencies; from-scratch arms
are warm, pre-trained arms cool, and every arm also has its own marker.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import FixedLocator, NullLocator

from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_atomically

ARM_COLOURS = {"GN-OC-S": "#E69F00", "GN-OC-L": "#D55E00", "JMP-S": "#56B4E9", "JMP-L": "#0072B2"}
ARM_MARKERS = {"GN-OC-S": "o", "GN-OC-L": "s", "JMP-S": "^", "JMP-L": "D"}
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C7A00", "#000000",
           "#999999", "#882255")
SET_MARKERS = "os^Dv<>Ph*"
DOMAIN_COLOURS = {"molecules": "#0072B2", "large molecules": "#56B4E9", "catalysts": "#D55E00",
                  "bulk crystals": "#009E73", "MOFs": "#CC79A7"}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 130, "figure.constrained_layout.use": True, "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "lines.linewidth": 1.4, "lines.markersize": 5,
    "svg.hashsalt": "jmp", "svg.fonttype": "none",  # the same figure gives the same, small SVG file
}


def new_figure(rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 3.0, **kwargs):
    """A figure of ``width`` x ``height`` inches and its axes as a flat list."""
    sns.set_theme(context="paper", style="ticks", palette=PALETTE, font_scale=0.92, rc=STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **kwargs)
    return figure, list(axes.flat)


def grid(panels: int, columns: int = 4, width: float = 9.0, panel_height: float = 2.1):
    """A figure with one panel per item (one at least); left-over panels are removed."""
    panels = max(panels, 1)
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure, axes = new_figure(rows, columns, max(width * min(columns / 4, 1), 4.5), panel_height * rows + 0.5)
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def log_axis(axis, which: str, least: float = 1.6) -> None:
    """Makes the x or y axis logarithmic with three plainly written ticks or more; call it after plotting.

    It spans at least a factor ``least``, so that small differences do not look large.
    """
    getattr(axis, f"set_{which}scale")("log")
    part = getattr(axis, f"{which}axis")
    low, high = sorted(part.get_view_interval())
    spare = max(1.0, least * low / high) ** 0.5
    low, high = low / spare, high * spare
    getattr(axis, f"set_{which}lim")(low, high)
    part.set_major_locator(FixedLocator(log_ticks(low, high)))
    part.set_major_formatter("{x:g}")
    part.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, three or more: powers of ten, else with finer steps."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8),
                  (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)):
        ticks = [float(f"{power * step:.3g}") for power in powers for step in steps]
        if len(ticks := [tick for tick in ticks if low <= tick <= high]) > 2:
            break
    return ticks


def rows_tight(axis, rows: int) -> None:
    """First row on top, and no more than half a row of margin above and below: for charts with one row per task."""
    axis.set_ylim(max(rows, 1) - 0.4, -0.6)
    axis.set_ylabel("")


def legend_below(figure, axes):
    """The figure, with one legend of all ``axes`` under it, where it hides nothing and costs no width."""
    handles = {}
    for axis in axes:
        handles.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels())
                        if label not in handles})
        if axis.get_legend():
            axis.get_legend().remove()
    if handles:
        inches = 0.085 * sum(len(label) + 6 for label in handles)  # of one row
        rows = math.ceil(inches / figure.get_figwidth())
        figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                      ncols=math.ceil(len(handles) / rows))
    return figure


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, zeros at the end kept; blank for NaN."""
    if np.isnan(value):
        return ""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:#.{digits}g}".rstrip(".")


def unit_text(unit: str) -> str:
    """A unit of the tables as figures write it: ``meV/A`` -> ``meV Å⁻¹``, ``a0^3`` -> ``a₀³``,
    ``cm^-1`` -> ``cm⁻¹``."""
    unit = {"log10(GPa)": "log₁₀ GPa", "unitless": "no unit",
            "1/cm": "cm^-1"}.get(unit, unit).replace("a0", "a₀").replace("/A", " Å⁻¹")
    base, _, power = unit.partition("^")
    return (base + power.translate(SUPERSCRIPT)).replace("/atom", " per atom")


def axis_label(quantity: str, unit: str) -> str:
    """``MAE / eV``, or ``MAE (no unit)`` for a number without one."""
    written = unit_text(unit)
    return f"{quantity} ({written})" if written == "no unit" else f"{quantity} / {written}"


def short_task(task: str) -> str:
    """``qm9_eps_homo`` -> ``eps_homo``: the task id without its family."""
    return get_task(task).suffix


def shared_words(task: str, data: str) -> str:
    """What is said of the data of ``task`` without its name, so that tasks of a family say the same:
    ``rmd17-mini-… (...)``."""
    return re.sub(rf"(?<=[- ]){re.escape(short_task(task))}(?=[ ,])", "…", data)


def save(figure, directory, name: str) -> None:
    """Writes ``directory/name.png`` and ``.svg`` atomically."""
    for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        with write_atomically(Path(directory) / f"{name}.{suffix}", "wb") as stream:
            figure.savefig(stream, format=suffix, metadata=metadata, bbox_inches="tight")
