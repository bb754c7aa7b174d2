"""Predictions of a trained network for many structures, in physical units, in the order they came in.

    python -m jmp_lib predict MODEL structures.extxyz -o out.extxyz

MODEL is the folder of a fine-tuned network or of a pre-training (then ``--dataset`` says which of its heads).
Scalars go to ``atoms.info``, per-atom vectors to ``atoms.arrays``, under ``jmp_<name>``; what the file held stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from jmp_lib.data.exchange import from_ase
from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import PretrainModel
from jmp_lib.strict import nearest
from jmp_lib.train.batches import GEOMETRY, choose_device, to_device
from jmp_lib.train.normalise import Normaliser
from jmp_lib.train.weights import seen_elements


def graph_config(values: dict) -> GraphConfig:
    """``GraphConfig`` of the plain values in a ``model.json``."""
    values = dict(values)
    for key in ("qint_tags", "reduce_above"):
        if key in values:
            values[key] = tuple(tuple(v) if isinstance(v, list) else v for v in values[key])
    return GraphConfig(**values)


def normaliser(values: dict) -> Normaliser:
    """``Normaliser`` of the plain values in a ``model.json``."""
    reference = values.get("reference")
    return Normaliser(values["mean"], values["std"], None if reference is None else tuple(reference))


def open_model(checkpoint, device: str = "cpu"):
    """``Loaded`` of a folder, a weights file, a name that ``jmp_lib.load`` knows, or what it returned already."""
    from jmp_lib.load import Loaded, load

    return checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint, device)


@dataclass
class Predictor:
    """A loaded network with its graphs and units; ``dataset`` chooses the heads of a pre-trained one.

    Raises ``ValueError`` (one sentence) for a pre-trained network without ``dataset`` or with an unknown one.
    """

    loaded: object
    dataset: str | None = None
    check_elements: bool = True
    graph: GraphConfig = field(init=False)
    normalisers: dict[str, Normaliser] = field(init=False)

    def __post_init__(self):
        info = self.info
        if self.pretrained:
            sets = list(info["datasets"])
            if self.dataset not in sets:
                what = "has one head per data set" if self.dataset is None else f"has no data set {self.dataset!r}"
                hint = f"; {nearest(self.dataset, sets)}".replace("key", "name") if self.dataset else ""
                raise ValueError(f"the pre-trained network {self.loaded.path} {what}: choose dataset="
                                 f"{' or '.join(map(repr, sets))}{hint}")
            chosen = info["datasets"][self.dataset]
            self.graph = graph_config(info["graphs"][self.dataset])
            self.normalisers = {name: normaliser(chosen[name]) for name in ("energy", "forces")}
        else:
            if self.dataset is not None:
                raise ValueError(f"{self.loaded.path} is a fine-tuned network with one set of heads: leave dataset out")
            self.graph = graph_config(info["graph"])
            self.normalisers = {name: normaliser(values) for name, values in info["normalisers"].items()}

    @property
    def info(self) -> dict:
        """Contents of ``model.json``."""
        return self.loaded.info

    @property
    def model(self) -> torch.nn.Module:
        """The network, in evaluation mode."""
        return self.loaded.model

    @property
    def pretrained(self) -> bool:
        """Whether this is a pre-training network (several data sets of heads)."""
        return isinstance(self.model, PretrainModel)

    @property
    def gradient_forces(self) -> bool:
        """Whether forces are the exact derivative of the energy."""
        return not self.pretrained and self.model.gradient_forces

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is predicted."""
        return ("energy", "forces") if self.pretrained else tuple(spec.name for spec in self.model.specs)

    @property
    def units(self) -> dict[str, str]:
        """Unit of each prediction."""
        if {"energy", "forces"} & set(self.names) and "forces" in self.names:
            return {"energy": "eV", "forces": "eV/A"}
        return self.info.get("units") or {self.info["label"]: self.info["unit"]}

    def prepare(self, structure: dict, where: str) -> dict:
        """``structure`` with its graphs; ``ValueError`` for an unknown element, a lone atom or a wrong pbc."""
        from jmp_lib.own.geometry import check_elements, check_geometry

        check_elements(structure, where, seen_elements(self.info) if self.check_elements else None,
                       self.model.config.num_elements)
        check_geometry(structure, where, self.graph)
        return {**structure, "graphs": build_graphs(structure, self.graph)}

    def run(self, items: Sequence[dict]) -> list[dict]:
        """Predictions of prepared structures: one dict each, floats and (N,3) arrays, float64, in ``units``."""
        device = next(self.model.parameters()).device
        batch = to_device(collate([{k: item[k] for k in (*GEOMETRY, "graphs")} for item in items]), device)
        with torch.no_grad():
            output = self.model(batch)
        if self.pretrained:
            place = list(self.info["datasets"]).index(self.dataset)
            output = {"energy": output["energy"][:, place], "forces": output["forces"][..., place]}
        return self.in_units({name: output[name].detach().double().cpu().numpy() for name in self.names}, items)

    def in_units(self, output: dict[str, np.ndarray], items: Sequence[dict]) -> list[dict]:
        """Network outputs (S,) and (ΣN,3) of ``items`` in physical units, one dict per structure."""
        found: list[dict] = [{} for _ in items]
        ends = np.cumsum([len(item["pos"]) for item in items])
        for name, values in output.items():
            parts = np.split(values, ends[:-1]) if values.ndim == 2 else values
            for place, (item, value) in enumerate(zip(items, parts)):
                found[place][name] = self.physical(name, value, item["atomic_numbers"])
        return found

    def physical(self, name: str, value, atomic_numbers: np.ndarray):
        """One output in its unit.

        The energy of a network with gradient forces is scaled like the forces, so that these stay its derivative.
        """
        known = self.normalisers.get(name)
        if name == "energy" and self.gradient_forces:
            offset = known.offset(atomic_numbers) if known else 0.0
            return float(value * self.normalisers["forces"].std + offset)
        if known is None:
            raise ValueError(f"{self.loaded.path} was not trained on '{name}' (no normaliser in model.json)")
        if np.ndim(value) == 2:
            return value * known.std
        return float(known.denormalise(value, atomic_numbers))


def as_structures(structures) -> list[dict]:
    """Structure dicts of ``ase.Atoms``, pymatgen objects or structure dicts (one or several)."""
    from jmp_lib.own.read import to_atoms

    if hasattr(structures, "get_positions") or isinstance(structures, dict):
        structures = [structures]
    return [s if isinstance(s, dict) else from_ase(to_atoms(s, f"structure {i}"), i) for i, s in enumerate(structures)]


def predictions(checkpoint, structures, *, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
                check_elements: bool = True, progress: bool = False) -> Iterator[dict]:
    """One dict of predictions per structure, in order: floats for scalars, (N,3) for forces, in the model's units.

    structures: ``ase.Atoms``, pymatgen objects or structure dicts.  Raises ``ValueError`` naming the structure.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, not {batch_size}")
    predictor = Predictor(open_model(checkpoint, str(choose_device(device))), dataset, check_elements)
    items = as_structures(structures)
    with tqdm(total=len(items), unit="structure", desc="predicting", disable=not progress) as bar:
        for start in range(0, len(items), batch_size):
            part = items[start:start + batch_size]
            yield from predictor.run([predictor.prepare(s, f"structure {start + i}") for i, s in enumerate(part)])
            bar.update(len(part))
