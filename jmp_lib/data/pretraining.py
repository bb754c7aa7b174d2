"""The four pre-training sets: which store or files serve each, and how they are split.

For each published set the first of these that is there is taken: a prepared store (the largest part of OC20 first),
original files small enough to be read at once, samples of them. Train and validation are the official parts where both
are there. Else ANI-1x, when it is whole, is split by formulas as its official script does, and any other set by whole
groups (trajectories, formulas, reactions): in the order of the seed-42 shuffle, a tenth of the structures goes to
validation, groups with an element of their own excepted.

Of samples all that are there are put together, without copies; with ANI-1x go the S66x8 dimers of COMP6, which are of
its theory. Their groups are systems of OC20, formulas of ANI-1x and Transition-1x (wider than a molecule or a
reaction, which not every sample names): those of official validation samples come first.

``large`` is the generator's large companion of the mini sets, as many parts as are there. A tenth of its groups,
chosen by their names, is validation, so more parts never move a group. In ``mini+published`` and ``large+published``
each source of a set is a set of its own, with heads, reference energies and scales of its own: on two levels of
theory the same structure has other energies and forces, and a head that must give both gives neither.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmp_lib.data import ani1x, mini, splits
from jmp_lib.data.catalog import entry
from jmp_lib.data.copies import copies
from jmp_lib.data.door import MAX_ATOMIC_NUMBER, hill
from jmp_lib.data.formats import matching
from jmp_lib.data.store import is_store, open_store
from jmp_lib.data.structures import BLOCK, StructureSet, to_set
from jmp_lib.data.tasks import PRETRAINING_SETS, checked_caps
from jmp_lib.files import reading
from jmp_lib.paths import data_dir, data_dirs, data_place

VAL_FRACTION = 0.1  # of the structures, where there is no official validation part
DIRECT_BYTES = 256 << 20  # more than this is not read into memory but prepared as a store first

# set -> (catalogue name of the training part, of the official validation part), best first
PARTS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "oc20": tuple((f"oc20-{size}", "oc20-val") for size in ("all", "20m", "2m", "200k")),
    "oc22": (("oc22", "oc22-val"),),
    "ani1x": (("ani1x", None),),
    "transition1x": (("transition1x", "transition1x-val"),),
}
# set -> samples under a data root: patterns of the files that go together, and of those of the official validation part
# (samples of OC22 are found as its original files)
SAMPLES: dict[str, tuple[tuple[str, ...], str]] = {
    "oc20": (("oc20/*relaxations*.npz",), ""),
    "ani1x": (("ani1x/*train*.pkl", "ani1x/**/ani1x*.h*5", "ani1x/ani1x_truncated*.npz", "comp6_s66x8/*.h5"),
              "ani1x/*val*.pkl"),
    "transition1x": (("transition1x/*train*.pkl", "transition1x/*.lmdb"), "transition1x/*val*.pkl"),
}  # fmt: skip
BY_FORMULA = ("ani1x", "transition1x")  # sets whose samples are grouped so


class PretrainingData(NamedTuple):
    """One pre-training set: its name (``oc20``, ...), train and validation structures with energy and forces."""

    name: str
    train: StructureSet
    val: StructureSet


SOURCES = ("mini", "large", "published", "mini+published", "large+published")


def load_pretraining_data(data: str = "mini", caps: Mapping[str, Mapping[str, int | None]] | None = None,
                          data_root: str | Path | None = None) -> list[PretrainingData]:
    """The four pre-training sets, in the order of the pre-training heads: oc20, oc22, ani1x, transition1x; then those
    of the second source that are there.

    data: one of SOURCES. data_root: folder of ``large`` and of the published files (None: JMP_DATA, else data/).
    caps: {set: {"train": n, "val": n}}, at most so many structures of each source. Raises ``ValueError`` for another
    source, an unknown set or damaged data, ``FileNotFoundError`` (set, folder, command) where nothing is there.
    """
    caps = checked_caps(caps, tuple(PRETRAINING_SETS))
    limits = {name: checked_caps(caps[name], ("train", "val")) for name in PRETRAINING_SETS}
    if data not in SOURCES:
        raise ValueError(f"data is {data!r}; pre-training data can be "
                         f"{', '.join(map(repr, SOURCES[:-1]))} or {SOURCES[-1]!r}")
    generated, _, beside = data.partition("+")
    found = []
    if generated == "published":
        for name in PRETRAINING_SETS:  # a missing set is told before the others are read
            find(name, data_root)
    else:
        folder = data_place(data_root, "large") if generated == "large" else None
        found = [PretrainingData(name, *_generated(mini_name, folder, limits[name]))
                 for name, mini_name in PRETRAINING_SETS.items()]
    published = [name for name in PRETRAINING_SETS if not found or (beside and why_not(name, data_root) is None)]
    return found + [PretrainingData(name, *load(name, data_root, limits[name])) for name in published]


def _generated(name: str, folder: Path | None, limit: Mapping[str, int | None]) -> list[StructureSet]:
    """Training and validation part of a mini set, or of its large companion, parts of which lie in ``folder``.

    Validation groups with an element that no training structure has move to train: reference energies of such an
    element cannot be fitted, and its embedding would be random.
    """
    if folder is None:
        whole = mini.load_mini(name)
        val, train = splits.group_parts(whole.group, (VAL_FRACTION,))
    else:
        whole = mini.load_parts(name.replace("mini", "large"), folder)
        held = np.array([hashlib.sha256(text.encode()).digest()[0] < 256 * VAL_FRACTION for text in whole.group_names])
        rows = splits.shuffled(len(whole))
        in_val = held[whole.group[rows]]
        train, val = rows[~in_val], rows[in_val]
    has = group_elements(whole, whole.group)
    moved = (has & ~has[whole.group[train]].any(axis=0)).any(axis=1)[whole.group[val]]
    train, val = np.concatenate([train, val[moved]]), val[~moved]
    return [whole.subset(train[: limit["train"]]), whole.subset(val[: limit["val"]])]


def _check_labels(whole: StructureSet) -> None:
    missing = [key for key in ("energy", "forces") if key not in whole.labels]
    if missing:
        raise ValueError(f"{whole.name} has no {' and no '.join(missing)}, which pre-training needs")


def find(key: str, data_root: str | Path | None = None) -> Callable[[], list[tuple[StructureSet, Sequence[int]]]]:
    """What opens the parts of pre-training set ``key``, training and validation, each a set and the rows of it;
    nothing is read here. ``FileNotFoundError`` names set, folder and command."""
    root, roots = data_dir(data_root), data_dirs(data_root)
    for names in PARTS[key]:
        paths = [entry(name).store(data_root) for name in names if name]
        if is_store(paths[0]):
            return partial(_parts, key, *(partial(open_store, path) for path in paths if is_store(path)))
    for train, val in PARTS[key]:
        found = [(name, entry(name), entry(name).find(data_root)) for name in (train, val) if name]
        if not found[0][2]:
            continue
        if sum(file.stat().st_size for file in {file for *_, files in found for file in files}) > DIRECT_BYTES:
            raise FileNotFoundError(f"{train} is in {root / found[0][1].folder} but not prepared for pre-training: run "
                                    + " and ".join(f"`python -m jmp_lib data prepare {name}`" for name, *_ in found))
        return partial(_parts, key,
                       *(partial(_whole, name, one.reader, files, one.options) for name, one, files in found if files))
    patterns, val_pattern = SAMPLES.get(key, ((), ""))
    files = [path for pattern in patterns for path in matching(pattern, roots)]
    if files and sum(file.stat().st_size for file in files) <= DIRECT_BYTES:
        return partial(_sample, key, files, matching(val_pattern, roots) if val_pattern else [])
    last = [name for name in PARTS[key][-1] if name]
    commands = ", ".join(f"`python -m jmp_lib data {action} {name}`" for name in last
                         for action in ("download", "prepare"))
    stores = " or ".join(train for train, _ in PARTS[key])
    raise FileNotFoundError(f"there are no published data of {key} for pre-training: "
                            f"no store {stores} in {root / 'stores'} and no "
                            f"original files in {root / entry(last[0]).folder}; run {commands}")


def _parts(key: str, train: Callable[[], StructureSet], val: Callable[[], StructureSet] | None = None) -> list:
    """The official parts, or those of :func:`split`."""
    whole = train()
    _check_labels(whole)
    return ([(part, range(len(part))) for part in (whole, val())] if val
            else [(whole, rows) for rows in split(key, whole)])


def _sample(key: str, files: list[Path], official: list[Path]) -> list:
    """The samples of a set in ``files`` and, of its validation part, in ``official``, put together and
    split (see the module)."""
    found, left_out, held = [], [], set()
    for file in (*official, *files):
        for structure in read_part(file, dataset="ani1x" if file.parent.name.startswith("comp6") else key,
                                   rejected=left_out):
            group = hill(structure["atomic_numbers"]) if key in BY_FORMULA else structure["group"]
            found.append({"sid": f"{file.name}/{len(found)}", **structure, "group": group, "id": len(found)})
        if file in official:
            held = {structure["group"] for structure in found}
    description = f"{len(files) + len(official)} sample file(s), {len(left_out)} structures left out"
    whole = to_set(f"{key}-sample", found, description, where=f"{files[0].parent}")
    _check_labels(whole)
    rows = np.flatnonzero(copies(whole) == np.arange(len(whole))) if len(files) > 1 else np.arange(len(whole))
    whole = whole.subset(rows)
    first = [number for number, name in enumerate(whole.group_names) if name in held]
    return [(whole, rows) for rows in split(key, whole, first)]


def why_not(key: str, data_root: str | Path | None = None) -> str | None:
    """Why there are no published data of ``key``, in one sentence, or None when there are."""
    try:
        find(key, data_root)
    except FileNotFoundError as error:
        return str(error)


def load(key: str, data_root: str | Path | None = None, caps: Mapping[str, int | None] | None = None):
    """Training and validation part of set ``key``, on disk where it is prepared, in memory where
    files are read directly.

    caps: {"train": n, "val": n}, at most so many structures, the first of the seed-42 shuffle. Raises
    ``FileNotFoundError`` (see :func:`find`), and ``ValueError`` for damaged data or a set without energy or forces.
    """
    limits = [(caps or {}).get(part) for part in ("train", "val")]
    return tuple(whole.subset(_capped(rows, limit))
                 for (whole, rows), limit in zip(find(key, data_root)(), limits, strict=True))


def split(key: str, whole: StructureSet, first: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and validation where there is no official validation part (see the module); ``first``: groups
    that go to validation before others."""
    group, names = np.asarray(whole.group), list(whole.group_names)
    if key == "ani1x":
        frames = np.bincount(group, minlength=len(names))
        atoms = np.zeros(len(names), np.int64)
        atoms[group] = whole.natoms
        sizes = {name: (int(n), int(size)) for name, n, size in zip(names, frames, atoms, strict=True)}
        if frames[atoms >= ani1x.MIN_ATOMS].sum() > 3 * ani1x.N_HELD_OUT:  # whole; a part of it goes by groups
            train, val, _ = ani1x.split_formulas(sizes)
            return tuple(np.flatnonzero(np.isin(group, [names.index(name) for name in part])) for part in (train, val))
    held = _held_out(group, group_elements(whole, group), f"{key}, {whole.name}", first)
    rows = splits.shuffled(len(whole))
    in_val = held[group[rows]]
    return rows[~in_val], rows[in_val]


