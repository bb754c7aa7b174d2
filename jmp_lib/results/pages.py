"""Two HTML files that refer to no other one, so that they can be sent to a colleague; both are jinja2 templates here.

``report.html`` tells a profile's whole run (``python -m jmp_lib report --profile mini``): tables 2-5, the claims, all
figures, a list of all records, from the records and figures of the results folder; nothing is run. ``tsne.html`` shows
the t-SNE picture: hovering shows formula, element, data set and domain; sets and domains can be hidden, elements found.
"""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import groupby
from pathlib import Path
from string import ascii_lowercase

import jinja2
import numpy as np
import pandas as pd
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from IPython.display import HTML
from markupsafe import Markup
from matplotlib.colors import to_hex
from PIL import Image

from jmp_lib.data.tasks import TASKS, load_task_data
from jmp_lib.files import file_sha256, write_atomically
from jmp_lib.records import load_pretraining_records, pretrain_record_path, unpacked_errors
from jmp_lib.results import intervals, tables
from jmp_lib.results.speedup import speedup_table, speedup_totals
from jmp_lib.results.style import DOMAIN_COLOURS, PALETTE, SET_MARKERS, shared_words, unit_text
from jmp_lib.results.summary import speedup_lines
from jmp_lib.results.values import PAPER, finetune_records, is_comparable, records_table

HEADINGS = {"n_train": "training structures", "n_test": "test structures", "wall_time_s": "seconds",
            "target_val": "best validation error from scratch", "scratch_steps": "updates from scratch",
            "jmp_steps": "updates pre-trained", "ratio_steps": "ratio of updates",
            "ratio_seconds": "ratio of times"}  # column of a table -> what is shown
HALVES = {"published": PAPER, "own": "this workbook"}  # start of a column's name -> common heading
GAINS = re.compile(r"\bover\b|gain|improvement")  # columns in % that are gains, with a sign; others are shares
CLAIMS = {"claim": "claim", "published": "printed", "recomputed_from_published": "recomputed from the printed tables",
          "agrees": "these two agree", "own": "this workbook", "own_data": "data of this workbook"}  # column -> heading


def environment(*folders: Path) -> jinja2.Environment:
    """Where templates of ``folders``, and those here, are found; what they print is escaped."""
    made = jinja2.Environment(loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
                              autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
                              undefined=jinja2.StrictUndefined)
    made.policies["json.dumps_function"] = lambda value, **_: json.dumps(
        value, ensure_ascii=False, separators=(",", ":"))
    made.filters["number"] = number
    return made


def write_page(path: Path, name: str, **values) -> Path:
    """The template ``name``.html.j2 filled with ``values`` (escaped), written to ``path``."""
    with write_atomically(path) as stream:
        stream.write(environment().get_template(f"{name}.html.j2").render(values))
    return path


def tsne_page(points: pd.DataFrame, path: str | Path, title: str, text: str, structures: dict | None = None) -> Path:
    """Writes the page of ``points`` (of :func:`jmp_lib.embeddings.tsne`, one row per structure and element)
    and returns its path.

    ``structures`` {set: structures with an id}: clicking a point (column ``structure``: the id) shows its structure.
    """
    if len(points) == 0 or not points[["x", "y"]].abs().lt(float("inf")).all(axis=None):
        raise ValueError("the points of the t-SNE page need finite x and y, and at least one row")
    domain = points.groupby("set")["domain"].first()
    sets = {name: {"domain": domain[name], "colour": colour, "marker": marker}
            for name, colour, marker in zip(domain.index, PALETTE * len(domain), SET_MARKERS * len(domain))}
    columns, drawn = ["set", "element", "formula", "x", "y"], {}
    if structures:
        points, columns = points.assign(key=points["set"] + " " + points["structure"].astype(str)), [*columns, "key"]
        drawn = {f"{name} {s['id']}": s for name, several in structures.items() for s in several}
        drawn = {key: drawn[key] for key in points["key"].unique()}
    data = {"sets": sets, "domains": {d: c for d, c in DOMAIN_COLOURS.items() if d in set(domain)},
            "points": points[columns].round(2).values.tolist(), **drawings(drawn)}
    return write_page(Path(path), "tsne_page", title=title, text=text, data=data)


