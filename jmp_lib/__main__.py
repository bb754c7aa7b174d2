"""The command line: ``python -m jmp_lib COMMAND``.  Every command imports only what it needs."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from importlib import import_module

from jmp_lib.data.cli import add_actions
from jmp_lib.parameters import KINDS

OPTIONS = {name: {"type": {"int": int, "float": float}.get(kind, str), "help": meaning}
           for name, (kind, meaning) in KINDS.items()}
OPTIONS["profile"]["default"] = "mini"
ENGINE = {  # how a training is carried out: ``engine`` of the profile
    "devices": "processes that share every batch, a GPU each", "workers_data": "processes that prepare batches ahead",
    "max_edges": "edges that are computed at once; larger batches go in parts"}  # fmt: skip
OPTIONS |= {name: {"type": int, "help": words} for name, words in ENGINE.items()}
RUN = ("profile", "seed", "data", "data_root", "workers", "results_dir", "max_steps", "max_eval")


def run_of(args, *chosen: str):
    """The workbook run of the options that all runs have and of those of ``chosen``,
    with the engine's options applied."""
    from jmp_lib.workbook import start

    names = (*RUN, *chosen)
    run = start({name: getattr(args, name) for name in names}, names)
    return with_engine(run, args) if hasattr(args, "devices") else run


def with_engine(run, args):
    """``run`` (jmp_lib.workbook.Run) with the options of ENGINE that were given; ``ValueError`` for a bad one.

    Where several processes share a training, runs come one after the other, and only the first process prints.
    """
    from jmp_lib.settings import Engine, build
    from jmp_lib.train.processes import is_first, launched

    given = {name: getattr(args, name) for name in ENGINE if getattr(args, name) is not None}
    engine = build(Engine, run.profile.engine.model_dump() | given, "engine")
    several = launched() is not None or engine.devices > 1
    if not is_first():
        sys.stdout = open(os.devnull, "w")
    profile = run.profile.model_copy(update={"engine": engine, "workers": 1 if several else run.profile.workers})
    return dataclasses.replace(run, profile=profile)


def main_of(module: str, *names: str):
    """A command that hands the options ``names`` on to ``main`` of a module of the package."""
    return lambda args: import_module(f"jmp_lib.{module}").main(*(getattr(args, name) for name in names))


def _pretrain(args) -> int:
    for record in run_of(args, "sizes").pretrain_all():
        shipped = (f"{record.get('shipped')} comes with the package, nothing was trained; "
                   "to train: --profile mini:embedded")
        print(f"{record['size']}: {shipped if 'shipped' in record else 'done'}")
    return 0


def _finetune(args) -> int:
    table = run_of(args, "tasks", "arms").finetune_all(fold=args.fold)
    print(table.to_string(index=False))
    return int(bool(table.attrs["failed"]))


def _scale_factors(args) -> int:
    from jmp_lib.train.pretraining import scale_factors

    run = run_of(args, "sizes")
    for size in run.sizes:
        print(f"{size}: {len(scale_factors(run.profile, size, run.results_dir))} scale factors")
    return 0


def _sweep(args) -> int:
    from jmp_lib.sweep import KEYS, main

    return main({key: getattr(args, key, None) for key in KEYS}, args.cores, args.snakemake)


def _baselines(args) -> int:
    from jmp_lib.results.baselines import run_all
    from jmp_lib.results.values import baseline_table

    run = run_of(args, "tasks")
    outcomes = run_all(run, args.only.split(",") if args.only else None)
    print(baseline_table(run.results_dir).to_string(index=False))
    return int(any(outcome.error for outcome in outcomes))


def _tables(args) -> int:
    from jmp_lib.results.tables import write_tables

    print("\n".join(map(str, write_tables(run_of(args).results_dir))))
    return 0


def _report(args) -> int:
    from jmp_lib.results.pages import write_report
    from jmp_lib.settings import load_profile
    from jmp_lib.workbook import results_folder

    profile = load_profile(args.profile)
    path = write_report(results_folder(args.results_dir, profile), profile.name)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(prog="python -m jmp_lib", description="JMP workbook: pre-train, fine-tune, tables.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, function, words, *options):
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(function=function)
        for option in options:
            command.add_argument(f"--{option.replace('_', '-')}", **OPTIONS[option])
        return command

    command = add("reproduce", main_of("reproduce", "profile", "only", "results_dir"),
                  "run the notebooks in order; done ones are skipped", "profile", "results_dir")
    command.add_argument("--only", help="numbers of notebooks, for instance 03,04")

    add("pretrain", _pretrain, "joint pre-training of the small and large model", *RUN, "sizes", *ENGINE)

    command = add("finetune", _finetune, "fine-tune tasks with arms", *RUN, "tasks", "arms", *ENGINE)
    command.add_argument("--fold", type=int, help="only this MatBench fold (default as many as the profile says)")

    command = add("baselines", _baselines, "simpler models on the same data as the arms", *RUN, "tasks")
    command.add_argument("--only", help="mean, composition, frozen, untrained, mace (after `make mace`), schnet, "
                         "with commas (default all, schnet on published data)")

    add("scale-factors", _scale_factors, "fit the scale factors of the networks", *RUN, "sizes")

    command = add("sweep", _sweep, "all runs of a profile under Snakemake; goes on after a kill", *RUN, "tasks", "arms")
    command.add_argument("--cores", type=int, default=os.cpu_count(), help="cores of this machine to use")
    command.add_argument("snakemake", nargs="*", help="options of Snakemake, after --, for instance -- -n")

    add("tables", _tables, "write the tables of the records that are there", *RUN)

    add("report", _report, "write the one-file HTML report of the records and figures that are there",
        "profile", "results_dir")

    command = add("import-checkpoint", main_of("official.importing", "file", "out"),
                  "read an official checkpoint (jmp-s.pt, jmp-l.pt), executing nothing in it")
    command.add_argument("file", metavar="FILE", help="the downloaded checkpoint")
    command.add_argument("--out", metavar="DIR",
                         help="folder to write (default: checkpoints/<name> of the data folder)")

    asked = ("model", "structures", "output", "batch_size", "device", "dataset", "any_element")
    command = add("predict", main_of("predict", *asked),
                  "structures in, extended XYZ with predictions out; goes on after a kill")
    command.add_argument("model", help="folder with model.json and model.safetensors, or mini-small, mini-large")
    command.add_argument("structures", help="extended XYZ, ASE database, or any file that ASE reads")
    command.add_argument("-o", "--output", required=True, help="extended XYZ file to write")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    command.add_argument("--dataset", help="heads of a pre-trained network: oc20, oc22, ani1x, transition1x")
    command.add_argument("--any-element", action="store_true", help="also elements that no training of the network saw")

    words = "the data sets: what is there; download and prepare them"
    data = commands.add_parser("data", help=words, description=words)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_actions(actions)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; bad input ends with one sentence on stderr and exit code 2."""
    args = parser().parse_args(arguments)
    try:
        code = args.function(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # its reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("JMP_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
