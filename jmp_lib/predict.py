"""Predictions of a trained network for many structures, in physical units, in the order they came in.

    python -m jmp_lib predict MODEL structures.extxyz -o out.extxyz

MODEL is the folder of a fine-tuned network or of a pre-training (then ``--dataset`` says which of its heads).
Scalars go to ``atoms.info``, per-atom vectors to ``atoms.arrays``, under ``jmp_<name>``; what the file held stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from tqdm.auto import tqdm

from jmp_lib import records
from jmp_lib.data.collect import check_structure
from jmp_lib.data.exchange import from_ase, read_atoms, to_atoms
from jmp_lib.files import write_atomically
from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.model import PretrainModel
from jmp_lib.strict import nearest
from jmp_lib.train.batches import choose_device
from jmp_lib.train.loading import Loaded, load
from jmp_lib.train.normalise import Normaliser
from jmp_lib.train.pretraining import new_model
from jmp_lib.train.weights import seen_elements

PREFIX = "jmp_"


class Predictor:
    """A network with its graphs and units.

    checkpoint: a folder, a weights file, a name that ``jmp_lib.load`` knows, or what it returned.  dataset: chooses the heads
    of a pre-trained network.  check_elements: refuse elements that no training of the network saw.
    Raises ``ValueError`` (one sentence) for a pre-trained network without ``dataset`` or with an unknown one.

    names: what is predicted; units: of each.  note: a sentence about the energy where training saw forces alone, else "".
    foreign: atomic numbers among the structures so far that pre-training saw, but not the data that the heads were trained on.
    """

    def __init__(self, checkpoint, dataset: str | None = None, check_elements: bool = True, device: str = "cpu"):
        self.loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint, str(choose_device(device)))
        self.model, self.info, self.dataset = self.loaded.model, self.loaded.info, dataset
        self.device = next(self.model.parameters()).device
        self.pretrained = isinstance(self.model, PretrainModel)
        self.gradient_forces = not self.pretrained and self.model.gradient_forces  # the exact derivative of the energy
        self.elements = seen_elements(self.info) if check_elements else None
        if self.pretrained:
            sets = list(self.info["datasets"])
            if dataset not in sets:
                what = "has one head per data set" if dataset is None else f"has no data set {dataset!r}"
                hint = f"; {nearest(dataset, sets)}".replace("key", "name") if dataset else ""
                raise ValueError(f"the pre-trained network {self.loaded.path} {what}: choose dataset="
                                 f"{' or '.join(map(repr, sets))}{hint}")
            self.place = sets.index(dataset)
            graph, normalisers = self.info["graphs"][dataset], self.info["datasets"][dataset]
            names = ("energy", "forces")
        elif dataset is not None:
            raise ValueError(f"{self.loaded.path} is a fine-tuned network with one set of heads: leave dataset out")
        else:
            graph, normalisers = self.info["graph"], self.info["normalisers"]
            names = tuple(spec.name for spec in self.model.specs)
        own = (self.info["datasets"][dataset] if self.pretrained else self.info).get("elements")
        self.own_elements, self.foreign = set(own or range(1, 121)), set()
        self.graph = graph_config(graph)
        self.normalisers = {name: Normaliser(**normalisers[name]) for name in names if name in normalisers}
        self.note = self._about_energy(names)
        self.names = names if self.gradient_forces else tuple(name for name in names if name in self.normalisers)

    def _about_energy(self, names: tuple[str, ...]) -> str:
        if "energy" not in names or "energy" in self.normalisers:
            return ""
        if self.gradient_forces:
            return (f"the energy of {self.loaded.path} has no zero: this network was trained on forces alone, so only energy "
                    "differences between structures of the same atoms mean something")
        return (f"{self.loaded.path} gives no energy: this network was trained on forces alone and predicts them directly, "
                "not as the derivative of an energy; fine-tune with an energy_coefficient for energies")

    @property
    def units(self) -> dict[str, str]:
        """Unit of each prediction."""
        known = {"energy": "eV", "forces": "eV/A"} if "forces" in self.names else self.info["units"]
        return {name: known[name] for name in self.names}

    def prepare(self, structure, where: str) -> dict:
        """Geometry of ``structure`` with its graphs; ``ValueError`` for an unknown element, a lone atom or a wrong pbc.

        structure: one of this workbook, or any ``Data`` with pos and z; without pbc or cell it is a molecule, tags are 2.
        """
        item = {"pos": structure["pos"], "atomic_numbers": structure["atomic_numbers" if "atomic_numbers" in structure else "z"],
                "cell": structure["cell"].reshape(3, 3) if "cell" in structure else np.zeros((3, 3)),
                "pbc": structure["pbc"].reshape(3) if "pbc" in structure else np.zeros(3, bool),
                "tags": structure["tags"] if "tags" in structure else np.full(len(structure["pos"]), 2)}
        item = {key: np.asarray(value) for key, value in item.items()}
        check_structure(item, where)
        numbers = set(item["atomic_numbers"].tolist())
        self.foreign |= numbers - self.own_elements
        strange = sorted(numbers - set(self.elements or range(1, 121)))
        if strange:
            raise ValueError(f"{where}: element {_symbols(strange)} was neither in the fine-tuning nor in the pre-training data "
                             f"of this network ({_symbols(self.elements)}); fine-tune with structures that hold it, or switch "
                             "this check off (check_elements=False, --any-element)")
        check_neighbours(item, where, self.graph)
        return {**item, "graphs": build_graphs(item, self.graph)}

    def prepared(self, structures: Sequence, batch_size: int) -> Iterator[list[dict]]:
        """``structures`` prepared, so many at a time; ``ValueError`` naming the one that the network cannot take."""
        if batch_size < 1:
            raise ValueError(f"batch size must be at least 1, not {batch_size}")
        for start in range(0, len(structures), batch_size):
            part = structures[start:start + batch_size]
            yield [self.prepare(s, f"structure {start + i}") for i, s in enumerate(part)]

    def collated(self, items: Sequence[dict]):
        """One batch of prepared structures, on the device."""
        return collate(items).to(self.device)

    @torch.no_grad()
    def run(self, items: Sequence[dict]) -> list[dict]:
        """Predictions of prepared structures: one dict each, floats and (N,3) arrays, float64, in ``units``."""
        output = self.model(self.collated(items))
        if self.pretrained:
            output = {name: output[name][..., self.place] for name in self.names}
        found: list[dict] = [{} for _ in items]
        ends = np.cumsum([len(item["pos"]) for item in items])
        for name in self.names:
            values = output[name].double().cpu().numpy()
            for made, item, value in zip(found, items, np.split(values, ends[:-1]) if values.ndim == 2 else values):
                made[name] = self.physical(name, value, item["atomic_numbers"])
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


def graph_config(values: dict) -> GraphConfig:
    """``GraphConfig`` of the plain values in a ``model.json``."""
    pairs = tuple(tuple(pair) for pair in values.get("reduce_above", ()))
    tags = {"qint_tags": tuple(values["qint_tags"])} if "qint_tags" in values else {}
    return GraphConfig(**{**values, **tags, "reduce_above": pairs})


def check_neighbours(structure, where: str, graph: GraphConfig) -> None:
    """Raise ``ValueError`` for a periodic structure where graphs are those of molecules, and for an isolated atom."""
    pbc = np.asarray(structure["pbc"], bool)
    if pbc.any() and not graph.periodic:
        raise ValueError(f"{where}: periodic, but the graphs of this network are those of molecules: set atoms.pbc = False, "
                         "or use a network (or dataset) for crystals")
    pos, cell = np.asarray(structure["pos"]), np.asarray(structure["cell"])
    targets = find_neighbors(pos, cell, pbc, graph.cutoff, graph.periodic)[0][1]
    lonely = np.setdiff1d(np.arange(len(pos)), targets)
    if len(lonely):
        symbol = chemical_symbols[int(structure["atomic_numbers"][lonely[0]])]
        raise ValueError(f"{where}: atom {lonely[0]} ({symbol}) has no other atom within {graph.cutoff:g} Å, so the network "
                         "cannot see it; leave the structure out")


def _symbols(numbers) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers)


def as_structures(structures) -> list:
    """Structures of ``ase.Atoms``, pymatgen objects or structures (one or several)."""
    if any(hasattr(structures, name) for name in ("get_positions", "sites", "keys")):
        structures = [structures]
    return [s if hasattr(s, "keys") else from_ase(to_atoms(s, f"structure {i}"), i) for i, s in enumerate(structures)]


def predictions(checkpoint, structures, *, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
                check_elements: bool = True, progress: bool = False) -> Iterator[dict]:
    """One dict of predictions per structure, in order: floats for scalars, (N,3) for forces, in the model's units.

    checkpoint: as of :class:`Predictor`, or one.  structures: ``ase.Atoms``, pymatgen objects or structures.
    Raises ``ValueError`` naming the structure.
    """
    predictor = checkpoint if isinstance(checkpoint, Predictor) else Predictor(checkpoint, dataset, check_elements, device)
    items = as_structures(structures)
    with tqdm(total=len(items), unit="structure", desc="predicting", disable=not progress) as bar:
        for part in predictor.prepared(items, batch_size):
            yield from predictor.run(part)
            bar.update(len(part))


def main(model: str, source: str, output: str, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
         any_element: bool = False) -> int:
    """The command ``predict``: extended XYZ with predictions, written when complete."""
    from ase.io import write

    target = Path(output)
    if target.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"{target}: predictions are written as extended XYZ, so the name must end in .extxyz")
    frames = read_atoms(Path(source))
    predictor = Predictor(model, dataset, not any_element, device)
    for atoms, values in zip(frames, predictions(predictor, frames, batch_size=batch_size, progress=True)):
        for name, value in values.items():
            (atoms.arrays if np.ndim(value) == 2 else atoms.info)[PREFIX + name] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(target) as stream:
        write(stream, frames, format="extxyz")
    units = ", ".join(f"{PREFIX}{name} / {unit}" for name, unit in predictor.units.items())
    print(f"{len(frames)} structures, {target}: {units}")
    if predictor.note:
        print(f"note: {predictor.note}")
    if predictor.foreign:
        print(f"note: {_symbols(sorted(predictor.foreign))} {'was' if len(predictor.foreign) == 1 else 'were'} not in the data that "
              "the heads of this network were trained on: expect larger errors there")
    return 0


def pretrained_model(run, size: str):
    """The pre-training network of ``size`` in evaluation mode, and words that say where its weights are from.

    The weights are those of notebook 02 when they are there, else random ones of the profile's seed.
    """
    try:
        record = records.read_record(records.pretrain_record_path(run.results_dir, size))
    except FileNotFoundError:
        return new_model(run.profile, size).eval(), (f"{size} network with random weights (run notebook 02 to pre-train it): its "
                                                     "numbers mean nothing")
    return load(run.results_dir / record["files"]["weights"]["file"]).model, (
        f"{size} network with the weights of notebook 02 ({record['updates']} updates on {', '.join(record['data'])})")
