"""`python -m tools.generate NAME [NAME ...] | all | --list`: make mini data sets again, each with its card.

`python -m tools.generate large --out DIR`: the large companion of the pre-training sets, in parts
(tools/generate/large.py).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: repeatable last digits

import argparse
import importlib
import sys
from pathlib import Path

_RMD17 = ("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene", "paracetamol", "salicylic",
          "toluene", "uracil")
_MD22 = ("ac-ala3-nhme", "dha", "stachyose", "at-at", "at-at-cg-cg", "buckyball-catcher", "double-walled-nanotube")
_MATBENCH = ("jdft2d", "phonons", "dielectric", "log_gvrh", "log_kvrh", "perovskites", "mp_gap", "mp_e_form")

#: name of the set -> (module, arguments of its `generate`)
GENERATORS: dict[str, tuple[str, tuple]] = {
    "anix-mini": ("anix", ()),
    **{f"rmd17-mini-{m}": ("rmd17", (m,)) for m in _RMD17},
    "qm9-mini": ("qm9", ()),
    "t1x-mini": ("t1x", ()),
    "spice-mini-solvated_amino_acids": ("spice", ("solvated_amino_acids",)),
    "spice-mini-dipeptides": ("spice", ("dipeptides",)),
    **{f"md22-mini-{s}": ("md22", (s,)) for s in _MD22},
    "oc20-mini": ("slabs", ()),
    "oc22-mini": ("oxides", ()),
    **{f"matbench-mini-{t}": ("crystals", (t,)) for t in _MATBENCH},
    "qmof-mini": ("mofs", ()),
}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("names", nargs="*", help="names of sets, or all; or large, alone")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--out", type=Path, default=None, help="folder to write to (default: the package's data/mini)")
    parser.add_argument("--processes", type=int, default=1, help="large: processes side by side")
    parser.add_argument("--parts", type=int, default=None, help="large: only the first so many parts")
    options = parser.parse_args(argv)
    if options.names == ["large"]:
        if options.out is None:
            parser.error("large needs --out DIR: it is not a part of the package")
        return make_large(options)
    if options.list or not options.names:
        print("\n".join(GENERATORS))
        return 0
    names = list(GENERATORS) if options.names == ["all"] else options.names
    unknown = [name for name in names if name not in GENERATORS]
    if unknown:
        parser.error(f"no such set: {', '.join(unknown)}; --list prints the names")
    for name in names:
        module, arguments = GENERATORS[name]
        try:
            generate = importlib.import_module(f"tools.generate.{module}").generate
        except ImportError as error:
            parser.exit(1, f"{name}: {error}\n")
        card = generate(*arguments, out_dir=options.out)
        print(f"{name}: {card['counts']['structures']} structures, {card['bytes']} bytes, {card['cpu_seconds']} CPU s")
    return 0


def make_large(options: argparse.Namespace) -> int:
    """The parts of the large companion, then `summary.json` of all that is there; 1 where a part failed."""
    from jmp_lib.files import write_json
    from tools.generate import large

    failed = [outcome for outcome in large.generate(options.out, options.processes, options.parts) if outcome.error]
    write_json(options.out / "summary.json", large.summary(options.out))
    for where, count in large.in_tests(options.out).items():
        print(f"{where}: {count} structures are copies of structures of the test part; leave these groups out",
              file=sys.stderr)
    if failed:
        print(f"{len(failed)} parts failed, the first, {failed[0].label}, with {failed[0].error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
