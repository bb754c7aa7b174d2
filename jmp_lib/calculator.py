"""An ASE calculator around a trained network.

    atoms.calc = JMPCalculator("results/mini/own/ethanol/pre-trained")
    BFGS(atoms).run(fmax=0.05)

Fine-tuned networks with gradient forces give energy, forces and (periodic cells) stress; direct-force networks and
pre-trained ones (``dataset="oc20"`` chooses the heads) give energy and forces that are not each other's derivative.
Networks trained on forces alone: with gradient forces, the energy has no zero; with direct forces there is none.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from jmp_lib.data.exchange import from_ase
from jmp_lib.predict import Predictor


class JMPCalculator(Calculator):
    """Energy and free_energy (eV, equal: no electronic temperature), forces (eV/Å), stress (eV/Å³, Voigt order of ASE).

    checkpoint: folder, weights file, or what ``jmp_lib.load`` returned.  ``graph_builds`` counts how often graphs were
    built: once for every new geometry.  Raises ``ValueError`` for an unknown element, an isolated atom or a wrong pbc.

    ``note`` says in a sentence what holds for the energy of a network that was trained on forces alone ("" for others).
    Where such a network predicts forces directly, asking for the energy raises ``PropertyNotImplementedError`` with that
    sentence; its free_energy is NaN, because ASE's optimisers print it even where, as BFGS and FIRE, they need forces only.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, checkpoint, device: str = "cpu", dataset: str | None = None, check_elements: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.predictor = Predictor(checkpoint, dataset, check_elements, device)
        if "forces" not in self.predictor.names:
            raise ValueError(f"{self.predictor.loaded.path} predicts {', '.join(self.predictor.names)}, not energies and "
                             "forces: use `python -m jmp_lib predict` for properties")
        self.device, self.note, self.graph_builds = self.predictor.device, self.predictor.note, 0
        self._item = self._batch = None
        if not self.predictor.gradient_forces:
            self.implemented_properties = ["energy", "free_energy", "forces"]

    def get_property(self, name, atoms=None, allow_calculation=True):
        """As ASE's; says in words why there is no energy or no stress."""
        if name == "energy" and "energy" not in self.predictor.names:
            raise PropertyNotImplementedError(self.note)
        if name == "stress" and allow_calculation:
            self._check_stress(atoms if atoms is not None else self.atoms)
        return super().get_property(name, atoms, allow_calculation)

    def _check_stress(self, atoms) -> None:
        if not self.predictor.gradient_forces:
            raise PropertyNotImplementedError("no stress: this network predicts forces directly, not as the derivative of an "
                                              "energy; fine-tune one with gradient forces")
        if atoms is not None and not np.all(atoms.pbc):
            raise PropertyNotImplementedError("no stress: the structure is not periodic in three directions")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fills ``results``; called by ASE when something asked for is not there yet."""
        super().calculate(atoms, properties, system_changes)
        if self._batch is None or set(system_changes) & {"positions", "numbers", "cell", "pbc"}:
            self._prepare()
        if self.predictor.gradient_forces:
            if "stress" in properties:
                self._check_stress(self.atoms)
            self.results = self._derivatives()
        else:
            values = self.predictor.run([self._item])[0]
            self.results = {"free_energy": values.get("energy", np.nan), **values}

    def _prepare(self) -> None:
        pos = self.atoms.get_positions()
        self._item = self.predictor.prepare({**from_ase(self.atoms), "pos": pos}, self.atoms.get_chemical_formula())
        self._batch = self.predictor.collated([self._item])
        self._batch["pos"] = torch.tensor(pos, dtype=torch.float64, device=self.device)
        self.graph_builds += 1

    def _derivatives(self) -> dict:
        """Energy, forces and, where the cell is periodic in three directions, stress = dE/dε / V (ε: symmetric strain)."""
        pos = self._batch["pos"].clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=torch.float64, device=self.device, requires_grad=True)
        deform = torch.eye(3, dtype=torch.float64, device=self.device) + (strain + strain.T) / 2
        batch = copy.copy(self._batch)
        batch["cell"] = self._batch["cell"] @ deform
        energy = self.predictor.model._outputs(batch, pos @ deform)["energy"][0]
        by_pos, by_strain = torch.autograd.grad(energy, (pos, strain), allow_unused=True)
        scale = self.predictor.normalisers["forces"].std
        value = self.predictor.physical("energy", energy.detach().double().item(), self._item["atomic_numbers"])
        results = {"energy": value, "free_energy": value, "forces": -by_pos.cpu().numpy() * scale}
        if np.all(self.atoms.pbc):
            stress = by_strain.cpu().numpy() * scale / self.atoms.get_volume()
            results["stress"] = full_3x3_to_voigt_6_stress((stress + stress.T) / 2)
        return results
