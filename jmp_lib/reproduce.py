"""Runs the notebooks in order with papermill and keeps executed copies under the results.

    python -m jmp_lib reproduce --profile mini
    python -m jmp_lib reproduce --profile mini --only 03,04

A notebook is skipped when nothing that it depends on has changed since it last ended well: its source, the package and
the mini data, and the records that it reads and writes. Everything long is checkpointed by the notebooks themselves, so
a killed run goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
import papermill

from jmp_lib import paths
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.files import file_sha256, locked, reading, write_atomically, write_json
from jmp_lib.pool import failures_file
from jmp_lib.records import finished_record
from jmp_lib.results.comparison import write_comparison
from jmp_lib.results.pages import write_report
from jmp_lib.settings import Profile
from jmp_lib.train.loading import shipped_names, weights_path
from jmp_lib.workbook import choose_tasks, missing, resolved_profile, results_folder

# notebook 15 makes others
SIMPLE = tuple(f"baselines/*--{name}.json" for name in ("composition", "frozen", "untrained"))
VARIANTS = ("../variants/*/records/*/*.json", "../variants/*/records/finetune/*/*.json")
# Records that a notebook reads or writes, as patterns under records/.
RECORDS = {
    "03": ("pretrain/*.json", "../live/records/pretrain/*.json"),
    **{family.notebook[:2]: (f"finetune/{family.name}_*/*.json",
                             *(one.replace("*", f"{family.name}_*", 1) for one in SIMPLE))
       for family in FAMILIES.values()},
    "10": ("finetune/*/*.json", *SIMPLE),
    "11": ("pretrain/*.json", "finetune/*/*.json", *VARIANTS),
    "12": ("pretrain/*.json", "finetune/*/*.json", *SIMPLE),
    "13": ("pretrain/*.json", "finetune/*/*.json", "baselines/*.json", *VARIANTS),
    "14": ("pretrain/small.json", "../own/*/*.json"),
    "15": ("pretrain/*.json", "finetune/*/*.json", "baselines/*.json", *VARIANTS),
}
LAST = ("11", "13")  # they show the variants that 15 runs
TRAINS = ("03", "14", *(family.notebook[:2] for family in FAMILIES.values()))  # what they made must be there unaltered
RECORDS_ONLY = ("00", "02", "10", "11", "13", "14")  # notebooks that read no data files of the profile
# files of the package that decide what it does
PACKAGED = (".py", ".yaml", ".csv", ".json", ".npz", ".j2", ".extxyz", ".safetensors")
TO_OPEN = {"report.html": "everything on one page, to read or to send",
           "comparison.html": "the certificate: this run and the shipped one",
           "tables/all_tasks.csv": "one row per task and arm",
           "notebooks/13_paper_tables.ipynb": "tables 2-5 and every claim, published and own",
           "tables": "all tables as CSV", "figures": "all figures as PNG and SVG",
           "tsne.html": "the embeddings, to explore in a browser"}
# tqdm, with and without a known end; back up from an inner bar
PROGRESS = re.compile(r"\d+%\|.*\||\d+\w* \[\d\d:\d\d|^(\x1b\[A)+$")


def notebook_paths() -> list[Path]:
    """The ordered notebooks; raises FileNotFoundError outside a checkout of the repository."""
    root = paths.checkout_dir()
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) if root else []
    if not found:
        raise FileNotFoundError("no notebooks here: `reproduce` needs a checkout of the repository "
                                "(clone it and run the command there)")
    return found


def main(profile: str = "mini", only: str | None = None, results: str | None = None) -> int:
    """Runs what is not done; returns 0, or 1 when a notebook or some of its runs failed."""
    loaded = resolved_profile({"profile": profile})
    folder, began, incomplete = results_folder(results, loaded), time.monotonic(), []
    with locked(folder / "work" / "reproduce.lock", f"`reproduce` runs in {folder} already: wait for it or stop it"):
        # the tables of all come last
        chosen = sorted(select(notebook_paths(), only), key=lambda path: path.stem[:2] in LAST)
        state_file, states = folder / "work" / "reproduce.json", {}
        if state_file.is_file():
            with reading(state_file, "delete it, and every notebook is run again (finished runs are kept)"):
                states = json.loads(state_file.read_text())
        print(f"profile {loaded.name}: {len(chosen)} notebooks, results in {folder}", flush=True)
        for number, path in enumerate(chosen, 1):
            title, copy = f"[{number}/{len(chosen)}] {path.stem}: ", folder / "notebooks" / path.name
            if reason := no_data(path, loaded):
                print(f"{title}left out, {reason}", flush=True)
                continue
            before = sources(path, profile, loaded)  # of the code that runs, whatever becomes of it meanwhile
            if copy.is_file() and states.get(path.stem) == f"{before} {records_of(path, folder)}":
                print(f"{title}done and unchanged", flush=True)
                continue
            print(f"{title}running", flush=True)
            started = time.monotonic()
            failures_file(folder).unlink(missing_ok=True)
            try:
                execute(path, copy, {"profile": profile, **({"results_dir": str(folder)} if results else {})})
            except Exception as error:  # papermill's report of the failing cell, without its own traceback
                print(f"{title}failed\n{error}\nMend this and give the same command again: "
                      "it goes on here.", flush=True)
                return 1
            minutes = (time.monotonic() - started) / 60
            if failures_file(folder).is_file():
                incomplete.append(path.stem)
                print(f"{title}some runs failed, see {copy} ({minutes:.1f} min)", flush=True)
                continue
            states[path.stem] = f"{before} {records_of(path, folder)}"
            write_json(state_file, states)
            print(f"{title}done in {minutes:.1f} min", flush=True)
        if any(path for kind in ("pretrain", "finetune") for path in (folder / "records" / kind).rglob("*.json")):
            write_report(folder, loaded.name)
        shipped = paths.shipped_dir(results_folder(None, loaded).name)
        if not loaded.variant and all(any((one / "records" / "finetune").glob("*/*.json"))
                                      for one in (folder, shipped)):
            print(write_comparison(folder, shipped) + "\n")
    print(f"Done in {(time.monotonic() - began) / 60:.1f} min. Open:")
    print("\n".join(f"  {folder / name}  ({what})" for name, what in TO_OPEN.items() if (folder / name).exists()))
    if incomplete:
        print(f"Not complete: {', '.join(incomplete)}. The same command tries again what failed.")
    return 1 if incomplete else 0


def no_data(notebook: Path, profile: Profile) -> str | None:
    """Why a notebook of a task family has nothing to run on (published files that are not at hand), else None."""
    family = next((family.name for family in FAMILIES.values() if family.notebook == notebook.stem), None)
    if profile.data != "published" or family is None:
        return None
    tasks = choose_tasks({}, profile, family)
    reasons = missing(tasks, profile.model_copy(update={"data_root": paths.data_root(profile.data_root)}),
                      thorough=True)
    return "no published data at hand: " + reasons[tasks[0]] if len(reasons) == len(tasks) else None


def select(notebooks: list[Path], only: str | None) -> list[Path]:
    """The notebooks whose numbers or names are in the comma-separated ``only`` (None: all)."""
    if not only:
        return notebooks
    found = {}
    for word in filter(None, map(str.strip, only.split(","))):
        found[word] = [path for path in notebooks
                       if word.removesuffix(".ipynb") == path.stem or word.zfill(2) == path.stem[:2]]
        if not found[word]:
            raise ValueError(f"no notebook {word!r}; there are {', '.join(path.stem for path in notebooks)}")
    return [path for path in notebooks if any(path in some for some in found.values())]


def execute(source: Path, target: Path, values: dict) -> None:
    """Executes one notebook with papermill and writes the cleaned copy atomically.

    The kernel is the python3 of the running interpreter.  Raises papermill's error when a
    cell fails; the copy up to that cell is then kept as ``<target>.failed.ipynb``.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's python3 kernel before one of the user
    found = [str(paths.PACKAGE_DIR.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, found)))
    known = papermill.inspect_notebook(str(source))  # what its parameters cell sets
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(source), str(failed), {k: v for k, v in values.items() if k in known},
                               kernel_name="python3", progress_bar=False, stderr_file=sys.stderr,
                               extra_arguments=["--IPKernelApp.log_level=50"])
    with write_atomically(target) as stream:
        nbformat.write(clean(nbformat.read(failed, as_version=4)), stream)
    failed.unlink()


