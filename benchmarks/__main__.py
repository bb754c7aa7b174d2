"""``python -m benchmarks NAME``; every measurement prints its numbers and, with --json FILE, writes them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs one measurement."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description="Measurements on this machine.")
    names = top.add_subparsers(dest="name", required=True, metavar="NAME")
    data = names.add_parser("data", help="the store against LMDB of pickled graphs and extended XYZ; conversion of many")
    data.add_argument("--structures", type=int, default=10_000, help="structures of the reading test (default 10000)")
    data.add_argument("--reads", type=int, default=5_000, help="random reads of each form (default 5000)")
    data.add_argument("--convert", default="10000,100000,1000000", help="numbers of structures to convert, with commas")
    data.add_argument("--folder", help="where to write (default: a temporary folder); needs about 2 GB for a million")
    for parser in (data,):
        parser.add_argument("--json", help="file for the numbers")
    args = top.parse_args(arguments)

    from benchmarks import store

    found = store.run(args.structures, args.reads, [int(n) for n in args.convert.split(",") if n], args.folder)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
