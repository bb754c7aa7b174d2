"""Predictions of a trained network for many structures, in physical units, in the order they came in.

    python -m jmp_lib predict MODEL structures.extxyz -o out.extxyz

MODEL is the folder of a fine-tuned network or of a pre-training (then ``--dataset`` says which of its heads).
Scalars go to ``atoms.info``, per-atom vectors to ``atoms.arrays``, under ``jmp_<name>``; what the file held stays.

Structures pass through in windows of WINDOW batches: a file of any length takes the memory of one window. What is done
lies in ``out.extxyz.part`` and ``.part.json``; the same command goes on there after a kill, with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, tee
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from tqdm import tqdm

from jmp_lib.data.door import check_structure
from jmp_lib.data.exchange import from_ase, iter_atoms, to_atoms
from jmp_lib.data.normalise import Normaliser
from jmp_lib.files import file_sha256, locked, write_json, writing
from jmp_lib.graphs import GraphConfig, collate
from jmp_lib.graphs.build import limited
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.model import PretrainModel
from jmp_lib.train.batches import EvaluationSet, parts_that_fit, predict
from jmp_lib.train.loading import Loaded, load, seen_elements
from jmp_lib.train.processes import choose_device, keep_freed_memory

PREFIX = "jmp_"
WINDOW = 8  # batches that are in memory together; those of like size are computed together
MOST_ATOMS = 4096  # of a batch of more than one structure
NARROW = 128  # features of an edge up to which one thread is faster, or as fast, as many


class Predictor:
    """A network with its graphs and units.

    checkpoint: what ``jmp_lib.load`` takes, or returned. dataset: chooses the heads of a pre-trained network.
    check_elements: refuse elements that no training of the network saw; of a pre-trained network, and where energies
    have references by element, those that the data of these heads do not hold.

    names: what is predicted; units: of each. note: a sentence about the energy where training saw forces alone, else
    "". foreign: atomic numbers among the structures so far that pre-training saw, but not the data that the heads were
    trained on.
    """

    def __init__(self, checkpoint, dataset: str | None = None, check_elements: bool = True, device: str = "cpu"):
        self.loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint, str(choose_device(device)))
        self.model, self.info, self.dataset = self.loaded.model, self.loaded.info, dataset
        self.device = next(self.model.parameters()).device
        self.pretrained = isinstance(self.model, PretrainModel)
        self.gradient_forces = not self.pretrained and self.model.gradient_forces  # the exact derivative of the energy
        what = self.loaded.path
        if self.pretrained:
            sets = list(self.info["datasets"])
            if dataset not in sets:
                raise ValueError(f"the pre-trained network {what} has one head per data set: choose "
                                 f"dataset={' or '.join(map(repr, sets))}"
                                 + f", not {dataset!r}" * (dataset is not None))
            self.place = sets.index(dataset)
            graph, normalisers, names = (self.info["graphs"][dataset],
                                         self.info["datasets"][dataset], ("energy", "forces"))
        elif dataset is not None:
            raise ValueError(f"{what} is a fine-tuned network with one set of heads: leave dataset out")
        else:
            graph, normalisers, names = (self.info["graph"], self.info["normalisers"],
                                         [spec.name for spec in self.model.specs])
        self.graph, self.note = GraphConfig.from_dict(graph), ""
        self.normalisers = {name: Normaliser(**normalisers[name]) for name in names if name in normalisers}
        if "energy" in names and "energy" not in self.normalisers:
            self.note = (f"the energy of {what} has no zero: this network was trained on forces alone, so only energy "
                         "differences between structures of the same atoms mean something" if self.gradient_forces else
                         f"{what} gives no energy: "
                         "this network was trained on forces alone and predicts them directly, not as "
                         "the derivative of an energy; fine-tune with an energy_coefficient for energies")
        self.names = tuple(name for name in names if self.gradient_forces or name in self.normalisers)
        trained = self.info["datasets"][dataset] if self.pretrained else self.info
        own, seen = trained.get("elements"), seen_elements(self.info)
        self.own_elements, self.foreign = set(own or range(1, 121)), set()
        narrow = self.pretrained or any(known.reference is not None for known in self.normalisers.values())
        self.elements = (narrow and own or seen) if check_elements else None
        self.most = 1 << 30  # structures that are computed at once; becomes smaller where memory runs out

    @property
    def units(self) -> dict[str, str]:
        """Unit of each prediction."""
        known = {"energy": "eV", "forces": "eV/A"} if "forces" in self.names else self.info["units"]
        return {name: known[name] for name in self.names}

    def prepare(self, structure, where: str) -> dict:
        """Geometry of ``structure`` with its candidate edges; ``ValueError`` for an unknown element,
        a lone atom or a wrong pbc.

        structure: one of this workbook, or any ``Data`` with pos and z; without pbc or cell it is a molecule,
        tags are 2.
        """
        item = {"pos": structure["pos"],
                "atomic_numbers": structure["atomic_numbers" if "atomic_numbers" in structure else "z"],
                "cell": structure["cell"].reshape(3, 3) if "cell" in structure else np.zeros((3, 3)),
                "pbc": structure["pbc"].reshape(3) if "pbc" in structure else np.zeros(3, bool),
                "tags": structure["tags"] if "tags" in structure else np.full(len(structure["pos"]), 2)}
        item = {key: np.asarray(value) for key, value in item.items()}
        check_structure(item, where)
        numbers = item["atomic_numbers"].tolist()
        self.foreign |= set(numbers) - self.own_elements
        if strange := set(numbers) - set(self.elements or range(1, 121)):
            atom = next(i for i, number in enumerate(numbers) if number in strange)
            seen = numbers[atom] in (seen_elements(self.info) or ())
            what = "not in the data of the heads" if seen else "neither in the fine-tuning nor in the pre-training data"
            raise ValueError(f"{where}: atom {atom}: element {_symbols([numbers[atom]])} was {what} of this network "
                             f"({_symbols(self.elements)}); fine-tune with structures that hold it, "
                             "or switch this check off (check_elements=False, --any-element)")
        return {**item, "candidates": (neighbours(item, where, self.graph), self.graph), "where": where}

    def each(self, structures: Iterable, batch_size: int, compute: Callable[[list[dict]], Sequence],
             where: str = "structure", first: int = 0) -> Iterator:
        """What ``compute`` makes of prepared structures, in their order; ``ValueError`` names one that the
        network cannot take.

        compute: one result for each of at most ``batch_size`` structures.  where: what a structure is called before its
        number, which counts from ``first``.
        """
        if batch_size < 1:
            raise ValueError(f"batch size must be at least 1, not {batch_size}")
        structures = iter(structures)
        while window := [as_structure(s, f"{where} {i}")
                         for i, s in enumerate(islice(structures, WINDOW * batch_size), first)]:
            natoms = np.array([len(structure["pos"]) for structure in window])
            order, found = np.argsort(natoms, kind="stable"), [None] * len(window)
            shapes = [{"atoms": n} for n in natoms[order].tolist()]
            for part in parts_that_fit(shapes, MOST_ATOMS, itemgetter("atoms"))[0]:
                for start in range(0, len(part), batch_size):
                    rows = order[part[start:start + batch_size]].tolist()
                    made = compute([self.prepare(window[row], f"{where} {first + row}") for row in rows])
                    for row, value in zip(rows, made, strict=True):
                        found[row] = value
            yield from found
            first += len(window)

    def collated(self, items: Sequence[dict]):
        """One batch of prepared structures, on the device."""
        return collate(items).to(self.device)

    def run(self, items: Sequence[dict]) -> list[dict]:
        """Predictions of prepared structures: one dict each, floats and (N,3) arrays, float64, in ``units``.

        Raises ``ValueError`` naming the structure where one is not finite.
        """
        batches = EvaluationSet(items, min(self.most, len(items)), self.device)
        output = predict(self.model, batches,
                         lambda out: {name: out[name][..., self.place] if self.pretrained else out[name]
                                      for name in self.names}, self.gradient_forces)
        if batches.most < len(items):
            self.most = batches.most
        ends = np.cumsum([len(item["pos"]) for item in items])[:-1]
        output = {name: np.split(values, ends) if values.ndim == 2 else values for name, values in output.items()}
        found = [{name: self.physical(name, values[row], item["atomic_numbers"]) for name, values in output.items()}
                 for row, item in enumerate(items)]
        for made, item in zip(found, items):
            check_finite(made, item["where"])
        return found

    def physical(self, name: str, value, atomic_numbers):
        """One output in its unit.

        The energy of a network with gradient forces is scaled like the forces, so that these stay its derivative.
        """
        known = self.normalisers.get(name)
        if np.ndim(value) == 2:
            return value * known.std
        offset = known.offset(np.asarray(atomic_numbers)) if known else 0.0
        scale = self.normalisers["forces"] if name == "energy" and self.gradient_forces else known
        return float(value * scale.std + offset)


def neighbours(structure, where: str, graph: GraphConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidate edges of a structure, as of ``a2a_edges``.

    Raises ``ValueError`` for a periodic structure where graphs are those of molecules, and for an isolated atom.
    """
    pbc = np.asarray(structure["pbc"], bool)
    if pbc.any() and not graph.periodic:
        raise ValueError(f"{where}: periodic, but the graphs of this network are those of molecules: "
                         "set atoms.pbc = False, or use a network (or dataset) for crystals")
    natoms = len(structure["pos"])
    edges = find_neighbors(np.asarray(structure["pos"]), np.asarray(structure["cell"]),
                           pbc, graph.cutoff, graph.periodic)
    lonely = np.flatnonzero(np.bincount(edges[0][1], minlength=natoms) == 0)
    if len(lonely):
        symbol = chemical_symbols[int(structure["atomic_numbers"][lonely[0]])]
        raise ValueError(f"{where}: atom {lonely[0]} ({symbol}) has no other atom within {graph.cutoff:g} Å, "
                         "so the network cannot see it; leave the structure out")
    return limited(edges, graph, natoms)


