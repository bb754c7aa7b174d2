"""The published pre-training sets at hand: which store or files serve each, and how they are split.

For each set the first of these that is there is taken: a prepared store (the largest part of OC20 first), original
files small enough to be read at once, samples of them. Train and validation are the official parts where both are
there. Else ANI-1x, when it is whole, is split by formulas as its official script does, and any other set by whole
groups (trajectories, formulas, reactions): in the order of the seed-42 shuffle, a tenth of the structures goes to
validation, and groups with an element that no training structure has come back to the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from jmp_lib.data import ani1x, splits
from jmp_lib.data.catalog import entry
from jmp_lib.data.collect import to_set
from jmp_lib.data.commands import read_part
from jmp_lib.data.store import MANIFEST, Store
from jmp_lib.data.store_parts import LeftOut
from jmp_lib.data.store_view import StoreView
from jmp_lib.data.structures import StructureSet
from jmp_lib.paths import data_dir

VAL_FRACTION = 0.1  # of the structures, where there is no official validation part
DIRECT_BYTES = 256 << 20  # more than this is not read into memory but prepared as a store first

# set -> (catalogue name of the training part, of the official validation part), best first
PARTS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "oc20": tuple((f"oc20-{size}", "oc20-val") for size in ("all", "20m", "2m", "200k")),
    "oc22": (("oc22", "oc22-val"),),
    "ani1x": (("ani1x", None),),
    "transition1x": (("transition1x", "transition1x-val"),),
}
# set -> samples in the folder of its name: (pattern of training files, of validation files, options of the reader).
# A trajectory holds total energies; its adsorption reference is in no file of a sample.
SAMPLES: dict[str, tuple[tuple[str, str | None, dict], ...]] = {
    "oc20": (("*.traj", None, {"energy": "total"}),),
    "oc22": (("*train*.pkl", "*val*.pkl", {}),),
    "ani1x": (("*train*.pkl", "*val*.pkl", {}), ("ani1x*.h*5", None, {})),
    "transition1x": (("*train*.pkl", "*val*.pkl", {}), ("*.lmdb", None, {})),
}


@dataclass(frozen=True)
class Found:
    """What serves a set: name and kind in words, and functions that open the training and the validation part."""

    key: str
    words: str
    train: Callable[[], Store | StructureSet]
    val: Callable[[], Store | StructureSet] | None


def find(key: str, data_root: str | Path | None = None) -> Found:
    """What serves pre-training set ``key``; nothing is read. ``FileNotFoundError`` names set, folder and command."""
    root = data_dir(data_root)
    return next(chain(_stores(key, root), _originals(key, root), _samples(key, root)), None) or _missing(key, root)


def why_not(key: str, data_root: str | Path | None = None) -> str | None:
    """Why there are no published data of ``key``, in one sentence, or None when there are."""
    try:
        find(key, data_root)
    except FileNotFoundError as error:
        return str(error)
    return None


def load(key: str, data_root: str | Path | None = None, caps: Mapping[str, int | None] | None = None):
    """Training and validation part of set ``key``: views of stores, or sets in memory where files are read directly.

    caps: {"train": n, "val": n}, at most so many structures, the first of the seed-42 shuffle. Raises
    ``FileNotFoundError`` (see :func:`find`), and ``ValueError`` for damaged data or a set without energy or forces.
    """
    found = find(key, data_root)
    train = found.train()
    missing = [label for label in ("energy", "forces") if label not in train.labels]
    if missing:
        raise ValueError(f"{train.name} has no {' and no '.join(missing)}, which pre-training needs")
    if found.val is not None:
        parts = [(whole, range(len(whole))) for whole in (train, found.val())]
    else:
        parts = [(train, rows) for rows in split(key, train)]
    limits = [(caps or {}).get(part) for part in ("train", "val")]
    return tuple(_view(whole, _capped(rows, limit)) for (whole, rows), limit in zip(parts, limits, strict=True))


def split(key: str, whole: Store | StructureSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and validation where there is no official validation part (see the module)."""
    group, names = groups(whole)
    if key == "ani1x":
        frames = np.bincount(group, minlength=len(names))
        atoms = np.zeros(len(names), np.int64)
        atoms[group] = whole.natoms
        sizes = {name: (int(n), int(size)) for name, n, size in zip(names, frames, atoms, strict=True)}
        if frames[atoms >= ani1x.MIN_ATOMS].sum() > 3 * ani1x.N_HELD_OUT:  # whole; a part of it goes by groups
            train, val, _ = ani1x.split_formulas(sizes)
            return tuple(np.flatnonzero(np.isin(group, [names.index(name) for name in part])) for part in (train, val))
    held = _held_out(group, group_elements(whole, group), f"{key}, {whole.name}")
    rows = splits.shuffled(len(whole))
    in_val = held[group[rows]]
    return rows[~in_val], rows[in_val]


def _held_out(group: np.ndarray, has: np.ndarray, where: str) -> np.ndarray:
    """Which groups are validation, bool (G,): the first of the seed-42 shuffle whose elements others have as well."""
    sizes = np.bincount(group, minlength=len(has))
    holders = has.sum(axis=0)  # groups of the training part that have each element
    held, count = np.zeros(len(has), bool), 0
    for number in splits.shuffled(len(has)):
        if count >= VAL_FRACTION * len(group):
            break
        if (holders[has[number]] > 1).all():
            held[number] = True
            holders -= has[number]
            count += sizes[number]
    if not count:
        raise ValueError(
            f"{where}: {len(has)} group(s) cannot be split into training and validation without a group or an element of "
            "validation that training lacks; give it more structures"
        )
    return held