def drawings(structures: dict) -> dict:
    """What ``viewer.js.j2`` draws of {key: structure}: ``structures`` (places in Å, symbols, bonds between atoms
    nearer than 1.2 times the sum of their covalent radii, cell), ``colours`` and ``radii`` (Å) of the elements.
    Molecules face the reader."""
    drawn, elements = {}, set()
    for key, structure in structures.items():
        numbers, places = np.asarray(structure["atomic_numbers"]), np.asarray(structure["pos"], float)
        cell = np.asarray(structure["cell"], float).round(2).tolist() if np.any(np.asarray(structure["pbc"])) else None
        if cell is None:
            places = (places - places.mean(0)) @ np.linalg.svd(places - places.mean(0))[2].T
        reach = 1.2 * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
        near = np.linalg.norm(places[:, None] - places, axis=-1) < reach
        drawn[key] = {"pos": places.round(2).tolist(), "elements": [chemical_symbols[n] for n in numbers],
                      "bonds": np.argwhere(np.triu(near, 1)).tolist(), "cell": cell}
        elements.update(numbers.tolist())
    return {"structures": drawn, "colours": {chemical_symbols[n]: to_hex(jmol_colors[n]) for n in sorted(elements)},
            "radii": {chemical_symbols[n]: float(covalent_radii[n]) for n in sorted(elements)}}


def write_report(results_dir: str | Path, name: str) -> Path:
    """Writes ``report.html`` of a results folder and returns its path; ``name`` is the profile's."""
    results_dir = Path(results_dir)
    records_dir = results_dir / "records"
    records, pretraining = finetune_records(records_dir), load_pretraining_records(results_dir)
    if not records and not pretraining:
        raise ValueError(f"{results_dir} holds no records to report on: run `make reproduce PROFILE={name}` first")
    every, runs, tsne = [*pretraining, *records], records_table(records_dir), results_dir / "tsne.html"
    all_tasks = tables.all_tasks_table(records_dir)
    scaling = tables.scaling_table(all_tasks)
    over_all = scaling[scaling["family"] == "all"]
    means = pd.DataFrame({
        "mean over all tasks / %": over_all["comparison"],
        "published improvement": over_all["published_mean_gain_percent"].map(percent),
        "published tasks": over_all["published_tasks"], "own improvement": tables.own_cells(over_all),
        "own tasks improved": [f"{a:.0f} of {b:.0f}" if b else ""
                               for a, b in zip(over_all["own_tasks_improved"], over_all["own_tasks"])]})
    paper_tables = [table(frame, title=title, notes=notes) for number, title in tables.TITLES.items()
                    for frame, notes in [tables.printed_table(number, all_tasks)]]

    def file(path: Path) -> dict[str, str]:
        return {"record": path.relative_to(results_dir).as_posix(), "SHA-256": file_sha256(path)[:16]}

    return write_page(
        results_dir / "report.html", "report", title=f"JMP workbook: results of the profile {name}",
        kinds={str(r.get("data_kind")) for r in records}, smoke=not all(is_comparable(r) for r in every),
        means=table(means), families=table(tables.means_table(scaling)), paper_tables=paper_tables,
        speedups=speedup_lines(speedup_totals(speedup_table(records_dir))),
        folds=table(tables.folds_table(records_dir), title="MatBench, fold by fold"),
        scoreboard=table(with_evidence(tables.scoreboard(records_dir), "notebooks/"), words=True, title="Scoreboard"),
        claims=table(tables.claims_table(records_dir)[list(CLAIMS)].rename(columns=CLAIMS), words=True),
        figures=[_picture(path) for path in sorted((results_dir / "figures").glob("[0-9][0-9]_*.png"))],
        worst=drawings(worst(records)),
        tsne=tsne.read_text(encoding="utf-8") if tsne.is_file() else None, count=len(every),
        hours=sum(r.get("wall_time_s") or 0.0 for r in every if "shipped" not in r) / 3600, made=made_with(every),
        pretrained=table(pd.DataFrame([{
            "pre-training": r["size"], "parameters": r["model"]["n_parameters"], "updates": r["updates"],
            "minutes": r["wall_time_s"] / 60,
            **file(pretrain_record_path(results_dir, r["size"]))} for r in pretraining])),
        finetuned=table(pd.DataFrame({
            "task": runs["task"], "arm": runs["arm"], "fold": runs["fold"], "test error": runs["value"],
            "trivial prediction": runs["trivial"], "unit": runs["unit"],
            "train / val / test": [f"{r.n_train} / {r.n_val} / {r.n_test}"
                                   for r in runs.astype({"n_val": "Int64"}).itertuples()], "updates": runs["updates"],
            "seconds": runs["wall_time_s"], "data": runs["data"].str.split(" (", regex=False).str[0],
            **pd.DataFrame([file(results_dir / record) for record in runs["record"]])}), words=True))


