"""An ASE calculator around a trained network.

    atoms.calc = JMPCalculator("results/mini/work/own/example/pre-trained.seed42")
    BFGS(atoms).run(fmax=0.05)

Fine-tuned networks with gradient forces give energy, forces and (periodic cells) stress; direct-force networks and
pre-trained ones (``dataset="oc20"`` chooses the heads) give energy and forces that are not each other's derivative.
Networks trained on forces alone: with gradient forces, the energy has no zero; with direct forces there is none.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from jmp_lib.data.exchange import from_ase
from jmp_lib.model.fast_grad import only_positions
from jmp_lib.predict import Predictor, check_finite

_TURN = threading.RLock()  # of all calculators: ``only_positions`` holds for the whole process


class JMPCalculator(Calculator):
    """Energy and free_energy (eV, equal: no electronic temperature), forces (eV/Å), stress (eV/Å³, Voigt order of ASE).

    checkpoint: as of :class:`Predictor`. ``graph_builds`` counts how often graphs were built: once for every new
    geometry. ``ValueError`` for what :meth:`Predictor.prepare` refuses and for results that are not finite; nothing is
    kept then. Charges and magnetic moments change nothing. Threads take turns; for work side by side take processes.

    ``note`` says what holds for the energy of a network trained on forces alone ("" for others). Where that predicts
    forces directly, the energy raises ``PropertyNotImplementedError``, and free_energy is NaN, because ASE's optimisers
    print it.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(self, checkpoint, device: str = "cpu", dataset: str | None = None,
                 check_elements: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.predictor = Predictor(checkpoint, dataset, check_elements, device)
        if "forces" not in self.predictor.names:
            raise ValueError(f"{self.predictor.loaded.path} predicts {', '.join(self.predictor.names)}, "
                             "not energies and forces: use `python -m jmp_lib predict` for properties")
        self.device, self.note, self.graph_builds = self.predictor.device, self.predictor.note, 0
        if not self.predictor.gradient_forces:
            self.implemented_properties = ["energy", "free_energy", "forces"]

    def check_state(self, atoms, tol=1e-15):
        """What changed since the last calculation, as ASE's, and ``tags``, which choose the quadruplets."""
        changes = super().check_state(atoms, tol)
        same = self.atoms is None or np.array_equal(*(a.arrays.get("tags") for a in (self.atoms, atoms)))
        return changes if same else [*changes, "tags"]

    def get_property(self, name, atoms=None, allow_calculation=True):
        """As ASE's; says in words why there is no energy or no stress."""
        if name == "energy" and "energy" not in self.predictor.names:
            raise PropertyNotImplementedError(self.note)
        with _TURN:
            asked = self.atoms if atoms is None else atoms
            if allow_calculation and asked is None:
                raise ValueError(f"there is no structure to compute the {name} of: none was given, "
                                 "or the last one was refused")
            if name == "stress" and allow_calculation:
                self._check_stress(asked)
            return super().get_property(name, atoms, allow_calculation)

    def _check_stress(self, atoms) -> None:
        if not self.predictor.gradient_forces:
            raise PropertyNotImplementedError("no stress: this network predicts forces directly, "
                                              "not as the derivative of an energy; fine-tune one with gradient forces")
        if not np.all(atoms.pbc):
            raise PropertyNotImplementedError("no stress: the structure is not periodic in three directions")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fills ``results`` with all that the network gives; called by ASE when something changed."""
        with _TURN:
            try:
                super().calculate(atoms, properties, system_changes)
                if "stress" in properties:
                    self._check_stress(self.atoms)
                name = self.atoms.get_chemical_formula()
                item = self.predictor.prepare({**from_ase(self.atoms, where=name),
                                               "pos": self.atoms.get_positions()}, name)
                self.graph_builds += 1
                self.results = (self._derivatives(item) if self.predictor.gradient_forces
                                else self.predictor.run([item])[0])
                self.results.setdefault("free_energy", self.results.get("energy", np.nan))
            except BaseException:
                self.reset()
                raise

    def _derivatives(self, item: dict) -> dict:
        """Energy, forces and, where the cell is periodic in three directions, stress = dE/dε / V
        (ε: symmetric strain)."""
        batch, double = self.predictor.collated([item]), {"dtype": torch.float64, "device": self.device}
        pos = torch.tensor(item["pos"], **double, requires_grad=True)
        strain = torch.zeros(3, 3, **double, requires_grad=True)
        deform = torch.eye(3, **double) + (strain + strain.T) / 2
        batch["pos"], batch["cell"] = pos, batch["cell"] @ deform
        energy = self.predictor.model._outputs(batch, pos @ deform)["energy"][0]
        with only_positions():
            by_pos, by_strain = torch.autograd.grad(energy, (pos, strain), allow_unused=True)
        scale = self.predictor.normalisers["forces"].std
        results = {"energy": self.predictor.physical("energy", energy.detach().double().item(), item["atomic_numbers"]),
                   "forces": -by_pos.cpu().numpy() * scale}
        if np.all(self.atoms.pbc):
            stress = by_strain.cpu().numpy() * scale / self.atoms.get_volume()
            results["stress"] = full_3x3_to_voigt_6_stress((stress + stress.T) / 2)
        check_finite(results, item["where"])
        return results
