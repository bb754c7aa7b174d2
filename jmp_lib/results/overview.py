"""Figures of the method as a whole, drawn from the facts of the paper: what is trained on what,
and what each step costs."""

from __future__ import annotations

import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch

from jmp_lib import facts
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.results.style import DOMAIN_COLOURS, PALETTE, log_axis, new_figure, rows_tight
from jmp_lib.results.views import domain_of
from jmp_lib.train.sampling import temperature_ratios

BACKBONE = "#888888"


def method():
    """The paper's method: four sets with a head each and one backbone (above), whose weights then
    start the tasks (below)."""
    numbers, sets = facts.hyperparameters()["pretraining"], facts.datasets().query("stage == 'pre-training'")
    sizes, temperature = numbers["train_sizes_in_paper"], numbers["sampling"]["temperature"]
    shares = temperature_ratios(list(sizes.values()), temperature)
    titles, periodic = (dict(zip(sets["pretraining_name"], sets[column])) for column in ("dataset", "periodic"))
    families = facts.tasks().groupby("family", sort=False).size()
    figure, (axis,) = new_figure(width=8.6, height=5.2)
    axis.set(xlim=(0, 100), ylim=(0, 100))
    axis.set_axis_off()
    for row, (name, size) in enumerate(sizes.items()):
        y, colour = 92 - 11 * row, DOMAIN_COLOURS["catalysts" if periodic[name] else "molecules"]
        _box(axis, 11, y, 20, 9, f"{titles[name]}\n{size / 1e6:g} million structures", colour)
        _box(axis, 88, y, 22, 9, f"head of {titles[name]}\nenergy, forces", colour)
        _arrow(axis, (21, y), (42, 75.5), f"{100 * shares[row]:.0f} % of draws", 0.42)
        _arrow(axis, (62, 75.5), (77, y))
    for row, (family, count) in enumerate(families.items()):
        y, colour = 44 - 8 * row, DOMAIN_COLOURS[domain_of(family)]
        _box(axis, 11, y, 20, 7, f"{FAMILIES[family].title}, {count} task" + "s" * (count > 1), colour)
        _box(axis, 88, y, 22, 7, "a new head for each" if count > 1 else "a new head", colour)
        _arrow(axis, (21, y), (42, 24))
        _arrow(axis, (62, 24), (77, y))
    _box(axis, 52, 75.5, 20, 22, "one backbone\nGemNet-OC\n\nall sets together", BACKBONE)
    _box(axis, 52, 24, 20, 22, "the same backbone\n\none task at a time", BACKBONE)
    _arrow(axis, (52, 64.5), (52, 35), "averaged weights (EMA)", 0.5)
    axis.text(52, 98, f"pre-training, once (draws at temperature {temperature:g})", ha="center",
              va="center", fontsize=9, weight="bold")
    axis.text(52, 50.5, f"fine-tuning, {families.sum()} times", ha="center", va="center", fontsize=9, weight="bold",
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
    return figure


def costs(table):
    """GPU-hours of the paper beside minutes of this workbook (``speedup.cost_table``), each on a logarithmic axis."""
    names = [name for name in table if name != "step"]
    figure, axes = new_figure(1, len(names), width=8.0, height=1.9, sharey=True)
    for axis, name in zip(axes, names):
        # a bar has no start on such an axis
        sns.scatterplot(table, x=name, y="step", color=PALETTE[0], s=45, linewidth=0, ax=axis)
        for place, value in enumerate(table[name]):
            axis.annotate(f"{value:,g}", (value, place), (7, 0), textcoords="offset points", va="center", fontsize=8)
        rows_tight(axis, len(table))
        if (table[name] > 0).all():
            axis.set_xlim(table[name].min() / 4, table[name].max() * 3)
            log_axis(axis, "x")
    return figure


def _box(axis, x: float, y: float, width: float, height: float, words: str, colour: str) -> None:
    axis.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height,
                                  boxstyle="round,pad=0,rounding_size=1.5",
                                  facecolor=to_rgba(colour, 0.3), edgecolor=colour, linewidth=1.2))
    axis.text(x, y, words, ha="center", va="center", fontsize=8)


def _arrow(axis, start: tuple, end: tuple, words: str = "", at: float = 0.5) -> None:
    axis.annotate("", end, start,
                  arrowprops={"arrowstyle": "-|>", "color": "#777777", "linewidth": 0.9, "shrinkA": 2, "shrinkB": 2})
    if words:
        x, y = (a + at * (b - a) for a, b in zip(start, end))
        axis.text(x, y, words, ha="center", va="center", fontsize=7.5,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
