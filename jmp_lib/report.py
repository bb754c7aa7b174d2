"""One HTML file that tells a profile's whole run: ``python -m jmp_lib report --profile mini``.

It holds tables 2-5, the claims, all figures and a list of all records, and refers to no other file, so it can be sent to
a colleague.  Everything is computed from the records and the figures of the results folder; nothing is run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from jmp_lib import report_parts as parts
from jmp_lib.files import file_sha256
from jmp_lib.records import load_pretraining_records, pretrain_record_path
from jmp_lib.results import tables
from jmp_lib.results.values import finetune_records, in_printed_unit

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
GOES_ON = "make reproduce"


def write_report(results_dir: str | Path, name: str) -> Path:
    """Writes ``report.html`` of a results folder atomically and returns its path; ``name`` is the profile's.

    Raises ValueError when the folder holds no record.
    """
    results_dir = Path(results_dir)
    text = report(results_dir, name)
    target = results_dir / "report.html"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, target)
    return target


def report(results_dir: Path, name: str) -> str:
    """The page as HTML."""
    records, pretraining = finetune_records(results_dir / "records"), load_pretraining_records(results_dir)
    if not records and not pretraining:
        raise ValueError(f"{results_dir} holds no records to report on: run `{GOES_ON} PROFILE={name}` first")
    all_tasks = tables.all_tasks_table(results_dir / "records")
    sections = [("read", "How to read this", _how_to_read(name, records)),
                ("summary", "In short", _summary(all_tasks, results_dir)),
                ("tables", "Tables 2-5", _paper_tables(all_tasks)),
                ("claims", "Claims", _claims(results_dir)),
                ("figures", "Figures", _figures(results_dir))]
    if (results_dir / "tsne.html").is_file():
        sections.append(("tsne", "Embeddings to explore", _tsne(results_dir)))
    sections += [("records", "Records", _records(results_dir, records, pretraining))]
    return parts.page(f"JMP workbook: results of the profile {name}", sections)


def main(profile: str = "mini", results: str | None = None) -> int:
    """Writes the report of a profile and prints where it is."""
    from jmp_lib.profile import load_profile
    from jmp_lib.workbook import results_folder

    loaded = load_profile(profile)
    path = write_report(results_folder(results, loaded), loaded.name)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _how_to_read(name: str, records: list[dict]) -> str:
    kinds = sorted({str(r.get("data_kind")) for r in records})
    notice = []
    if name == "smoke" or any(r.get("profile") == "smoke" for r in records):
        notice.append("The smoke profile only shows that everything runs: its numbers mean nothing and are left blank beside "
                      "published ones.")
    if "generated" in kinds:
        notice.append("Own values are of small generated data sets (mini data), whose labels come from fast approximate "
                      "methods. An error on them is never a reproduction of a printed value.")
    if "published" in kinds:
        notice.append("Some own values are of published data; what was read of it stands in the table of records.")
    return (f'<p class="notice">{parts.escaped(" ".join(notice))}</p>'
            "<p>The study: one GemNet-OC network is pre-trained on four sets of energies and forces and fine-tuned on 40 tasks "
            "(<i>From Molecules to Materials</i>, ICLR 2024, arXiv:2310.16802). Four arms run on every task with the same "
            "budget: <b>GN-OC-S</b> and <b>GN-OC-L</b>, small and large, start from random weights; <b>JMP-S</b> and "
            "<b>JMP-L</b> from the pre-trained backbones.</p>"
            "<ul><li>Compare arms with each other, within one half of a table. Never compare a value of the paper with one of "
            "this workbook.</li><li>Errors are mean absolute errors on the test part, in the unit of the row; forces over all "
            "atoms and components.</li><li>Relative improvement = (error of the reference - error of the new arm) / error of "
            "the reference; means give every task the same weight; MatBench counts with fold 0.</li><li>Blank cells were not "
            "run, or are not printed in the paper.</li></ul>")


def _summary(all_tasks: pd.DataFrame, results_dir: Path) -> str:
    scaling = tables.scaling_table(all_tasks)
    chosen = scaling[scaling["family"] == "all"]
    frame = pd.DataFrame({
        "mean over all tasks / %": chosen["comparison"],
        "published improvement": chosen["published_mean_gain_percent"].round(1),
        "published tasks": chosen["published_tasks"], "own improvement": chosen["own_mean_gain_percent"].round(1),
        "own tasks improved": [f"{a:.0f} of {b:.0f}" if b == b and b else "" for a, b in
                               zip(chosen["own_tasks_improved"], chosen["own_tasks"], strict=True)]})
    own = scaling.pivot(index="family", columns="comparison", values="own_mean_gain_percent")
    order = list(dict.fromkeys(scaling["family"]))
    families = own.loc[order, list(dict.fromkeys(scaling["comparison"]))].round(1).rename_axis("family").reset_index()
    totals = tables.speedup_totals(tables.speedup_table(results_dir / "records"))
    lines = "".join(f"<li>{row.size}: fine-tuning reaches the best validation error of training from scratch on "
                    f"{row.tasks_reached} of {row.tasks} tasks, in total {row.ratio_seconds_all:.2f}x sooner in time and "
                    f"{row.ratio_steps_all:.2f}x in updates.</li>" for row in totals.itertuples() if row.tasks)
    return (parts.table(frame) + "<h3>This workbook by family, mean improvement / %</h3>" + parts.table(families)
            + (f"<h3>Speed-up</h3><ul>{lines}</ul>" if lines else ""))


def _paper_tables(all_tasks: pd.DataFrame) -> str:
    pieces = []
    for number, title in tables.TITLES.items():
        frame = tables.paper_table(number, all_tasks)
        shown = frame.drop(columns=["target", "own data", "own n_train", "own n_test", "note"])
        if (shown["statistic"] == "value").all():
            shown = shown.drop(columns="statistic")
        notes = [n for n in dict.fromkeys(frame["note"]) if n]
        pieces.append(f"<h3>{parts.escaped(title)}</h3>" + parts.table(shown)
                      + "".join(f"<p>Note: {parts.escaped(note)}.</p>" for note in notes))
    return "\n".join(pieces)


def _claims(results_dir: Path) -> str:
    claims = tables.claims_table(results_dir / "records")
    names = {"claim": "claim", "published": "printed", "recomputed_from_published": "recomputed from the printed tables",
             "agrees": "agrees", "own": "this workbook", "own_data": "data of this workbook"}
    return ("<p>What the paper prints, what its own tables give, and what the same rule gives on the records here. Claims "
            "without a rule have no value of ours.</p>"
            + parts.table(claims[list(names)].rename(columns=names), words=True))


def _figures(results_dir: Path) -> str:
    files: dict[str, list[Path]] = {}
    for path in sorted((results_dir / "figures").glob("[0-9][0-9]_*.png")):
        files.setdefault(path.stem[:2], []).append(path)
    if not files:
        return f"<p>No figures here yet: <code>{GOES_ON}</code> draws them.</p>"
    return "\n".join(f"<h3>{parts.escaped(CHAPTERS.get(key, key))}</h3><div class=pair>"
                     + "".join(parts.picture(path, caption(path.stem)) for path in paths) + "</div>"
                     for key, paths in files.items())


def caption(name: str) -> str:
    """What a figure shows, from its name; the name itself for an unknown one."""
    return next((words for end, words in CAPTIONS.items() if name.endswith(end)), name)


def _tsne(results_dir: Path) -> str:
    content = parts.escaped((results_dir / "tsne.html").read_text(encoding="utf-8"))
    return f'<iframe title="t-SNE of node embeddings" srcdoc="{content}"></iframe>'


def _records(results_dir: Path, records: list[dict], pretraining: list[dict]) -> str:
    every = [*pretraining, *records]
    facts = {"commits": {r.get("commit") for r in every}, "seeds": {r.get("seed") for r in every},
             "devices": {r.get("device") for r in every}, "precision": {r.get("precision") for r in every},
             **{key: {(r.get("versions") or {}).get(key) for r in every} for key in ("python", "torch", "numpy")}}
    made = "".join(f"<li>{key}: {parts.escaped(', '.join(sorted(str(v) for v in values if v is not None)) or 'unknown')}</li>"
                   for key, values in facts.items())
    hours = sum(r.get("wall_time_s") or 0.0 for r in every) / 3600
    before = pd.DataFrame([{"pre-training": r["size"], "parameters": r["model"]["n_parameters"], "updates": r["updates"],
                            "minutes": r["wall_time_s"] / 60, **_file(results_dir, pretrain_record_path(results_dir, r["size"]))}
                           for r in pretraining])
    after = pd.DataFrame([{
        "task": r["task"], "arm": r["arm"], "fold": r["fold"], "test error": in_printed_unit(r, r["value"]),
        "trivial prediction": in_printed_unit(r, r.get("baseline")), "unit": tables.facts.task(r["task"])["unit_printed"],
        "train / val / test": f"{r['n_train']} / {r.get('n_val', '?')} / {r['n_test']}", "updates": r.get("updates"),
        "seconds": r.get("wall_time_s"), "data": r["data"], **_file(results_dir, results_dir / r["record"])} for r in records])
    return (f"<p>{len(every)} records, {hours:.2f} hours of computing in sum over worker processes. Each is a JSON file with "
            "settings, versions, seeds, hashes of data and predictions and the learning curve; the last column starts its "
            f"SHA-256.</p><ul>{made}</ul>" + (parts.table(before) if len(before) else "")
            + (f"<details><summary>All {len(after)} fine-tuning records</summary>{parts.table(after, words=True)}</details>"
               if len(after) else ""))


def _file(results_dir: Path, path: Path) -> dict[str, str]:
    return {"record": path.relative_to(results_dir).as_posix(), "SHA-256": file_sha256(path)[:16]}
