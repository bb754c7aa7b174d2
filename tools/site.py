"""The executed notebooks, docs and reports as one static site, which opens from a file and needs no network.

    make site                                                 # site/index.html, of the results that are shipped
    python -m tools.site results/mini results/shipped/published_small

Nothing is run: pages are the executed copies under ``notebooks/`` of the results folders, ``report.html`` and
``tsne.html`` of the same, README and docs. Pictures lie inside the pages, formulas become pictures; links to a
notebook or a document lead to its page, links to other files of the repository are left as words.
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
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from jmp_lib.results import claims, pages

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [ROOT / "results" / "shipped" / name for name in ("mini", "published_small")]
FOLDS = {"(a solution begins)": "<details><summary>Solution</summary>", "(a solution ends)": "</details>"}
KINDS = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def build(results: list[Path], target: Path) -> Path:
    """Writes the site of the results folders into ``target``, in the place of what was there; returns its first page.

    Raises ``FileNotFoundError`` when no folder holds an executed notebook, ``ValueError`` when ``target`` is no site.
    """
    if target.exists() and not (target / "index.html").is_file():
        raise ValueError(f"{target} is there and is no site: move it away, or give another folder with --out")
    sources = {"README.html": ROOT / "README.md",
               **{f"docs/{p.stem}.html": p for p in sorted((ROOT / "docs").glob("*.md"))}}
    contents = {"Documents": {page: title(path) for page, path in sources.items()}}
    for folder in results:
        found = {f"{folder.name}/{path.stem}.html": path
                 for path in sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
        sources |= found
        whole = {f"{folder.name}/{name}.html": words for name, words in (
            ("report", "Report on one page"), ("tsne", "Embeddings to explore"),
            ("comparison", "Beside the shipped run")) if (folder / f"{name}.html").is_file()}
        contents[f"Notebooks as run: {folder.name}"] = {**{page: title(path) for page, path in found.items()}, **whole}
    if not any(path.suffix == ".ipynb" for path in sources.values()):
        raise FileNotFoundError(f"no executed notebooks in {', '.join(map(str, results))}: run `make reproduce` first")
    contents["Documents"]["README.html"] = "README"
    order = [("index.html", "Start"),
             *(page for group in contents.values() for page in group.items() if page[0] in sources)]
    made = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    template = pages.environment(Path(__file__).parent).get_template("site.html.j2")
    for place, (page, name) in enumerate(order):
        body = front(results) if page == "index.html" else text_of(sources[page])
        body = with_links(body, page, sources)
        wanted = made / page
        wanted.parent.mkdir(parents=True, exist_ok=True)
        values = {"title": name, "body": body, "here": page, "up": "../" * page.count("/"), "contents": contents,
                  "wide": page == "index.html", "previous": beside(order[place - 1], page) if place else None,
                  "following": beside(order[place + 1], page) if place + 1 < len(order) else None,
                  "pygments": colours()}
        wanted.write_text(template.render(values), encoding="utf-8")
    for folder in results:
        for name in ("report", "tsne", "comparison"):
            if (folder / f"{name}.html").is_file():
                whole = with_links((folder / f"{name}.html").read_text(encoding="utf-8"),
                                   f"{folder.name}/{name}.html", sources)
                start = '<nav aria-label="contents">'
                whole = whole.replace(start, f'{start}<a href="../index.html">← All pages</a>', 1)
                (made / folder.name / f"{name}.html").write_text(whole, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    return target / "index.html"


def beside(page: tuple[str, str], here: str) -> tuple[str, str]:
    """The page before or after ``here``; of another results folder, with the name of that."""
    (address, name), folder = page, page[0].partition("/")[0]
    inside = "/" in address and folder != "docs" and folder != here.partition("/")[0]
    return (address, f"{folder}: {name}") if inside else page


def front(results: list[Path]) -> str:
    """The first page: what this is, and the scoreboard of each results folder with links to the evidence."""
    parts = ["<h1>JMP workbook</h1><p>The study of <i>From Molecules to Materials</i> (ICLR 2024) "
             "as notebooks that were run. Values of this workbook come from small or reduced data and networks; "
             "they compare arms with each other and are never a reproduction of a printed value.</p>"]
    for folder in results:
        board = claims.scoreboard(folder / "records")
        parts.append(f"<h2>{html.escape(folder.name)}: claims of the paper, and what is seen here</h2>")
        parts.append(pages.table_html(pages.with_evidence(board, f"{folder.name}/"), words=True))
    return "\n".join(parts)


def text_of(path: Path) -> str:
    """The body of a page: an executed notebook, or Markdown; pictures inside, formulas as pictures."""
    if path.suffix == ".ipynb":
        exporter = HTMLExporter(template_name="lab", template_file="base.html.j2",
                                exclude_input_prompt=True, exclude_output_prompt=True)
        notebook = nbformat.read(path, as_version=4)
        notebook.cells = [shown for cell in notebook.cells for shown in folded(cell)]
        body = exporter.from_notebook_node(notebook)[0]
        for mark, tag in FOLDS.items():
            body = body.replace(mark, tag)
    else:
        body = markdown2html(path.read_text(encoding="utf-8"))
        body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
        body = re.sub(r'(<h\d id=")([^"]+)', lambda m: m[1] + re.sub(r"[^\w-]", "", html.unescape(m[2]).lower()), body)
        body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'(<img[^>]*?\bsrc=")([^":]+)(")', lambda m: m[1] + picture(path.parent / m[2]) + m[3], body)
    formulas = r"(?<![\\\w$])\$(?!\s)([^$<\n]*\\[^$<\n]*|[^$<\n]{1,60}[_^=][^$<\n]*|[A-Za-z])(?<!\s)\$(?!\w)"
    return re.sub(formulas, lambda m: formula(html.unescape(m[1])), body)


def folded(cell) -> list:
    """A cell; a solution, which JupyterLab shows folded, between the marks of tags that fold it (as tags
    nbconvert would mend them)."""
    if "solution" not in cell.metadata.get("tags", []):
        return [cell]
    around = [nbformat.v4.new_raw_cell(mark, metadata={"raw_mimetype": "text/html"}) for mark in FOLDS]
    return [around[0], cell, around[1]]


def picture(path: Path) -> str:
    """A picture as an address that holds it; its name where there is none."""
    if not path.is_file():
        return path.name
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def formula(tex: str) -> str:
    """A formula as a picture in the text, with its TeX as words for those who do not see it."""
    stream = io.BytesIO()
    try:
        # below the line, in points of a text of 10 points
        depth = math_to_image(f"${tex}$", stream, dpi=200, format="png")
    except ValueError:  # matplotlib knows a part of TeX
        return f"<code>{html.escape(tex)}</code>"
    drawn, height = base64.b64encode(stream.getvalue()).decode(), int.from_bytes(stream.getvalue()[20:24]) * 72 / 200
    style = f"height:{height / 10:.2f}em;vertical-align:{-depth / 10:.2f}em"
    return f'<img class="tex" alt="{html.escape(tex)}" style="{style}" src="data:image/png;base64,{drawn}">'


def with_links(body: str, page: str, sources: dict[str, Path]) -> str:
    """Links between files of the repository as links between pages; those that lead to no page become words."""
    known = {path.name: target for target, path in reversed(sources.items())}
    nearest = {path.name: target for target, path in sources.items() if target.split("/")[0] == page.split("/")[0]}

    def link(match):
        address, part, words = match[1].partition("#")[0], match[1].partition("#")[2], match[2]
        if match[1].startswith(("#", "http:", "https:", "mailto:")):
            return match[0]
        own = os.path.normpath(Path(page).parent / re.sub(r"(notebooks/)?(\w+)\.ipynb$", r"\2.html", address))
        target = (address if address.endswith(".html") else own if own in sources
                  else (known | nearest).get(address.rsplit("/", 1)[-1]))
        if target is None:
            return words
        target = (target if page == "index.html" or address.endswith(".html")
                  else os.path.relpath(target, Path(page).parent))
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
