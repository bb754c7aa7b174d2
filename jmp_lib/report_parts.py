"""Pieces of the HTML report: tables, figures as embedded pictures, the style sheet.  No piece refers to another file."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import pandas as pd

STYLE = """
:root { --line: #d5d5d5; --soft: #f5f6f8; --own: #0072b2; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; margin: 0 auto; max-width: 1180px; padding: 0 24px 60px; }
h1 { font-size: 26px; margin: 28px 0 4px; } h2 { font-size: 20px; margin: 40px 0 8px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 24px 0 6px; } nav a { margin-right: 14px; white-space: nowrap; }
p, li { max-width: 90ch; } code { background: var(--soft); padding: 0 3px; }
.notice { border-left: 4px solid #d55e00; background: var(--soft); padding: 8px 14px; }
.wide { overflow-x: auto; margin: 8px 0 16px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; border-bottom: 1px solid #e6e6e6; text-align: right; vertical-align: top; }
thead th { background: var(--soft); text-align: center; }
th:first-child, td:first-child, .words td { text-align: left; }
td.own, th.own { color: var(--own); }
figure { margin: 14px 0 26px; } figure img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 0 24px; align-items: start; }
iframe { width: 100%; height: 640px; border: 1px solid var(--line); } summary { cursor: pointer; font-weight: 600; }
@media print { iframe, nav { display: none; } body { max-width: none; } }
"""


def escaped(text) -> str:
    """Text that is safe inside HTML."""
    return html.escape(str(text))


def number(value, digits: int = 4) -> str:
    """A cell: ``digits`` significant digits without an exponent where that is readable; blank for a missing value."""
    if value is None or value is pd.NA or isinstance(value, float) and pd.isna(value):
        return ""
    if not isinstance(value, float):
        return escaped(value)
    return f"{value:.{digits}g}" if not 1e-4 < abs(value) < 1e7 else f"{float(f'{value:.{digits}g}'):,.10g}".replace(",", "")


def table(frame: pd.DataFrame, words: bool = False) -> str:
    """A data frame as an HTML table; ``words`` aligns all cells to the left.

    Columns named ``published MODEL`` and ``own ARM`` come under two common headings.
    """
    names = [str(name) for name in frame.columns]
    head = _halves(names) if any(name.startswith("own ") for name in names) else \
        "<tr>" + "".join(f"<th>{escaped(name)}</th>" for name in names) + "</tr>"
    own = [' class="own"' if name.startswith("own ") else "" for name in names]
    rows = ["<tr>" + "".join(f"<td{mark}>{number(cell)}</td>" for mark, cell in zip(own, row, strict=True)) + "</tr>"
            for row in frame.itertuples(index=False)]
    return (f'<div class="wide"><table{" class=words" if words else ""}><thead>{head}</thead><tbody>'
            + "\n".join(rows) + "</tbody></table></div>")


def _halves(names: list[str]) -> str:
    """Two rows of headings: plain columns, then the published half, then the own half."""
    titles = {"published": "paper (published data)", "own": "this workbook"}
    first, second, seen = [], [], set()
    for name in names:
        half, _, rest = name.partition(" ")
        if half not in titles:
            first.append(f'<th rowspan="2">{escaped(name)}</th>')
            continue
        if half not in seen:
            span = sum(other.startswith(f"{half} ") for other in names)
            first.append(f'<th colspan="{span}" class="{half}">{titles[half]}</th>')
            seen.add(half)
        second.append(f'<th class="{half}">{escaped(rest)}</th>')
    return f"<tr>{''.join(first)}</tr><tr>{''.join(second)}</tr>"


def picture(path: Path, caption: str) -> str:
    """A PNG file as an embedded picture with at most 256 colours, chosen so that thin coloured lines keep theirs."""
    from PIL import Image

    shrunk = io.BytesIO()
    with Image.open(path) as image:
        width, height = image.size
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(shrunk, format="PNG", optimize=True)
    data = base64.b64encode(shrunk.getvalue()).decode()
    return (f'<figure><img width="{width}" height="{height}" alt="{escaped(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escaped(caption)}</figcaption></figure>")


def page(title: str, sections: list[tuple[str, str, str]]) -> str:
    """A whole page; ``sections`` are (id, heading, HTML); the first stands under the title."""
    links = "".join(f'<a href="#{key}">{escaped(name)}</a>' for key, name, _ in sections)
    body = "\n".join(f'<section id="{key}"><h2>{escaped(name)}</h2>\n{text}</section>' for key, name, text in sections)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escaped(title)}</title>'
            f"<style>{STYLE}</style></head>\n<body><h1>{escaped(title)}</h1><nav>{links}</nav>\n{body}\n</body></html>\n")
