"""Options of the command line that say how a training is carried out (``engine`` of the profile)."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """--devices, --data-workers, --max-edges, --memory-gb, --nonfinite-budget, --logs; else as the profile says."""
    command.add_argument("--devices", type=int, help="processes that share every batch, a GPU each")
    command.add_argument("--data-workers", type=int, dest="workers_data", help="processes that prepare batches ahead")
    command.add_argument("--max-edges", type=int, help="edges that are computed at once; larger batches go in parts")
    command.add_argument("--memory-gb", type=float, help="on a CPU: what one pass may take before the batch is split")
    command.add_argument("--nonfinite-budget", type=int, help="updates that may be left out: loss not finite")
    command.add_argument("--logs", help="csv, tensorboard, wandb, with commas")


def with_engine(run, args):
    """``run`` (jmp_lib.workbook.Run) with the options given on the command line.

    Where several processes share a training, runs come one after the other, and only the first process prints.
    Raises ``ValueError`` for a bad option.
    """
    from jmp_lib.settings import Engine, build
    from jmp_lib.train.processes import is_first, launched

    given = {name: getattr(args, name) for name in Engine.model_fields if getattr(args, name, None) is not None}
    if "logs" in given:
        given["logs"] = [name.strip() for name in given["logs"].split(",") if name.strip()]
    engine = build(Engine, run.profile.engine.model_dump() | given, "engine")
    several = launched() is not None or engine.devices * engine.nodes > 1
    if not is_first():
        sys.stdout = open(os.devnull, "w")
    profile = run.profile.model_copy(update={"engine": engine, "workers": 1 if several else run.profile.workers})
    return dataclasses.replace(run, profile=profile)
