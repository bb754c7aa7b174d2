"""The executed notebooks, docs and reports as one static site, which opens from a file and needs no network.

    make site                                                 # site/index.html, of the results that are shipped
    python -m tools.site results/mini results/shipped/published_small

Nothing is run: pages are the executed copies under ``notebooks/`` of the results folders, ``report.html`` and ``tsne.html``
of the same, README and docs. Pictures lie inside the pages, formulas become pictures; links to a notebook or a document lead
to its page, links to other files of the repository are left as words.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import os
import re
import shutil
from pathlib import Path

import nbformat
from markupsafe import Markup
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from jmp_lib.results import claims, pages

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [ROOT / "results" / "shipped" / name for name in ("mini", "published_small")]
KINDS = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def build(results: list[Path], target: Path) -> Path:
    """Writes the site of the results folders into ``target``, in the place of what was there; returns its first page.

    Raises ``FileNotFoundError`` when no folder holds an executed notebook, ``ValueError`` when ``target`` is no site.
    """
    if target.exists() and not (target / "index.html").is_file():
        raise ValueError(f"{target} is there and is no site: move it away, or give another folder with --out")
    sources = {"README.html": ROOT / "README.md", **{f"docs/{p.stem}.html": p for p in sorted((ROOT / "docs").glob("*.md"))}}
    contents = {"Documents": {page: title(path) for page, path in sources.items()}}
    for folder in results:
        found = {f"{folder.name}/{path.stem}.html": path for path in sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
        sources |= found
        whole = {f"{folder.name}/{name}.html": words for name, words in (
            ("report", "Report on one page"), ("tsne", "Embeddings to explore"), ("comparison", "Beside the shipped run"))
            if (folder / f"{name}.html").is_file()}
        contents[f"Notebooks as run: {folder.name}"] = {**{page: title(path) for page, path in found.items()}, **whole}
    if not any(path.suffix == ".ipynb" for path in sources.values()):
        raise FileNotFoundError(f"no executed notebooks in {', '.join(map(str, results))}: run `make reproduce` first")
    order = [("index.html", "Start"), *(page for group in contents.values() for page in group.items() if page[0] in sources)]
    made = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    template = pages.environment(Path(__file__).parent).get_template("site.html.j2")
    for place, (page, name) in enumerate(order):
        body = front(results) if page == "index.html" else text_of(sources[page])
        body = with_links(body, page, sources)
        wanted = made / page
        wanted.parent.mkdir(parents=True, exist_ok=True)
        values = {"title": name, "body": body, "here": page, "up": "../" * page.count("/"), "contents": contents,
                  "wide": page == "index.html", "previous": order[place - 1] if place else None,
                  "following": (order[place + 1:] or [None])[0], "pygments": colours()}
        wanted.write_text(template.render(values), encoding="utf-8")
    for folder in results:
        for name in ("report", "tsne", "comparison"):
            if (folder / f"{name}.html").is_file():
                shutil.copy(folder / f"{name}.html", made / folder.name)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    return target / "index.html"


def front(results: list[Path]) -> str:
    """The first page: what this is, and the scoreboard of each results folder with links to the evidence."""
    parts = ["<h1>JMP workbook</h1><p>The study of <i>From Molecules to Materials</i> (ICLR 2024) as notebooks that were run. Values "
             "of this workbook come from small or reduced data and networks; they compare arms with each other and are never a "
             "reproduction of a printed value.</p>"]
    for folder in results:
        board = claims.scoreboard(folder / "records")
        links = [Markup('<a href="{0}/{1}.html">{1}</a>').format(folder.name, name)
                 if (folder / "notebooks" / f"{name}.ipynb").is_file() else name for name in board.pop("notebook")]
        parts.append(f"<h2>{html.escape(folder.name)}: claims of the paper, and what is seen here</h2>")
        parts.append(pages.table_html(board.assign(evidence=links), words=True))
    return "\n".join(parts)


def text_of(path: Path) -> str:
    """The body of a page: an executed notebook, or Markdown; pictures inside, formulas as pictures."""
    if path.suffix == ".ipynb":
        exporter = HTMLExporter(template_name="lab", template_file="base.html.j2", exclude_input_prompt=True, exclude_output_prompt=True)
        body = exporter.from_notebook_node(nbformat.read(path, as_version=4))[0]
    else:
        body = markdown2html(path.read_text(encoding="utf-8")).replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'(<img[^>]*?\bsrc=")([^":]+)(")', lambda m: m[1] + picture(path.parent / m[2]) + m[3], body)
    return re.sub(r"(?<![\\\w$])\$(?!\s)([^$<\n]*\\[^$<\n]*|[^$<\n]{1,60}[_^=][^$<\n]*)(?<!\s)\$(?!\w)", lambda m: formula(html.unescape(m[1])), body)


def picture(path: Path) -> str:
    """A picture as an address that holds it; its name where there is none."""
    if not path.is_file():
        return path.name
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def formula(tex: str) -> str:
    """A formula as a picture in the text, with its TeX as words for those who do not see it."""
    stream = io.BytesIO()
    try:
        math_to_image(f"${tex}$", stream, dpi=200, format="png")
    except ValueError:  # matplotlib knows a part of TeX
        return f"<code>{html.escape(tex)}</code>"
    drawn = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(tex)}" style="height:1.3em;vertical-align:-.3em" src="data:image/png;base64,{drawn}">'


def with_links(body: str, page: str, sources: dict[str, Path]) -> str:
    """Links between files of the repository as links between pages; those that lead to no page become words."""
    known = {path.name: target for target, path in reversed(sources.items())}
    nearest = {path.name: target for target, path in sources.items() if target.split("/")[0] == page.split("/")[0]}

    def link(match):
        address, part, words = match[1].partition("#")[0], match[1].partition("#")[2], match[2]
        if match[1].startswith(("#", "http:", "https:", "mailto:")):
            return match[0]
        target = address if address.endswith(".html") else (known | nearest).get(address.rsplit("/", 1)[-1])
        if target is None:
            return words
        target = target if page == "index.html" else os.path.relpath(target, Path(page).parent)
        return f'<a href="{target}{"#" * bool(part)}{part}">{words}</a>'

    return re.sub(r'<a href="([^"]+)"[^>]*>(.*?)</a>', link, body, flags=re.DOTALL)


def title(path: Path) -> str:
    """The first heading of a notebook or a document."""
    if path.suffix == ".md":
        return re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1]
    return nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0].lstrip("# ")


def colours() -> str:
    """Style of the code: one set of colours for light pages, one for dark ones."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "monokai"))
    plain = [re.sub(r"\.highlight \{ background[^}]*\}", "", css) for css in (light, dark)]
    return f"{plain[0]}\n@media (prefers-color-scheme: dark) {{ {plain[1]} }}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="*", type=Path, help="folders of results; none: those that are shipped")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    chosen = parser.parse_args()
    try:
        print(f"open {build([p.resolve() for p in chosen.results] or SHIPPED, chosen.out.resolve())}")
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()