def table(frame: pd.DataFrame, words: bool = False, title: str = "", notes=()) -> dict:
    """What the template shows of a data frame: columns (half, name), rows; ``words`` aligns all cells to the left.

    Columns named ``published MODEL`` and ``own ARM`` come under two common headings, where there are own ones. Units
    are typeset, gains in % have their sign, an interval stands in the cell of its value, large counts have commas.
    The table of ``views.compare`` has its own headings. ``notes`` stand below: pairs of a letter (or "") and words.
    """
    halves = HALVES
    if isinstance(frame.columns, pd.MultiIndex):  # views.compare
        halves = dict(zip(HALVES, frame.columns.unique(0)))
        names = [f"{half} {name}" for half, heading in halves.items() for name in frame[heading]]
        frame = frame.set_axis(names, axis=1).reset_index()
    frame = _with_intervals(frame)
    gains = [name for name in frame
             if str(name).endswith("/ %") and GAINS.search(name) and pd.api.types.is_float_dtype(frame[name])]
    written = dict.fromkeys(gains, percent) | dict.fromkeys({"unit"} & set(frame), unit_text)  # else by ``number``
    written |= dict.fromkeys([name for name in frame if "train / val / test" in str(name)], _commas)
    written |= dict.fromkeys({"jmp_steps"} & set(frame),
                             lambda steps: "not reached" if pd.isna(steps) else number(steps))
    frame = frame.assign(**{name: frame[name].map(write) for name, write in written.items()})
    frame = frame.rename(columns=HEADINGS)
    split = [str(name).partition(" ") for name in frame.columns]
    halves = halves if any(half == "own" and rest for half, _, rest in split) else {}
    columns = [(half, rest) if half in halves else ("", str(name))
               for (half, _, rest), name in zip(split, frame.columns)]
    return {"columns": columns, "rows": list(frame.itertuples(index=False)), "words": words, "halves": halves,
            "title": title, "notes": list(notes), "inline": False}


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """A value in %, or an error, and the ends of its interval, the next two columns (... from, ... to),
    as one column of words."""
    names = list(map(str, frame))
    for name, low, high in zip(names, names[1:], names[2:]):
        if low.endswith(" from") and high.endswith(" to"):
            write = intervals.words if name.endswith("/ %") else \
                lambda value, *ends: f"{number(value, 3)} [{', '.join(number(end, 3) for end in ends)}]"
            frame = frame.assign(**{name: [write(*cells) for cells in zip(frame[name], frame[low], frame[high])]})
            frame = frame.drop(columns=[low, high]).rename(columns={name: f"{name} [95 %]"})
    return frame


