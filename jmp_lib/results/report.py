"""One HTML file that tells a profile's whole run: ``python -m jmp_lib report --profile mini``.

It holds tables 2-5, the claims, all figures and a list of all records, and refers to no other file, so it can be sent to
a colleague.  Everything is computed from the records and the figures of the results folder; nothing is run.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pandas as pd

from jmp_lib import facts
from jmp_lib.files import file_sha256, write_atomically
from jmp_lib.records import load_pretraining_records, pretrain_record_path
from jmp_lib.results import tables
from jmp_lib.results.summary import speedup_lines
from jmp_lib.results.templates import render
from jmp_lib.results.values import PAPER, finetune_records, in_printed_unit, is_comparable

CHAPTERS = {"01": "Data", "02": "Pre-training", "03": "QM9", "04": "rMD17", "05": "MD22", "06": "SPICE",
            "07": "MatBench", "08": "QMOF", "09": "Small against large", "10": "Speed-up", "11": "Embeddings",
            "13": "Your dataset", "14": "How sure"}
# end of a figure's name -> caption; the first that fits
CAPTIONS = {
    "learning_curves": "Validation error over optimiser steps; all arms have the same budget",
    "arms": "Test error of each arm relative to the small network from scratch; left is better",
    "parity": "Predicted against true values of the test part; the line is perfect agreement",
    "gains_JMP-L": "Relative improvement of JMP-L over GN-OC-L", "gains_JMP-S": "Relative improvement of JMP-S over GN-OC-S",
    "gains_large": "Relative improvement of JMP-L over GN-OC-L", "gains_small": "Relative improvement of JMP-S over GN-OC-S",
    "scaling": "Mean relative improvement of one arm over another",
    "speedup_large": "Time from scratch / time of fine-tuning to the same validation error, large network",
    "speedup_small": "Time from scratch / time of fine-tuning to the same validation error, small network",
    "by_training_size": "Test error over the number of training structures",
    "gain_spread": "Relative improvement by pre-training: mean over seeds, lowest and highest",
    "ablations": "Relative improvement over training from scratch with parts of the pre-training recipe left out",
    "pretraining_curves": "Validation errors of the pre-training per set",
    "pretraining_loss": "Training loss and learning rate of the pre-training",
    "tsne_by_set": "t-SNE of node embeddings by data set", "tsne_by_domain": "t-SNE of node embeddings by domain",
    "atoms_per_structure": "Atoms per structure; whiskers at the 5th and 95th percentile",
    "elements": "Share of the structures of each set that hold an element",
    "energy_and_forces": "Energies per atom and force components of the pre-training sets",
    "structures": "One structure of each set", "targets": "Labels of the scalar tasks",
    "energy_and_forces_of_the_tasks": "Energies per atom and force components of the force tasks",
    "neighbours": "Neighbours within the published cutoff of each set, and the limit of the main graph",
    "elements_and_sizes": "Test error by element and by number of atoms",
    "side_by_side": "Test error of simple baselines, from scratch and pre-trained, with 95 % intervals",
}
HALVES = {"published": PAPER, "own": "this workbook"}  # start of a column's name -> common heading


def write_report(results_dir: str | Path, name: str) -> Path:
    """Writes ``report.html`` of a results folder atomically and returns its path; ``name`` is the profile's.

    Raises ValueError when the folder holds no record.
    """
    text = report(Path(results_dir), name)
    with write_atomically(Path(results_dir) / "report.html") as stream:
        stream.write(text)
    return Path(results_dir) / "report.html"


def report(results_dir: Path, name: str) -> str:
    """The page as HTML."""
    records, pretraining = finetune_records(results_dir / "records"), load_pretraining_records(results_dir)
    if not records and not pretraining:
        raise ValueError(f"{results_dir} holds no records to report on: run `make reproduce PROFILE={name}` first")
    every, tsne = [*pretraining, *records], results_dir / "tsne.html"
    all_tasks = tables.all_tasks_table(results_dir / "records")
    means, families = _means(tables.scaling_table(all_tasks))
    totals = tables.speedup_totals(tables.speedup_table(results_dir / "records"))
    return render(
        "report", {"number": number}, title=f"JMP workbook: results of the profile {name}",
        kinds={str(r.get("data_kind")) for r in records},
        smoke=not all(is_comparable(r) for r in every), means=means, families=families,
        speedups=speedup_lines(totals), paper_tables=[_paper_table(number, all_tasks) for number in tables.TITLES],
        claims=_claims(results_dir), chapters=_figures(results_dir),
        tsne=tsne.read_text(encoding="utf-8") if tsne.is_file() else None, count=len(every),
        hours=sum(r.get("wall_time_s") or 0.0 for r in every) / 3600, made=_made(every),
        pretrained=_pretrained(results_dir, pretraining), finetuned=_finetuned(results_dir, records))


def table(frame: pd.DataFrame, words: bool = False) -> dict:
    """What the template shows of a data frame: columns (half, name), rows; ``words`` aligns all cells to the left.

    Columns named ``published MODEL`` and ``own ARM`` come under two common headings, where there are own ones.
    """
    split = [str(name).partition(" ") for name in frame.columns]
    halves = HALVES if any(half == "own" and rest for half, _, rest in split) else {}
    columns = [(half, rest) if half in halves else ("", str(name)) for (half, _, rest), name in zip(split, frame.columns)]
    return {"columns": columns, "rows": list(frame.itertuples(index=False)), "words": words, "halves": halves}


def number(value, digits: int = 4) -> str:
    """A cell: ``digits`` significant digits without an exponent where that is readable; blank for a missing value."""
    if value is None or value is pd.NA or isinstance(value, float) and pd.isna(value):
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.{digits}g}" if not 1e-4 < abs(value) < 1e7 else f"{float(f'{value:.{digits}g}'):,.10g}".replace(",", "")


def caption(name: str) -> str:
    """What a figure shows, from its name; the name itself for an unknown one."""
    return next((words for end, words in CAPTIONS.items() if name.endswith(end)), name)


def _means(scaling: pd.DataFrame) -> tuple[dict, dict]:
    """Means over all tasks, published and own; own means by family."""
    chosen = scaling[scaling["family"] == "all"]
    means = pd.DataFrame({
        "mean over all tasks / %": chosen["comparison"],
        "published improvement": chosen["published_mean_gain_percent"].round(1),
        "published tasks": chosen["published_tasks"], "own improvement": chosen["own_mean_gain_percent"].round(1),
        "own tasks improved": [f"{a:.0f} of {b:.0f}" if b else ""
                               for a, b in zip(chosen["own_tasks_improved"], chosen["own_tasks"])]})
    own = scaling.pivot(index="family", columns="comparison", values="own_mean_gain_percent")
    own = own.loc[scaling["family"].unique(), scaling["comparison"].unique()]
    return table(means), table(own.round(1).rename_axis("family").reset_index())


def _paper_table(number: int, all_tasks: pd.DataFrame) -> tuple[str, dict, list[str]]:
    """(title, table, notes)."""
    frame = tables.paper_table(number, all_tasks)
    shown = frame.drop(columns=["target", "own data", "own n_train", "own n_test", "note"])
    if (shown["statistic"] == "value").all():
        shown = shown.drop(columns="statistic")
    return tables.TITLES[number], table(shown), [note for note in frame["note"].unique() if note]


def _claims(results_dir: Path) -> dict:
    names = {"claim": "claim", "published": "printed", "recomputed_from_published": "recomputed from the printed tables",
             "agrees": "agrees", "own": "this workbook", "own_data": "data of this workbook"}
    return table(tables.claims_table(results_dir / "records")[list(names)].rename(columns=names), words=True)


def _figures(results_dir: Path) -> dict[str, list[tuple]]:
    """Title of a chapter -> its figures (caption, width, height, PNG as base64)."""
    chapters: dict[str, list[tuple]] = {}
    for path in sorted((results_dir / "figures").glob("[0-9][0-9]_*.png")):
        chapters.setdefault(CHAPTERS.get(path.stem[:2], path.stem[:2]), []).append((caption(path.stem), *_picture(path)))
    return chapters


def _picture(path: Path) -> tuple[int, int, str]:
    """Width, height and content of a PNG with at most 256 colours, chosen so that thin coloured lines keep theirs."""
    from PIL import Image

    shrunk = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(shrunk, format="PNG", optimize=True)
        return *image.size, base64.b64encode(shrunk.getvalue()).decode()


def _made(records: list[dict]) -> dict[str, str]:
    """With what the records were made."""
    found = {"commits": "commit", "seeds": "seed", "devices": "device", "precision": "precision"}
    values = {words: {r.get(key) for r in records} for words, key in found.items()}
    values |= {key: {(r.get("versions") or {}).get(key) for r in records} for key in ("python", "torch", "numpy")}
    return {words: ", ".join(sorted(str(v) for v in known if v is not None)) or "unknown" for words, known in values.items()}


def _pretrained(results_dir: Path, records: list[dict]) -> dict:
    return table(pd.DataFrame([{
        "pre-training": r["size"], "parameters": r["model"]["n_parameters"], "updates": r["updates"],
        "minutes": r["wall_time_s"] / 60, **_file(results_dir, pretrain_record_path(results_dir, r["size"]))}
        for r in records]))


def _finetuned(results_dir: Path, records: list[dict]) -> dict:
    return table(pd.DataFrame([{
        "task": r["task"], "arm": r["arm"], "fold": r["fold"], "test error": in_printed_unit(r, r["value"]),
        "trivial prediction": in_printed_unit(r, r.get("baseline")), "unit": facts.task(r["task"])["unit_printed"],
        "train / val / test": f"{r['n_train']} / {r.get('n_val', '?')} / {r['n_test']}", "updates": r.get("updates"),
        "seconds": r.get("wall_time_s"), "data": r["data"], **_file(results_dir, results_dir / r["record"])}
        for r in records]), words=True)


def _file(results_dir: Path, path: Path) -> dict[str, str]:
    return {"record": path.relative_to(results_dir).as_posix(), "SHA-256": file_sha256(path)[:16]}
