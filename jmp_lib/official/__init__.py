"""The official checkpoints, and the command ``import-checkpoint`` (imports wait until it is run)."""

from __future__ import annotations


def add_import(add) -> None:
    """Add the command to the parser. ``add``: makes a command of name, function and words."""
    command = add("import-checkpoint", _import, "read an official checkpoint (jmp-s.pt, jmp-l.pt), executing nothing in it")
    command.add_argument("file", metavar="FILE", help="the downloaded checkpoint")
    command.add_argument("--weights", default="official", choices=("official", "ema", "raw"),
                         help="official: as the published fine-tuning starts (default); ema: averages everywhere; raw")
    command.add_argument("--out", metavar="DIR", help="folder to write (default: checkpoints/<name> of the data folder)")


def _import(args) -> int:
    from jmp_lib.official.importing import import_checkpoint

    print(import_checkpoint(args.file, args.out, args.weights))
    return 0