def _commas(text: str) -> str:
    """Counts of five digits and more with commas: "100,000,000 / - / -"."""
    return re.sub(r"\d{5,}", lambda found: f"{int(found[0]):,}", str(text))


def with_evidence(board: pd.DataFrame, folder: str = "") -> pd.DataFrame:
    """The scoreboard for readers: its notebooks, which lie in ``folder``, as links."""
    links = [Markup('<a href="{0}{1}.ipynb">{1}</a>').format(folder, name) for name in board["notebook"]]
    return board.drop(columns="notebook").assign(evidence=links).rename(columns={
        "own": "this workbook [95 %]", "where": "in the paper"})


def table_html(frame: pd.DataFrame, words: bool = False, notes=(), inline: bool = False) -> str:
    """The HTML of a table alone, for a page with ``table_style`` of its template; ``inline``:
    with what is needed without it."""
    page = environment().from_string('{% from "table.html.j2" import table, table_style %}'
                                     '{% if t.inline %}<style>{{ table_style() }}</style>{% endif %}{{ table(t) }}')
    return page.render(t=table(frame, words, notes=notes) | {"inline": inline})


def show(frame: pd.DataFrame, notes=(), words: bool = False):
    """The same table in a notebook: HTML that brings its own style."""
    return HTML(table_html(frame, words, notes, inline=True))


def frame_html(frame: pd.DataFrame) -> str:
    """A data frame as the last line of a cell shows it: the same table; an index that only counts rows is left out,
    long frames are shown as pandas does."""
    if len(frame) > 100:
        return frame._repr_html_()
    if frame.index.nlevels > 1 or frame.index.name or not pd.api.types.is_integer_dtype(frame.index):
        frame = frame.reset_index().rename(columns={"index": ""})
    long = frame.map(lambda value: isinstance(value, str) and len(value) > 32).any(axis=None)
    return show(frame, words=bool(long)).data


def show_tasks(tasks: pd.DataFrame):
    """The table of ``views.split_table`` in a notebook, what the data are in notes below it."""
    told = [shared_words(task, data) for task, data in zip(tasks["task"], tasks["data here"])]
    letters = dict(zip(dict.fromkeys(told), ascii_lowercase)) if len(set(told)) > 1 else dict.fromkeys(told, "")
    names = [Markup("{}<sup>{}</sup>").format(task, letters[words]) for task, words in zip(tasks["task"], told)]
    return show(tasks.drop(columns="data here").assign(task=names), words=True,
                notes=[(letter, f"data here: {words}") for words, letter in letters.items()])


def show_structures(structures: dict, label: str) -> HTML:
    """A menu of ``structures`` {words: structure} and a view of the chosen one that turns, in a frame of a notebook."""
    return _framed("structures(data, label)", data=drawings(structures), label=label)


def show_parity(records: list[dict], predictions: dict, without: dict | None = None) -> HTML | None:
    """Predicted over true values of the test structures, a menu of tasks, and a view of the structure
    whose point is chosen.

    records of one arm; predictions {task: (true, predicted)}; without {task: (S,)}: what both are shown without. None
    where no task has one value for each structure of the shipped data (that the record was made with, fold 0).
    """
    points, units, drawn, known = {}, {}, {}, {}  # known: bytes of a structure, which targets share -> its key
    for record in records:
        task, (true, predicted) = record["task"], predictions.get(record["task"], ((), ()))
        if record.get("data_kind") != "generated" or np.ndim(true) != 1 or not len(true):
            continue
        data = load_task_data(task, caps={"test": record["n_test"]})
        if record.get("fold") or (data.data_sha256, len(data.test)) != (record["data_sha256"], len(true)):
            continue
        keys = [known.setdefault((s["atomic_numbers"].numpy().tobytes(), s["pos"].numpy().tobytes()), str(len(known)))
                for s in data.test]
        drawn |= dict(zip(keys, data.test))
        both = np.stack([true, predicted]) - (without or {}).get(task, 0.0)
        points[task], units[task] = ([[*pair, key] for pair, key in zip(both.T.round(6).tolist(), keys)],
                                     unit_text(record["unit"]))
    return _framed("parity(data)", data={"points": points, "units": units, **drawings(drawn)}) if points else None


