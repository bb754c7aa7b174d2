"""Kills long work at random moments, starts it again, and compares what it leaves with what undisturbed work leaves.

    python -m tools.kill_test [--kills 50] [--seed 0] [--workers 2]
        [--only prepare,pretrain,finetune,report,notebook,sweep]

SIGKILL goes to a whole process group, at a moment drawn over the duration of the undisturbed work, in half of the
trials twice in a row (to the command alone in half of the fine-tunings, whose workers must then end by themselves).
Then the same command runs to its end. Every record, weight, prediction, store, table, page and notebook must be the
same to the last bit, but for times (``TIMES``); every file that a kill leaves under its name must be whole; nothing
half-done, no lock and no process may be left.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

KINDS = ("prepare", "pretrain", "finetune", "report", "notebook", "sweep")
TIMES = {"wall_time_s", "train_time_s", "waiting_s", "waiting_share", "peak_memory_mb", "seconds", "train_seconds",
         "waiting", "memory_mb", "commit"}  # names that are left out
LEFT = re.compile(r"^lock$|\.(tmp|lock|building|partial|failed\.ipynb)$|^checkpoint")
SETTINGS = ("--profile", "smoke", "--tasks", "qm9_mu", "--arms", "GN-OC-S,JMP-S")
MARK = "JMP_KILL_TEST"  # in the environment of every process of a trial
PRELOAD = ["jmp_lib.workbook", "jmp_lib.data.store", "jmp_lib.train.finetuning",
           "jmp_lib.results.pages", "jmp_lib.reproduce"]


def structures(first: int, count: int):
    """Structures made from their number."""
    rng = np.random.default_rng(first)
    for i in range(first, first + count):
        n = 3 + i % 5
        yield {"pos": rng.normal(scale=3.0, size=(n, 3)) + 9.0 * np.arange(n)[:, None],
               "atomic_numbers": np.full(n, 1 + i % 9), "forces": rng.normal(size=(n, 3)),
               "energy": float(i), "group": f"{i % 7}"}


def work(kind: str, folder: Path, workers: int) -> int:
    """The undisturbed work of a kind, in ``folder``; the exit code."""
    from jmp_lib.__main__ import main

    there = ("--results-dir", str(folder))
    if kind == "prepare":
        from jmp_lib.data.store import Part, write_store

        parts = [Part(f"part {k}", partial(structures, 1000 * k, 1000), "1") for k in range(3)]
        write_store(folder / "store", parts, name="made", chunk_bytes=20_000, extras={"x": np.arange(9)})
        return 0
    if kind == "pretrain":
        return main(["pretrain", "--profile", "smoke", "--sizes", "small", *there])
    if kind == "finetune":
        return main(["finetune", *SETTINGS, "--workers", str(workers), *there])
    if kind == "sweep":
        return main(["sweep", *SETTINGS, "--cores", str(workers), *there])
    if kind == "notebook":
        return main(["reproduce", "--profile", "smoke", "--only", "11", *there])
    return main(["tables", "--profile", "smoke", *there]) or main(["report", "--profile", "smoke", *there])


def _child(kind: str, folder: Path, workers: int, begun) -> None:
    os.setsid()
    log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ[MARK] = str(folder)
    begun.send(True)
    sys.exit(work(kind, folder, workers))


def start(kind: str, folder: Path, workers: int = 1):
    """The work of a kind, just begun in a new process that has imported everything already,
    and in its own process group."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(kind, folder, workers, there))
    process.start()
    here.recv()
    return process


def ended(kind: str, folder: Path, workers: int = 1) -> float:
    """Work that nothing disturbs; its seconds. Raises ``RuntimeError`` with the end of its log when it fails."""
    process, began = start(kind, folder, workers), time.monotonic()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{kind} ended with {process.exitcode}: "
                           f"{(folder.parent / f'{folder.name}.log').read_text()[-2000:]}")
    return time.monotonic() - began


def killed(kind: str, folder: Path, moment, workers: int = 1, alone: bool = False) -> bool:
    """Work that is killed after ``moment`` seconds, or as soon as ``moment()`` is true; False where it ended before."""
    process = start(kind, folder, workers)
    if callable(moment):
        while process.is_alive() and not moment():
            time.sleep(0.01)
    else:
        process.join(moment)
    was_alive = process.is_alive()
    if was_alive:
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.join()
    return was_alive


def alive(folder: Path, patience: float) -> list[str]:
    """Command lines of the processes of the work in ``folder`` that are there after at most ``patience`` seconds."""
    until, mark = time.monotonic() + patience, f"{MARK}={folder}".encode()
    while True:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:  # it has just ended, or is somebody else's
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.1)


