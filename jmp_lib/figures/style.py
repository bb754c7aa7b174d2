"""Colours, sizes and saving, the same for every figure.

The colours are those of Okabe and Ito (2008), told apart under the common colour
vision deficiencies; from-scratch arms are warm, pre-trained arms cool, and every arm
also has its own marker.
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

ARMS = ("GN-OC-S", "GN-OC-L", "JMP-S", "JMP-L")
ARM_COLOURS = {"GN-OC-S": "#E69F00", "GN-OC-L": "#D55E00", "JMP-S": "#56B4E9", "JMP-L": "#0072B2"}
ARM_MARKERS = {"GN-OC-S": "o", "GN-OC-L": "s", "JMP-S": "^", "JMP-L": "D"}
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
           "#999999", "#882255")
SET_MARKERS = "os^Dv<>Ph*"
DOMAIN_COLOURS = {"molecules": "#0072B2", "large molecules": "#56B4E9", "catalysts": "#D55E00",
                  "bulk crystals": "#009E73", "MOFs": "#CC79A7"}

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 130, "figure.constrained_layout.use": True,
    "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.4, "lines.markersize": 5,
    "svg.hashsalt": "jmp", "svg.fonttype": "none",  # the same figure gives the same, small SVG file
}


def new_figure(rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 3.0, **kwargs):
    """A figure of ``width`` x ``height`` inches and its axes as a flat list."""
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **kwargs)
    return figure, list(axes.flat)


def grid(panels: int, columns: int = 4, width: float = 9.0, panel_height: float = 2.1, **kwargs):
    """A figure with one panel per item; left-over panels are removed."""
    columns = max(1, min(columns, panels))
    rows = max(1, -(-panels // columns))
    width = width * columns / 4 if columns < 4 else width
    figure, axes = new_figure(rows, columns, max(width, 4.5), panel_height * rows + 0.5, **kwargs)
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def log_axis(axis, which: str) -> None:
    """Makes the x or y axis logarithmic with plainly written ticks; call it after plotting."""
    getattr(axis, f"set_{which}scale")("log")
    part = getattr(axis, f"{which}axis")
    low, high = part.get_view_interval()
    part.set_major_formatter("{x:g}")
    part.set_minor_formatter(NullFormatter())
    if high < 3 * low:  # less than half a decade: evenly spaced ticks
        part.set_major_locator(MaxNLocator(4))
        part.set_minor_locator(NullLocator())
    elif high < 60 * low:
        part.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "235" else "")


def rows_tight(axis, rows: int) -> None:
    """First row on top, and no more than half a row of margin above and below: for charts with one row per task."""
    axis.set_ylim(max(rows, 1) - 0.4, -0.6)


def legend_below(figure, axis) -> None:
    """The legend of ``axis`` under the figure, where it hides nothing and costs no width."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))


def unit_text(unit: str) -> str:
    """A unit of the tables as it is written in figures: ``meV/A`` -> ``meV/Å``, ``a0^3`` -> ``a₀³``, ``cm^-1`` -> ``cm⁻¹``."""
    written = {"meV/A": "meV/Å", "a0^2": "a₀²", "a0^3": "a₀³", "cm^-1": "cm⁻¹", "log10(GPa)": "log₁₀(GPa)",
               "unitless": "no unit"}
    return written.get(unit, unit)


def short_task(task: str) -> str:
    """``qm9_eps_homo`` -> ``eps_homo``: the task id without its family."""
    return task.split("_", 1)[-1]


def save(figure, directory, name: str) -> Path:
    """Writes ``directory/name.png`` and ``.svg`` atomically and returns the PNG's path."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        target = directory / f"{name}.{suffix}"
        temporary = target.with_name(f".{target.name}.tmp")
        figure.savefig(temporary, format=suffix, metadata=metadata, bbox_inches="tight")
        os.replace(temporary, target)
    return directory / f"{name}.png"
