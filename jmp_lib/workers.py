"""Runs independent jobs in single-threaded worker processes.

Workers are spawned, never forked (torch and a notebook kernel hold threads).  A
worker ends by itself when the process that started it is gone, so a killed notebook
leaves nothing behind; every job keeps its own checkpoints, so the next run goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait

from tqdm import tqdm

SINGLE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its result, or in words why there is none."""

    label: str
    result: object = None
    error: str = ""
    details: str = ""


def _prepare_worker() -> None:
    """Ends this worker when its parent ends; keeps torch on one thread."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _call(label: str, function, arguments: tuple) -> Outcome:
    try:
        return Outcome(label, function(*arguments))
    except Exception as error:  # one failed task must not end the other ones
        words = f"{type(error).__name__}: {error}".strip()
        return Outcome(label, error=words, details=traceback.format_exc())


def run_jobs(jobs: list[tuple[str, object, tuple]], workers: int, title: str) -> list[Outcome]:
    """Runs ``jobs`` (label, importable function, picklable arguments) and returns outcomes in order.

    A job that raises becomes an :class:`Outcome` with ``error``.  One worker runs the
    jobs in this process.  An interrupt ends the workers at once.
    """
    if not jobs:
        return []
    bar = tqdm(total=len(jobs), desc=title, mininterval=2.0, unit="run", dynamic_ncols=False, ncols=88)
    outcomes: dict[str, Outcome] = {}
    with bar:
        if workers <= 1 or len(jobs) == 1:
            for label, function, arguments in jobs:
                outcomes[label] = _call(label, function, arguments)
                bar.update()
        else:
            _run_in_pool(jobs, min(workers, len(jobs)), outcomes, bar)
    return [outcomes[label] for label, _, _ in jobs]


def _run_in_pool(jobs, workers: int, outcomes: dict, bar) -> None:
    saved = {name: os.environ.get(name) for name in SINGLE_THREAD}
    os.environ.update({name: "1" for name in SINGLE_THREAD})  # read by the children as they start
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare_worker)
    try:
        futures = {pool.submit(_call, *job): job[0] for job in jobs}
        for future in as_completed(futures):
            label = futures[future]
            try:
                outcomes[label] = future.result()
            except BrokenProcessPool:
                outcomes[label] = Outcome(label, error="a worker process was ended from outside (often: out of "
                                          "memory); run again to go on, with fewer workers if it repeats")
            bar.update()
        pool.shutdown()
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        raise
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