def _framed(macro: str, **values) -> HTML:
    """A macro of ``structures.html.j2`` in a frame; JupyterLab shows frames of a notebook that it trusts, one that
    its reader has run; the site shows them to all."""
    look = (":root { color-scheme: light dark; } body { margin: 0; font: 14px system-ui, sans-serif; "
            "} select { max-width: 75%; }")
    page = environment().from_string('{% import "structures.html.j2" as macros %}<!doctype '
                                     'html><meta charset="utf-8"><style>{{ look }}'
                                     f"</style>{{{{ macros.{macro} }}}}").render(look=look, **values)
    return HTML(Markup('<div><iframe title="structures" width="100%" height="400" style="border: 0" '
                       'srcdoc="{}"></iframe></div>').format(str(page)))


def number(value, digits: int = 4) -> str:
    """A cell: ``digits`` significant digits without an exponent where that is readable; blank for a missing value."""
    if value is None or value is pd.NA or isinstance(value, float | np.floating) and pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return _commas(value)
    if not isinstance(value, float | np.floating):
        return value if isinstance(value, str) else str(value)
    if value == 0:
        return "0"  # never -0
    text = f"{value:.{digits}g}" if not 1e-4 < abs(value) < 1e7 else f"{float(f'{value:.{digits}g}'):.10g}"
    return _commas(text) if abs(value) >= 1e4 and "e" not in text else text


def percent(value: float) -> str:
    """An improvement with its sign and one decimal; blank for NaN."""
    return "" if pd.isna(value) else f"{value:+z.1f}"


def worst(records: list[dict]) -> dict:
    """{words: structure}: of each task on the shipped data the test structure that its best arm predicts worst, by
    the errors of the record; none where the record is of other data."""
    found = {}
    for task, runs in groupby(sorted(records, key=lambda r: list(TASKS).index(r["task"])), key=lambda r: r["task"]):
        best = min((r for r in runs if not r.get("fold")), key=lambda r: r["value"], default={})
        if best.get("data_kind") != "generated" or (errors := unpacked_errors(best)) is None:
            continue
        data = load_task_data(task, caps={"test": best["n_test"]})
        if (data.data_sha256, len(data.test)) == (best["data_sha256"], len(errors)):
            row, unit = int(errors[:, 0].argmax()), unit_text(best["unit"])
            found[f"{task}: {best['arm']} is off by {number(errors[row, 0])} {unit}, "
                  f"on average by {number(best['value'])} {unit}"] = \
                data.test[int(np.argsort(data.test.ids, kind="stable")[row])]
    return found


def _picture(path: Path) -> dict:
    """A PNG with at most 256 colours, chosen so that thin coloured lines keep theirs."""
    shrunk = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(shrunk, format="PNG", optimize=True)
        return {"name": path.stem, "number": path.stem[:2], "width": image.width, "height": image.height,
                "png": base64.b64encode(shrunk.getvalue()).decode()}


def made_with(records: list[dict]) -> dict[str, str]:
    """With what the records were made."""
    found = {"commits": "commit", "seeds": "seed", "devices": "device", "precision": "precision"}
    values = {words: {r.get(key) for r in records} for words, key in found.items()}
    values |= {key: {(r.get("versions") or {}).get(key) for r in records} for key in ("python", "torch", "numpy")}
    return {words: ", ".join(sorted(str(v) for v in known if v is not None)) or "unknown"
            for words, known in values.items()}