def clean(notebook):
    """``notebook`` without what differs between two equal runs: times, progress bars, paths of this machine,
    drawn names."""
    for place in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "execution"):
            place.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    names = dict.fromkeys(map(str, paths.data_dirs()), "data") | {f"{paths.PACKAGE_DIR.parent}{os.sep}": "",
                                                                  f"{Path.home()}{os.sep}": "~/"}

    def plain(text: str) -> str:
        for folder, name in names.items():
            text = text.replace(folder, name)
        return text

    for cell in notebook.cells:
        cell.source = plain(cell.source)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill's is drawn
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = output.text.replace("\r", "\n").split("\n")
                output.text = plain("\n".join(line for line in lines if not PROGRESS.search(line)))
            for kind, text in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = plain(text)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.output_type != "stream" or one.text.strip()]
    return notebook


def sources(notebook: Path, profile: str, loaded: Profile) -> str:
    """SHA-256 of what the notebook is made from: itself, profile, package with its facts and mini data, given
    weights, and names, bytes and times of change of the published files that it may read."""
    number, own = notebook.stem[:2], Path(profile.partition(":")[0])  # without the variant
    digest = hashlib.sha256(profile.encode())
    package = [p for p in sorted(paths.PACKAGE_DIR.rglob("*")) if p.suffix in PACKAGED]
    weights = [weights_path(name) for name in loaded.pretrained.values()
               if name not in (None, "base", "official", *shipped_names())]
    # a network's graphs stand in its JSON
    given = [path for one in weights for path in (one, one.with_suffix(".json")) if path.is_file()]
    for path in [notebook, *[own] * (own.suffix in (".yaml", ".yml")), *package, *given]:
        digest.update(path.name.encode() + file_sha256(path).encode())
    if {"published", "large"} & {loaded.data, *loaded.pretraining.data.split("+")} and number not in RECORDS_ONLY:
        for path in (path for folder in paths.data_dirs(loaded.data_root) for path in sorted(folder.rglob("*"))):
            if path.is_file() and path.suffix not in (".lock", ".partial", ".tmp"):
                digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def records_of(notebook: Path, results_dir: Path) -> str:
    """SHA-256 of the records that the notebook reads and writes; of those that it makes also whether their files
    (weights, predictions) are there unaltered, as for the trainings themselves."""
    number, digest = notebook.stem[:2], hashlib.sha256()
    for path in (path for pattern in RECORDS.get(number, ())
                 for path in sorted((results_dir / "records").glob(pattern))):
        home = next(one.parent for one in path.parents if one.name == "records")
        intact = number not in TRAINS or finished_record(path, home) is not None
        digest.update(f"{os.path.relpath(path, results_dir)} {file_sha256(path)} {intact}".encode())
    return digest.hexdigest()
