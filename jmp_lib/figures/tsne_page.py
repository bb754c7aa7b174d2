"""The t-SNE picture as one HTML page that needs nothing else: no network, no library.

Hovering shows formula, element, data set and domain; sets and domains can be hidden, elements and formulas found.
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import pandas as pd

from .style import DOMAIN_COLOURS, PALETTE, SET_MARKERS

TEMPLATE = Path(__file__).with_name("tsne_page.html")
COLUMNS = ("set", "domain", "element", "formula", "x", "y")


def tsne_page(points: pd.DataFrame, title: str, text: str) -> str:
    """The page of ``points`` (columns ``COLUMNS``, one row per structure and element), as HTML.

    Sets have the colours and markers of :func:`jmp_lib.figures.embedding_scatter`. Raises ValueError when a column is
    missing, a domain has no colour or a place is not finite.
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
    sets = {name: {"domain": domain[name], "colour": PALETTE[number % len(PALETTE)],
                   "marker": SET_MARKERS[number % len(SET_MARKERS)]} for number, name in enumerate(sorted(domain.index))}
    columns = points[["set", "element", "formula", "x", "y"]]
    data = {"sets": sets, "domains": {d: c for d, c in DOMAIN_COLOURS.items() if d in set(domain)},
            "points": [[s, e, f, round(float(x), 2), round(float(y), 2)] for s, e, f, x, y in columns.to_numpy(object)]}
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8")
    for mark, value in (("__TITLE__", html.escape(title)), ("__TEXT__", html.escape(text)), ("__DATA__", embedded)):
        page = page.replace(mark, value)
    return page


def save_tsne_page(points: pd.DataFrame, path: str | Path, title: str, text: str) -> Path:
    """Writes :func:`tsne_page` atomically to ``path`` and returns it."""
    path = Path(path)
    page = tsne_page(points, title, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path