def _held_out(group: np.ndarray, has: np.ndarray, where: str, first: Sequence[int] = ()) -> np.ndarray:
    """Which groups are validation, bool (G,): ``first`` and the first of the seed-42 shuffle, of those whose elements
    others have as well."""
    sizes = np.bincount(group, minlength=len(has))
    holders = has.sum(axis=0)  # groups of the training part that have each element
    held, count = np.zeros(len(has), bool), 0
    for number in (*first, *splits.shuffled(len(has))):
        if held[number] or (count >= VAL_FRACTION * len(group) and number not in first):
            continue
        if (holders[has[number]] > 1).all():
            held[number] = True
            holders -= has[number]
            count += sizes[number]
    if not count:
        raise ValueError(f"{where}: {len(has)} group(s) cannot be split into training and validation without a group "
                         "or an element of validation that training lacks; give it more structures")
    return held


def group_elements(whole: StructureSet, group: np.ndarray) -> np.ndarray:
    """Which elements each group has, bool (G, 121) by atomic number; read block by block."""
    has = np.zeros((group.max() + 1, MAX_ATOMIC_NUMBER + 1), bool)
    for start in range(0, len(whole), BLOCK):
        part = whole[start : start + BLOCK]
        has[np.repeat(group[start : start + BLOCK], part.natoms), part.atomic_numbers] = True
    return has


def read_part(path: Path, *, dataset: str, rejected: list[str], **options) -> Iterator[dict]:
    """Structures of one file through the reader of ``dataset``; why others were left out is in ``rejected`` by then.

    Whatever the reader did not expect is one sentence with the file, too.
    """
    with reading(path, f"get it anew (`python -m jmp_lib data list` says what there is of {dataset})"):
        yield from importlib.import_module(f"jmp_lib.data.{dataset}").read(path, rejected=rejected, **options)


def _whole(name: str, reader: str, files: list[Path], options: dict) -> StructureSet:
    """``files`` as one set whose ids are its rows; unsound structures are left out."""
    found = chain.from_iterable(read_part(file, dataset=reader, rejected=[], **options) for file in files)
    sound = ({**structure, "id": row} for row, structure in enumerate(found))
    return to_set(name, sound, f"{len(files)} original file(s)", where=f"{files[0].parent}")


def _capped(rows, limit: int | None):
    """At most ``limit`` rows; of a part in its own order the first of the seed-42 shuffle, which are from all over."""
    if limit is None or limit >= len(rows):
        return rows
    return splits.shuffled(len(rows))[:limit] if isinstance(rows, range) else rows[:limit]