def groups(whole: Store | StructureSet) -> tuple[np.ndarray, list[str]]:
    """Group of each structure int64 (S,), numbered in the order of the sorted names, and the names.

    Structures without named groups are each a group of their own. Of a store only the text column is read.
    """
    if isinstance(whole, StructureSet):
        if not whole.group_names:
            return np.arange(len(whole)), [str(row) for row in range(len(whole))]
        return whole.group, list(whole.group_names)
    if "group" not in whole.layout.strings:
        return np.arange(len(whole)), [str(row) for row in range(len(whole))]
    table: dict[str, int] = {}
    found = np.empty(len(whole), np.int64)
    start = 0
    for shard in whole.each_shard():
        numbers, texts = shard.texts("group")
        found[start : start + len(shard)] = np.array([table.setdefault(text, len(table)) for text in texts])[numbers]
        start += len(shard)
    names = sorted(table)
    rank = np.empty(len(names), np.int64)
    rank[[table[name] for name in names]] = np.arange(len(names))
    return rank[found], names


def group_elements(whole: Store | StructureSet, group: np.ndarray) -> np.ndarray:
    """Which elements each group has, bool (G, 121) by atomic number."""
    has = np.zeros((group.max() + 1, 121), bool)
    start = 0
    for part in [whole] if isinstance(whole, StructureSet) else whole.each_shard():
        natoms = np.diff(part.offsets)
        has[np.repeat(group[start : start + len(natoms)], natoms), part.atomic_numbers] = True
        start += len(natoms)
    return has


def _stores(key: str, root: Path) -> Iterator[Found]:
    for train, val in PARTS[key]:
        path, other = entry(train).store(root), entry(val).store(root) if val else None
        if (path / MANIFEST).is_file():
            official = other is not None and (other / MANIFEST).is_file()
            yield Found(key, f"store {train}" + (f" and store {val}" if official else ""),
                        lambda p=path: Store(p), (lambda p=other: Store(p)) if official else None)  # fmt: skip


def _originals(key: str, root: Path) -> Iterator[Found]:
    for train, val in PARTS[key]:
        one = entry(train)
        files, others = one.find(root), entry(val).find(root) if val else []
        if not files:
            continue
        if sum(file.stat().st_size for file in {*files, *others}) > DIRECT_BYTES:
            raise FileNotFoundError(
                f"{train} is in {root / one.folder} but not prepared for pre-training: run "
                f"`python -m jmp_lib data prepare {train}`" + (f" and `python -m jmp_lib data prepare {val}`" if val else "")
            )
        yield Found(key, f"{len(files)} original file(s) of {train}", _reading(train, one.reader, files, dict(one.options)),
                    _reading(val, one.reader, others, dict(entry(val).options)) if others else None)  # fmt: skip


def _samples(key: str, root: Path) -> Iterator[Found]:
    for pattern, val_pattern, options in SAMPLES[key]:
        files = sorted((root / key).glob(pattern))
        others = sorted((root / key).glob(val_pattern)) if val_pattern else []
        if files and sum(file.stat().st_size for file in files) <= DIRECT_BYTES:
            words = f"{len(files)} sample file(s) {pattern} of {root / key}"
            words += "".join(f", {name} {value}" for name, value in options.items())
            yield Found(key, words, _reading(f"{key}-sample", key, files, options),
                        _reading(f"{key}-sample", key, others, options) if others else None)  # fmt: skip


def _reading(name: str, reader: str, files: list[Path], options: dict) -> Callable[[], StructureSet]:
    """A function that reads ``files`` into one set whose ids are its rows; unsound structures are left out."""

    def read() -> StructureSet:
        found = chain.from_iterable(read_part(file, dataset=reader, skip_bad=True, **options) for file in files)
        sound = ({**s, "id": row} for row, s in enumerate(s for s in found if not isinstance(s, LeftOut)))
        return to_set(name, sound, f"{len(files)} original file(s)", where=f"{files[0].parent}")

    return read


def _missing(key: str, root: Path):
    name, val = PARTS[key][-1]
    one = entry(name)
    parts = [name, val] if val else [name]
    names = " or ".join(train for train, _ in PARTS[key])
    actions = [(action, part) for part in parts for action in ("download", "prepare")]
    commands = ", ".join(f"`python -m jmp_lib data {action} {part}`" for action, part in actions)
    raise FileNotFoundError(
        f"there are no published data of {key} for pre-training: no store {names} in {root / 'stores'} and no "
        f"original files in {root / one.folder}; run {commands}"
    )


def _capped(rows, limit: int | None):
    """At most ``limit`` rows; of a part in its own order the first of the seed-42 shuffle, which are from all over."""
    if limit is None or limit >= len(rows):
        return rows
    return splits.shuffled(len(rows))[:limit] if isinstance(rows, range) else rows[:limit]


def _view(whole: Store | StructureSet, rows) -> StoreView | StructureSet:
    if isinstance(whole, Store):
        return StoreView(whole, rows)
    return whole.subset(np.asarray(rows))
