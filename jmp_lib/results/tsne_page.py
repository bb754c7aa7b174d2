"""The t-SNE picture as one HTML page that needs nothing else: no network, no library.

Hovering shows formula, element, data set and domain; sets and domains can be hidden, elements and formulas found.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from jmp_lib.files import write_atomically
from jmp_lib.results.style import DOMAIN_COLOURS, PALETTE, SET_MARKERS
from jmp_lib.results.templates import render

COLUMNS = ("set", "domain", "element", "formula", "x", "y")


def tsne_page(points: pd.DataFrame, title: str, text: str) -> str:
    """The page of ``points`` (columns ``COLUMNS``, one row per structure and element), as HTML.

    Sets have the colours and markers of :func:`jmp_lib.results.figures.embedding_scatter`. Raises ValueError when a column
    is missing, a domain has no colour or a place is not finite.
    """
    missing = [name for name in COLUMNS if name not in points]
    if missing:
        raise ValueError(f"the points of the t-SNE page lack the column {', '.join(missing)}")
    unknown = sorted(set(points["domain"]) - set(DOMAIN_COLOURS))
    if unknown:
        raise ValueError(f"no colour for the domain {unknown[0]!r}; there are {', '.join(DOMAIN_COLOURS)}")
    if len(points) == 0 or not points[["x", "y"]].abs().lt(float("inf")).all(axis=None):
        raise ValueError("the points of the t-SNE page need finite x and y, and at least one row")
    domain = points.groupby("set")["domain"].first()
    sets = {name: {"domain": domain[name], "colour": colour, "marker": marker}
            for name, colour, marker in zip(sorted(domain.index), PALETTE * len(domain), SET_MARKERS * len(domain))}
    columns = points[["set", "element", "formula", "x", "y"]].to_numpy(object)
    data = {"sets": sets, "domains": {d: c for d, c in DOMAIN_COLOURS.items() if d in set(domain)},
            "points": [[s, e, f, round(float(x), 2), round(float(y), 2)] for s, e, f, x, y in columns]}
    return render("tsne_page", title=title, text=text, data=data)


def save_tsne_page(points: pd.DataFrame, path: str | Path, title: str, text: str) -> Path:
    """Writes :func:`tsne_page` atomically to ``path`` and returns it."""
    page = tsne_page(points, title, text)
    with write_atomically(path) as stream:
        stream.write(page)
    return Path(path)
