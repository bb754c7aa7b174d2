"""Independent jobs in single-threaded worker processes, and how processes end together.

Workers are spawned, never forked (torch and a notebook kernel hold threads), and each goes on with the next job. A
worker that dies, or gets SIGTERM, costs its job alone. SIGTERM to this process is passed on, and a worker whose
parent is gone ends in the same way: trainings write their checkpoints, from which the next run goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from tqdm import tqdm

from jmp_lib.files import locked, write_json

SINGLE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GRACE = 300.0  # seconds that a job has, after SIGTERM, to end its update and write its checkpoint
GO_ON = "the same command goes on from there"


class Terminated(SystemExit):
    """The run ended because SIGTERM asked for it, after its checkpoint was written."""

    def __init__(self, sentence: str):
        super().__init__(sentence)
        self.code = 143  # what a shell reports for SIGTERM


def end(sentence: str) -> None:
    """Say ``sentence`` and end with the exit code of SIGTERM."""
    print(sentence, file=sys.stderr, flush=True)
    raise Terminated(sentence)


@contextmanager
def termination() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM comes (Slurm sends it before it takes the machine away).

    Outside a main thread there are no signals, and the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its result, or in words why there is none."""

    label: str
    result: object = None
    error: str = ""
    details: str = ""


def run_jobs(jobs: list[tuple[str, object, tuple]], workers: int, title: str, together: bool = False) -> list[Outcome]:
    """Runs ``jobs`` (label, importable function, picklable arguments) and returns outcomes in order.

    A job that raises becomes an :class:`Outcome` with ``error``. One worker runs the jobs in this process. SIGTERM ends
    with ``Terminated`` when every worker has ended its job, an interrupt ends the workers at once. ``together``: the
    jobs need each other, the first that fails ends them all, and its outcome alone is returned.
    """
    with tqdm(total=len(jobs), desc=title, mininterval=2.0, unit="run", ncols=88, disable=together or not jobs) as bar:
        if workers > 1 and len(jobs) > 1:
            return _in_workers(jobs, min(workers, len(jobs)), title, bar, together)
        outcomes = []
        for job in jobs:
            outcomes.append(_call(*job))
            bar.update()
        return outcomes


def failures_file(results_dir: Path) -> Path:
    """What failed in the notebook or command that ran last: {run: why}; there is none when nothing did."""
    return Path(results_dir) / "work" / "failures.json"


def report(results_dir: Path, outcomes: list[Outcome], what: str, all_needed: bool = False) -> None:
    """Says which runs failed and why, and keeps it in ``failures_file``; RuntimeError when all did
    (or any: all_needed)."""
    failed, file = [outcome for outcome in outcomes if outcome.error], failures_file(results_dir)
    with locked(file.with_suffix(".lock")):  # two runs may share the results
        known = json.loads(file.read_text()) if file.is_file() else {}
        known |= {outcome.label: outcome.error for outcome in outcomes}
        if found := {label: why for label, why in known.items() if why}:
            write_json(file, found)
        else:
            file.unlink(missing_ok=True)
    if not failed:
        return
    lines = [f"{len(failed)} of {len(outcomes)} {what} runs failed:"]
    lines += [f"  {outcome.label}: {outcome.error}" for outcome in failed]
    if all_needed or len(failed) == len(outcomes):
        told = failed[0].error.startswith(("ValueError: ", "FileNotFoundError: "))  # a sentence for the user
        raise RuntimeError("\n".join(lines + ["", "the first one in full:", failed[0].details] * (not told)).rstrip())
    print("\n".join(lines))


def _call(label: str, function, arguments: tuple) -> Outcome:
    try:
        return Outcome(label, function(*arguments))
    except Exception as error:  # one failed task must not end the other ones
        words = f"{type(error).__name__}: {error}".strip()
        return Outcome(label, error=words, details=traceback.format_exc())


def _in_workers(jobs, workers: int, title: str, bar, together: bool) -> list[Outcome]:
    """Threads with a process each, since a pool of several processes ends them all when one dies."""
    outcomes: list[Outcome | None] = [None] * len(jobs)
    waiting, ended = iter(range(len(jobs))), queue.SimpleQueue()
    working, over = set(), threading.Event()  # ids of the processes that have a job

    def life() -> None:
        """Of a thread: job after job in its process, in another one when that has died."""
        number = next(waiting, None)
        while number is not None and not over.is_set():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin) as process:
                pid = None
                try:
                    pid = process.submit(os.getpid).result()
                    while number is not None:
                        working.add(pid)
                        if over.is_set():
                            return
                        ended.put((number, process.submit(_alone, *jobs[number]).result()))
                        number = next(waiting, None)
                except Exception as error:  # the process is gone, or it cannot be told the job or tell what came out
                    words = ("the worker process was ended from outside (often: out of memory); run again to go on, "
                             "with fewer workers if it repeats" if isinstance(error, BrokenProcessPool)
                             else f"{type(error).__name__}: {error}")
                    ended.put((number, Outcome(jobs[number][0], error=words)))
                    number = next(waiting, None)
                finally:
                    working.discard(pid)

    def end_all(number: int) -> None:
        over.set()
        for pid in list(working):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    threads = [threading.Thread(target=life) for _ in range(workers)]
    try:
        with termination() as asked:
            for thread in threads:
                thread.start()
            while None in outcomes and not asked:
                with suppress(queue.Empty):
                    number, outcomes[number] = ended.get(timeout=0.5)
                    if together and outcomes[number].error and not asked:
                        return [outcomes[number]]
                    bar.update()
            if asked:
                bar.close()
                ending, until = len(working), time.monotonic() + GRACE
                end_all(signal.SIGTERM)
                for thread in threads:
                    thread.join(max(0.0, until - time.monotonic()))
                end(f"{title}: SIGTERM; {ending} runs were ended, their checkpoints are written, and {GO_ON}")
    finally:
        end_all(signal.SIGKILL)
        for thread in threads:
            thread.join()
    return outcomes


def _begin() -> None:
    """The start of a worker: one thread, deaf to interrupts, which reach the parent; and it ends with its parent."""
    os.environ.update(dict.fromkeys(SINGLE_THREAD, "1"))  # read when the job imports torch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """SIGTERM to this process when its parent is gone, and its end for good after GRACE seconds."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _alone(*job) -> Outcome:
    """A job in a worker, where SIGTERM ends it and not the worker."""
    def terminated(number, frame) -> None:
        raise Terminated("SIGTERM outside the training")

    signal.signal(signal.SIGTERM, terminated)
    try:
        return _call(*job)
    except Terminated as ended:
        return Outcome(job[0], error=f"{ended}; run again to go on")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not multiprocessing.parent_process().is_alive():  # nobody waits for the outcome
            os._exit(143)