def files(folder: Path) -> dict[str, Path]:
    """Name within ``folder`` -> file, without Snakemake's own."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))
            if path.is_file() and ".snakemake" not in path.parts}


def halves(folder: Path) -> list[str]:
    """Files that have their name and are not whole."""
    found = []
    for name, path in files(folder).items():
        if LEFT.search(path.name) or ".building/" in name or path.name == "log.csv":  # a log grows line by line
            continue
        try:
            content(path, folder)
            if path.suffix == ".safetensors":
                from safetensors.numpy import load_file

                load_file(path)
            if path.suffix == ".npz":
                np.load(path)
            if path.suffix in (".csv", ".md", ".html", ".json", ".ipynb") and not path.read_bytes().endswith(b"\n"):
                raise ValueError("no end of line")
        except Exception as error:
            found.append(f"{name} is not whole ({error})")
    return found


def content(path: Path, folder: Path):
    """What is compared of a file in ``folder``: its bytes; of JSON and CSV, all but times and the folder's own name."""
    if path.suffix in (".json", ".ipynb"):
        return _timeless(json.loads(path.read_text().replace(str(folder), "")))
    if path.suffix == ".csv":
        return [sorted((k, v) for k, v in row.items() if k not in TIMES)
                for row in csv.DictReader(io.StringIO(path.read_text()))]
    return path.read_bytes()


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def differences(kind: str, folder: Path, wanted: Path, among=("",)) -> list[str]:
    """What is wrong with finished work in ``folder``, beside the undisturbed one in ``wanted``;
    among: starts of names."""
    here, there = files(folder), {name: path for name, path in files(wanted).items() if name.startswith(tuple(among))}
    if kind == "sweep":  # of records with other times
        here, there = ({n: path for n, path in found.items() if "speedup" not in n} for found in (here, there))
    left = [name for name, path in here.items() if LEFT.search(path.name)]
    left += [str(path.relative_to(folder)) for path in folder.rglob(".snakemake/locks/*")]
    found = [f"{name} is left" for name in left]
    found += [f"{name} is {'missing' if name in there else 'new'}" for name in here.keys() ^ there.keys() - {*left}]
    return found + [f"{name} differs" for name in here.keys() & there.keys()
                    if content(here[name], folder) != content(there[name], wanted)]


def prepare_folder(kind: str, folder: Path, done: Path) -> None:
    """What is there before the work begins: records for tables, report and notebook."""
    folder.mkdir(parents=True)
    if kind in ("report", "notebook"):
        for part in ("records", "work"):
            shutil.copytree(done / part, folder / part)


def trial(kind: str, folder: Path, wanted: Path, moments: list, workers: int = 1, alone: bool = False,
          among=("",)) -> tuple[int, list[str]]:
    """Kills at ``moments``, one after the other, then the work to its end: how many kills met it alive,
    and what was wrong."""
    wrong, kills = [], 0
    for moment in moments:
        kills += killed(kind, folder, moment, workers, alone)
        wrong += [f"{command} is left alive" for command in alive(folder, 30.0)] + halves(folder)
    try:
        ended(kind, folder, workers)
    except RuntimeError as error:
        return kills, [*wrong, str(error)]
    return kills, wrong + [f"{command} is left alive" for command in alive(folder, 10.0)] + differences(
        kind, folder, wanted, among)


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.kill_test", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many trials (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2,
                        help="at most so many processes of a fine-tuning or sweep (default 2)")
    parser.add_argument("--only", default=",".join(KINDS),
                        help=f"kinds of work, with commas (default {','.join(KINDS)})")
    args = parser.parse_args(arguments)
    kinds, rng, done, good = args.only.split(","), np.random.default_rng(args.seed), 0, 0
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kind {unknown.pop()!r}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="jmp-kill-") as top:
        whole, seconds = {}, {}
        ended("finetune", top / Path("records-of"))
        for kind in kinds:
            whole[kind] = Path(top, f"whole-{kind}")
            prepare_folder(kind, whole[kind], Path(top, "records-of"))
            seconds[kind] = ended(kind, whole[kind], args.workers)
            print(f"{kind}: {seconds[kind]:.1f} s undisturbed", flush=True)
        tries = 0
        while done < args.kills:
            kind, tries = kinds[tries % len(kinds)], tries + 1
            workers, alone = int(rng.integers(1, args.workers + 1)), bool(rng.integers(2)) and kind == "finetune"
            moments = [float(rng.uniform(0, 0.9 * seconds[kind])) for _ in range(int(rng.integers(1, 3)))]
            folder = Path(top, f"{tries}-{kind}")
            prepare_folder(kind, folder, Path(top, "records-of"))
            kills, wrong = trial(kind, folder, whole[kind], moments, workers, alone)
            done, good = done + (kills > 0), good + (kills > 0 and not wrong)
            times = " and ".join(f"{moment:.2f} s" for moment in moments)
            print(f"{done}/{args.kills} {kind}, {workers} workers, "
                  f"{kills} kills{' of the command alone' * alone} (after {times}): "
                  + ("; ".join(wrong) if wrong else "the same bits"), flush=True)
            shutil.rmtree(folder)
    print(f"{good} of {done} to the bit")
    return int(good < done)


if __name__ == "__main__":
    sys.exit(main())
