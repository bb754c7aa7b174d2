"""``python -m tools.benchmarks NAME``: measures, prints a table and writes a JSON record with machine,
versions and commit.

The record goes to results/benchmarks/NAME.json, or to the file that --json names ("-" writes none).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jmp_lib.files import write_json
from tools.benchmarks import feed, gpu, graphs, machine, scaling, small, step, store

# name -> module with HELP, add_options(parser) and run(args) -> dict of plain numbers
MEASUREMENTS = {"data": store, "feed": feed, "graphs": graphs, "step": step, "small": small,
                "scaling": scaling, "gpu": gpu}


def main(arguments: list[str] | None = None) -> int:
    """Runs one measurement."""
    top = argparse.ArgumentParser(prog="python -m tools.benchmarks", description="Measurements on this machine.")
    names = top.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in MEASUREMENTS.items():
        parser = names.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_options(parser)
        parser.add_argument("--json", help="file of the record (default results/benchmarks/NAME.json; - for none)")
    args = top.parse_args(arguments)
    found = {"measurement": args.name, **machine.describe(), **MEASUREMENTS[args.name].run(args)}
    if args.json != "-":
        path = Path(args.json) if args.json else machine.BENCHMARKS / f"{args.name}.json"
        write_json(path, found)
        print(f"record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