def check_finite(values: dict, where: str) -> None:
    """Raise ``ValueError`` for predictions that are no numbers."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{where}: the network gives {name} that is not finite; "
                             "look at this structure, or leave it out")


def _symbols(numbers) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers)


def as_structure(structure, where: str):
    """The structure of an ``ase.Atoms`` or a pymatgen object; one of this workbook, or a ``Data``, as it is."""
    return structure if hasattr(structure, "keys") else from_ase(to_atoms(structure, where), where=where)


def several(structures) -> Iterable:
    """``structures``, or the one that it is, in a list."""
    return [structures] if any(hasattr(structures, name) for name in ("get_positions", "sites", "keys")) else structures


def predictions(checkpoint, structures, *, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
                check_elements: bool = True) -> Iterator[dict]:
    """One dict of predictions per structure, in order: floats for scalars, (N,3) for forces, in the model's units.

    checkpoint: as of :class:`Predictor`, or one.  structures: ``ase.Atoms``, pymatgen objects or structures, one,
    several or an iterator, which is read no more than WINDOW batches ahead.  Raises ``ValueError`` naming the
    structure.
    """
    predictor = (checkpoint if isinstance(checkpoint, Predictor)
                 else Predictor(checkpoint, dataset, check_elements, device))
    yield from predictor.each(several(structures), batch_size, predictor.run)


def main(model: str, source: str, output: str, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
         any_element: bool = False) -> int:
    """The command ``predict``: extended XYZ with predictions, there when complete."""
    target, source = Path(output), Path(source)
    if target.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"{target}: predictions are written as extended XYZ, so the name must end in .extxyz")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file of structures itself: give another name for the predictions")
    if not source.is_file():
        raise FileNotFoundError(f"{source} is no file; give extended XYZ, an ASE database, or any file that ASE reads")
    predictor = Predictor(model, dataset, not any_element, device)
    if "OMP_NUM_THREADS" not in os.environ and predictor.model.config.emb_size_edge <= NARROW:
        torch.set_num_threads(1)
    keep_freed_memory()
    made_from = [file_sha256(source), file_sha256(predictor.loaded.path), predictor.info, dataset, batch_size,
                 any_element, device, torch.__version__, torch.get_num_threads()]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    with writing(target), locked(f"{target}.tmp",
                                 f"another process is writing {target}: wait for it, or choose another name"):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "", str(target))
        count, new, seconds = _write(target, key, source, predictor, batch_size)
    units = ", ".join(f"{PREFIX}{name} / {unit}" for name, unit in predictor.units.items())
    rate = f", {new / seconds:.0f} structures/s" if new else ""
    print(f"{count} structures{rate}, {target}: {units}")
    if predictor.note:
        print(f"note: {predictor.note}")
    if predictor.foreign:
        print(f"note: {_symbols(sorted(predictor.foreign))}: not in the data that the heads of this network were "
              "trained on; expect larger errors there")
    return 0


def _write(target: Path, key: str, source: Path, predictor: Predictor, batch_size: int) -> tuple[int, int, float]:
    """Writes all frames with their predictions; returns how many there are, how many were computed now,
    and the seconds.

    ``<target>.part.json`` {key, frames, bytes, foreign} counts whole windows, so that batches are the same
    after a kill.  What a frame is refused for ends the run and takes the part along; after a kill or an error
    of the disk it stays.
    """
    from ase.io import write

    part, about = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    done = {"frames": 0, "bytes": 0}
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(about.read_text(encoding="utf-8"))
        if found["key"] == key and found["bytes"] <= part.stat().st_size:
            done = found
    count = before = done["frames"]
    predictor.foreign |= set(done.get("foreign", ()))
    began = time.monotonic()
    try:
        with open(part, "ab") as stream, tqdm(unit="structure", desc="predicting", initial=before) as bar:
            stream.truncate(done["bytes"])
            shown, given = tee(islice(iter_atoms(source), before, None))
            pairs = zip(shown, predictor.each(given, batch_size, predictor.run, f"{source}: frame", before))
            while window := list(islice(pairs, WINDOW * batch_size)):
                for atoms, values in window:
                    for name, value in values.items():
                        (atoms.arrays if np.ndim(value) == 2 else atoms.info)[PREFIX + name] = value
                text = io.StringIO()
                write(text, [atoms for atoms, _ in window], format="extxyz")
                stream.write(text.getvalue().encode())
                stream.flush()
                os.fsync(stream.fileno())
                count += len(window)
                write_json(about, {"key": key, "frames": count, "bytes": stream.tell(),
                                   "foreign": sorted(predictor.foreign)})
                bar.update(len(window))
        os.replace(part, target)
        about.unlink()
    except BaseException as error:
        if isinstance(error, ValueError) or not about.exists():
            part.unlink(missing_ok=True)
            about.unlink(missing_ok=True)
        raise
    return count, count - before, time.monotonic() - began
