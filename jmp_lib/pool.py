"""Independent jobs in single-threaded worker processes, and how processes end together.

Workers are spawned, never forked (torch and a notebook kernel hold threads), and each goes on with the next job. A
worker that dies costs its job alone. SIGTERM to this process is passed on, and the trainings write their checkpoints;
SIGTERM to a worker ends its job alone. A worker whose parent is gone ends its job in the same way, so a killed notebook
leaves nothing behind. Every job keeps its own checkpoints, so the next run goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from tqdm import tqdm

from jmp_lib.files import write_json

SINGLE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GRACE = 300.0  # seconds that a job has, after SIGTERM, to end its update and write its checkpoint
GO_ON = "the same command goes on from there"


class Terminated(SystemExit):
    """The run ended because SIGTERM asked for it, after its checkpoint was written."""

    def __init__(self, sentence: str):
        super().__init__(143)  # what a shell reports for SIGTERM
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


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
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def end_with(parent: int) -> None:
    """From now on this process ends when the process ``parent`` is gone: SIGTERM, and for good after GRACE seconds."""

    def watch() -> None:
        try:
            ended = select.poll()
            ended.register(os.pidfd_open(parent), select.POLLIN)  # Linux: readable as soon as the process has ended
            ended.poll()
        except (AttributeError, OSError):
            while _exists(parent):
                time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


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
    with ``Terminated`` when every worker has ended its job, an interrupt ends the workers at once. ``together``: the jobs
    need each other, the first that fails ends them all, and its outcome alone is returned.
    """
    if not jobs:
        return []
    with tqdm(total=len(jobs), desc=title, mininterval=2.0, unit="run", ncols=88, disable=together) as bar:
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
    """Says which runs failed and why, and keeps it in ``failures_file``; RuntimeError when all did (or any, if all are needed)."""
    failed, file = [outcome for outcome in outcomes if outcome.error], failures_file(results_dir)
    known = json.loads(file.read_text()) if file.is_file() else {}
    kept = {label: why for label, why in known.items() if label not in {o.label for o in outcomes}}
    if found := kept | {outcome.label: outcome.error for outcome in failed}:
        write_json(file, found)
    else:
        file.unlink(missing_ok=True)
    if not failed:
        return
    lines = [f"{len(failed)} of {len(outcomes)} {what} runs failed:"]
    lines += [f"  {outcome.label}: {outcome.error}" for outcome in failed]
    if all_needed or len(failed) == len(outcomes):
        raise RuntimeError("\n".join(lines + ["", "the first one in full:", failed[0].details]).rstrip())
    print("\n".join(lines))


def _call(label: str, function, arguments: tuple) -> Outcome:
    try:
        return Outcome(label, function(*arguments))
    except Exception as error:  # one failed task must not end the other ones
        words = f"{type(error).__name__}: {error}".strip()
        return Outcome(label, error=words, details=traceback.format_exc())


def _in_workers(jobs, workers: int, title: str, bar, together: bool) -> list[Outcome]:
    outcomes: list[Outcome | None] = [None] * len(jobs)
    waiting = list(enumerate(jobs))[::-1]
    running: dict = {}  # connection -> (worker, number of its job)

    def give(connection, worker) -> None:
        """The next job to a worker; none is left: its end."""
        if not waiting:
            return connection.close()
        number, job = waiting.pop()
        running[connection] = worker, number
        with suppress(OSError):  # it has just ended, which the loop below is told
            connection.send(job)

    try:
        with termination() as asked:
            for _ in range(workers):
                give(*_started())
            while running and not asked:
                for connection in wait(list(running), timeout=0.5):
                    worker, number = running.pop(connection)
                    try:
                        outcomes[number] = connection.recv()
                    except (EOFError, OSError):  # the process is gone; another one takes its place
                        outcomes[number] = Outcome(
                            jobs[number][0], error="the worker process was ended from outside (often: out of memory); run "
                            "again to go on, with fewer workers if it repeats")
                        connection.close()
                        if waiting:
                            connection, worker = _started()
                    if together and outcomes[number].error and not asked:
                        connection.close()
                        return [outcomes[number]]
                    bar.update()
                    if not connection.closed:
                        give(connection, worker)
            if asked:
                bar.close()
                _end_all(running)
                end(f"{title}: SIGTERM; {len(running)} runs were ended, their checkpoints are written, and {GO_ON}")
    finally:
        for connection, (worker, _) in running.items():
            worker.kill()
            connection.close()
    return outcomes


def _started() -> tuple:
    """A new worker: (connection, process)."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_work, args=(there, os.getpid()), daemon=False)
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(SINGLE_THREAD, "1"))  # read by the child as it starts
    try:
        worker.start()
    finally:
        for name in SINGLE_THREAD:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in SINGLE_THREAD if name in before})
    there.close()
    return here, worker


def _end_all(running: dict) -> None:
    """SIGTERM to every worker, and GRACE seconds in which they write their checkpoints."""
    until = time.monotonic() + GRACE
    for connection, (worker, _) in running.items():
        connection.close()  # nobody waits for the outcome
        worker.terminate()
    for worker, _ in running.values():
        worker.join(max(0.0, until - time.monotonic()))


def _work(connection, parent: int) -> None:
    """The life of a worker: jobs from ``connection``, outcomes back, until it is closed."""
    working = []

    def terminated(number, frame) -> None:
        if not working:
            os._exit(143)
        raise Terminated("SIGTERM outside the training")

    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches the parent, which ends the workers
    end_with(parent)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        working.append(job)
        try:
            outcome = _call(*job)
        except Terminated as ended:
            outcome = Outcome(job[0], error=f"{ended}; run again to go on")
        working.clear()
        try:
            connection.send(outcome)
        except OSError:  # the parent is gone
            return
