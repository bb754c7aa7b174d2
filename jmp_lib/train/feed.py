"""Batches prepared ahead by worker processes."""

from __future__ import annotations

import resource
import signal
import traceback
from typing import Iterator

import torch
from torch.utils.data import DataLoader

AHEAD = 2  # batches that every worker keeps ready


def prepared(data, first: int, stop: int, workers: int, pin: bool) -> Iterator:
    """``data[first]``, ``data[first + 1]``, ... up to ``stop``, prepared ahead by ``workers`` processes (0: none).

    Batch k depends on k alone, so the number of workers changes nothing and a resumed run just starts at its k.
    Workers are spawned: they hold no copy of a GPU context, and open memory maps of their own.  Close the iterator to
    end them; they also end by themselves when this process is gone.
    """
    if not workers or first >= stop:
        yield from (data[k] for k in range(first, stop))
        return
    _many_open_files()
    loader = DataLoader(_Sentences(data), batch_size=None, sampler=range(first, stop), num_workers=workers,
                        collate_fn=_as_it_is, prefetch_factor=AHEAD, multiprocessing_context="spawn",
                        worker_init_fn=_start_worker, pin_memory=pin,
                        generator=torch.Generator())  # its own: nothing is drawn from torch's
    for found in loader:
        if isinstance(found, Exception):
            raise found
        yield found


class _Sentences(torch.utils.data.Dataset):
    """``data`` with errors handed over as they are: a DataLoader would put a traceback in place of the sentence."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, step: int):
        try:
            return self.data[step]
        except Exception as error:
            error.add_note(traceback.format_exc())
            return error


def _as_it_is(value):
    return value


def _start_worker(number: int) -> None:
    """One thread; the training process, not the signal, decides when a worker ends."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
    _many_open_files()


def _many_open_files(wanted: int = 65536) -> None:
    """Tensors travel between processes as open files: as many as the system lets a user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
