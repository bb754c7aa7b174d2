"""The interactive t-SNE page: one file that needs no network and holds every point."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from jmp_lib.results.pages import tsne_page


@pytest.fixture
def points() -> pd.DataFrame:
    return pd.DataFrame({"set": ["qm9-mini", "qm9-mini", "oc20-mini"],
                         "domain": ["molecules", "molecules", "catalysts"],
                         "structure": [1, 1, 2], "element": ["C", "O", "Cu"], "formula": ["CH4O", "CH4O", "</script>"],
                         "x": [0.123456, 1.0, -2.0], "y": [0.0, 1.0, 2.5]})


def embedded(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_every_point_with_what_hovering_shows(points, tmp_path):
    path = tsne_page(points, tmp_path / "new" / "tsne.html", "t-SNE <small>", "words & more")
    page = path.read_text()
    data = embedded(page)
    assert data["points"][0] == ["qm9-mini", "C", "CH4O", 0.12, 0.0] and len(data["points"]) == 3
    assert data["sets"]["oc20-mini"]["domain"] == "catalysts" and set(data["domains"]) == {"molecules", "catalysts"}
    assert data["points"][2][2] == "</script>", "nothing of the data ends the script"
    assert "t-SNE &lt;small&gt;" in page and "words &amp; more" in page and "{{" not in page
    assert [p.name for p in path.parent.iterdir()] == ["tsne.html"]


def test_it_loads_nothing_from_elsewhere(points, tmp_path):
    page = tsne_page(points, tmp_path / "tsne.html", "title", "text").read_text()
    assert not re.search(r'\b(src|href)\s*=|https?://|@import|url\(|\bfetch\(|\bimport\b', page)
    assert len(page) < 100_000


@pytest.mark.parametrize(("change", "words"), [
    (lambda p: p.assign(x=float("nan")), "finite"),
    (lambda p: p.iloc[:0], "at least one row"),
])
def test_bad_points_are_refused_in_words(points, change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        tsne_page(change(points), tmp_path / "tsne.html", "title", "text")
