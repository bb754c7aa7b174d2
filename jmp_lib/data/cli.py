"""The actions ``list``, ``download``, ``prepare`` and ``statistics`` of ``python -m jmp_lib data``; imports wait until one is run."""

from __future__ import annotations


def add_actions(actions) -> None:
    """Add list, download, prepare and statistics to the parser of ``data``."""

    def add(name, function, words):
        action = actions.add_parser(name, help=words, description=words)
        action.add_argument("--data-root", help="folder of the published files (default: JMP_DATA, else data/)")
        action.set_defaults(function=function)
        return action

    action = add("list", _list, "the mini data that ship with the package, and the published data sets")
    action.add_argument("--json", action="store_true", help="print JSON of the published data sets")
    action = add("download", _download, "fetch, check and unpack the files of a data set")
    action.add_argument("name", help="name of the data set, as in the list")
    action = add("prepare", _prepare, "make the store of a data set of its original files")
    action.add_argument("name", help="name of the data set, as in the list")
    action.add_argument("--source", action="append", help="an original file (else those under the data root); repeatable")
    action.add_argument("--processes", type=int, default=1, help="processes that share the files (default 1)")
    action.add_argument("--refuse-bad", action="store_true", help="stop at a bad structure; else they are left out and counted")
    action.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the reader")
    action = add("statistics", _statistics, "means and deviations of the train parts at hand beside the published ones")
    action.add_argument("--tasks", help="task ids with commas (default all 40)")
    action.add_argument("--json", action="store_true", help="print JSON")


def _list(args) -> int:
    from jmp_lib.data.commands import table

    found = table(args.data_root)
    if args.json:
        print(found.to_json(orient="records", indent=1, force_ascii=False))
        return 0
    from jmp_lib.data.mini import card, list_mini
    from jmp_lib.paths import data_dir

    for name in list_mini():
        about = card(name)
        counts = about.get("counts", {})
        print(f"{name:34s} {counts.get('structures', '?'):>6} structures  {about.get('level_of_theory', '')}"
              f"  (stands for {about.get('stands_for', '?')})")  # fmt: skip
    print(f"\nPublished data sets (data root {data_dir(args.data_root)}):")
    for row in found.itertuples():
        print(f"{row.name:28s} {row.what}\n{'':28s} {row.size}; licence: {row.licence}; {row.citation}; present: {row.present}")
    return 0


def _download(args) -> int:
    from jmp_lib.data.commands import download

    for path in download(args.name, args.data_root):
        print(path)
    return 0


def _prepare(args) -> int:
    from jmp_lib.data.commands import prepare

    pairs = dict(option.partition("=")[::2] for option in args.option)
    if bare := [option for option in args.option if "=" not in option]:
        raise ValueError(f"--option takes NAME=VALUE, not {bare[0]!r}")
    store = prepare(args.name, args.data_root, sources=args.source, processes=args.processes,
                    skip_bad=not args.refuse_bad, **pairs)  # fmt: skip
    print(f"{store.path}: {len(store)} structures, {store.bytes / 1e6:.1f} MB, sha256 {store.sha256}")
    for reason, count in store.rejected.items():
        print(f"left out {count}: {reason}")
    return 0


def _statistics(args) -> int:
    from jmp_lib.data.statistics import compare
    from jmp_lib.paths import data_dir

    found = compare(data_dir(args.data_root), args.tasks.split(",") if args.tasks else None)
    if args.json:
        print(found.to_json(orient="records", indent=1, force_ascii=False))
        return 0
    for row in found.itertuples():
        numbers = "" if row.quantity != row.quantity else (  # not a number where there are no data
            f"{row.quantity}: published {row.published:.6g}, here {row.measured:.6g} {row.unit} of {row.n_train:.0f}: ")
        print(f"{row.task} fold {row.fold}: {numbers}{row.verdict}")
    return 0
