"""The network: symmetries, forces, batching, degenerate structures, names and sizes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from structures import methanol, random_molecule, skewed_crystal, slab

from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, PretrainModel, fit_scale_factors, load_backbone
from jmp_lib.model.scaling import row_variance, scale_modules

NARROW = BackboneConfig(
    emb_size_atom=16, emb_size_edge=24, emb_size_trip_in=8, emb_size_trip_out=8, emb_size_quad_in=4,
    emb_size_quad_out=4, emb_size_aint_in=8, emb_size_aint_out=8, emb_size_rbf=4, emb_size_cbf=4,
    emb_size_sbf=4, num_radial=16, num_spherical=5, num_blocks=2,
)  # fmt: skip
MOLECULE, CRYSTAL = GraphConfig(6.0, 30, False), GraphConfig(6.0, 12, True)


def model_of(kind="pretrain", config=NARROW, seed=0):
    torch.manual_seed(seed)
    if kind == "pretrain":
        return PretrainModel(config).double().eval()
    return FinetuneModel(config, [HeadSpec("energy", "energy"), HeadSpec("forces", kind)]).double().eval()


def batch_of(*structures, config=MOLECULE):
    return collate([{**s, "graphs": build_graphs(s, config)} for s in structures])


def float64(batch):
    """Positions in float64, so that invariances hold to float64 rounding."""
    return {**batch, "pos": batch["pos"].double()}


def rotation(seed=3):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("make, config", [(random_molecule, MOLECULE), (skewed_crystal, CRYSTAL), (slab, CRYSTAL)])
def test_translation_and_rotation(make, config):
    structure = make()
    batch, model = float64(batch_of(structure, config=config)), model_of()
    turn = torch.from_numpy(rotation())
    moved = {**batch, "pos": (batch["pos"] + torch.tensor([3.1, -2.0, 0.7])) @ turn.T, "cell": batch["cell"] @ turn.T}
    a, b = model(batch), model(moved)
    assert torch.allclose(a["energy"], b["energy"], rtol=1e-9, atol=1e-10)
    rotated = torch.einsum("ij,njt->nit", turn, a["forces"])
    assert torch.allclose(rotated, b["forces"], rtol=1e-8, atol=1e-9 * float(rotated.detach().abs().max()))


def test_mirror_images_are_not_told_apart():
    """The dihedral is unsigned, so the energy is the same for both enantiomers (a limit of the network)."""
    batch, model = float64(batch_of(random_molecule())), model_of()
    mirrored = {**batch, "pos": batch["pos"] * torch.tensor([-1.0, 1.0, 1.0])}
    assert torch.allclose(model(batch)["energy"], model(mirrored)["energy"], rtol=1e-10)


def test_moving_an_atom_to_another_image_changes_nothing():
    structure = skewed_crystal()
    shift = structure["cell"][0] - 2 * structure["cell"][2]
    moved = structure | {"pos": structure["pos"].astype(np.float64).copy()}
    moved["pos"][2] += shift
    a = model_of()(batch_of(structure, config=CRYSTAL))
    b = model_of()(batch_of(moved, config=CRYSTAL))  # the new position is rounded to float32
    assert torch.allclose(a["energy"], b["energy"], rtol=1e-4)
    assert torch.allclose(a["forces"], b["forces"], atol=1e-4 * float(a["forces"].detach().abs().max()))


def test_batched_equals_single():
    structures = [random_molecule(), methanol(), random_molecule(6, 5)]
    model = model_of()
    together = model(batch_of(*structures))
    alone = [model(batch_of(s)) for s in structures]
    assert torch.allclose(together["energy"], torch.cat([a["energy"] for a in alone]), rtol=1e-10)
    assert torch.allclose(together["forces"], torch.cat([a["forces"] for a in alone]), atol=1e-11)


def test_own_heads_alone_give_the_same_values_and_gradients():
    model = model_of()
    structures, owner = (random_molecule(), methanol(), random_molecule(6, 5)), torch.tensor([2, 0, 2])
    batch = batch_of(*structures)
    everything, own = model(batch), model(batch_of(*({**s, "dataset_index": i}
                                                     for s, i in zip(structures, owner.tolist()))))
    atoms = owner[batch["batch"]]
    for task in range(4):
        assert torch.allclose(own["energy"][owner == task, task], everything["energy"][owner == task, task], rtol=1e-12)
        assert torch.allclose(own["forces"][atoms == task, :, task], everything["forces"][atoms == task, :, task])
        assert (own["energy"][owner != task, task] == 0).all()


def test_molecules_and_crystals_share_a_batch():
    model = model_of()
    items = [{**random_molecule(), "graphs": build_graphs(random_molecule(), MOLECULE)},
             {**slab(), "graphs": build_graphs(slab(), CRYSTAL)}]  # fmt: skip
    together = model(collate(items))["energy"]
    assert torch.allclose(together[0], model(collate(items[:1]))["energy"][0], rtol=1e-10)
    assert torch.allclose(together[1], model(collate(items[1:]))["energy"][0], rtol=1e-10)


def test_permutation_of_a_molecule():
    structure = random_molecule()
    order = np.random.default_rng(1).permutation(len(structure["pos"]))
    shuffled = {k: v[order] if k in ("pos", "atomic_numbers", "tags", "fixed") else v for k, v in structure.items()}
    a, b = model_of()(batch_of(structure)), model_of()(batch_of(shuffled))
    assert torch.allclose(a["energy"], b["energy"], rtol=1e-10)
    assert torch.allclose(a["forces"][order], b["forces"], atol=1e-10)


def test_periodic_structures_depend_on_atom_order_as_published():
    """Symmetrisation compares atom numbers, so a neighbour limit makes the result depend on the order."""
    structure = slab()
    order = np.arange(len(structure["pos"]))[::-1]
    reverse = {k: v[order] if k in ("pos", "atomic_numbers", "tags", "fixed") else v for k, v in structure.items()}
    energy = [model_of()(batch_of(s, config=CRYSTAL))["energy"] for s in (structure, reverse)]
    assert not torch.allclose(*energy, rtol=1e-6)
    unlimited = GraphConfig(4.0, 300, True)
    energy = [model_of()(batch_of(s, config=unlimited))["energy"] for s in (structure, reverse)]
    assert torch.allclose(*energy, rtol=1e-10)


@pytest.mark.parametrize("make, config", [(random_molecule, MOLECULE), (skewed_crystal, CRYSTAL)])
def test_gradient_forces_equal_numerical_gradients(make, config):
    model, batch = model_of("gradient_forces"), float64(batch_of(make(), config=config))
    forces = model(batch)["forces"]
    step = 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        energy = []
        for sign in (1, -1):
            pos = batch["pos"].clone()
            pos[atom, axis] += sign * step
            energy.append(float(model({**batch, "pos": pos})["energy"].sum()))
        numerical = -(energy[0] - energy[1]) / (2 * step)
        assert numerical == pytest.approx(float(forces[atom, axis]), rel=1e-5,
                                          abs=1e-7 * float(forces.detach().abs().max()))


def test_gradient_forces_conserve_energy_along_a_closed_path():
    model, batch = model_of("gradient_forces"), float64(batch_of(random_molecule()))
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=(2, len(batch["pos"]), 3)))
    work, points = 0.0, 24
    scale = 0.0
    for k in range(points):
        angle = 2 * np.pi * k / points
        pos = batch["pos"] + 0.05 * (np.cos(angle) * direction[0] + np.sin(angle) * direction[1])
        velocity = 0.05 * (-np.sin(angle) * direction[0] + np.cos(angle) * direction[1])
        power = float((model({**batch, "pos": pos})["forces"] * velocity).sum()) * 2 * np.pi / points
        work, scale = work + power, scale + abs(power)
    assert abs(work) < 1e-5 * scale


def test_gradient_forces_can_be_trained_on():
    model, batch = model_of("gradient_forces").train(), batch_of(random_molecule())
    model(batch)["forces"].pow(2).sum().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert unused == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_direct_forces_use_the_force_branch_and_gradient_forces_do_not():
    assert hasattr(model_of("direct_forces").backbone, "out_mlp_F")
    assert not hasattr(model_of("gradient_forces").backbone, "out_mlp_F")


def test_structures_without_triplets_or_quadruplets():
    """A lone diatomic has neither; the empty sums are zero and nothing fails."""
    pair = {k: v[:2] if k in ("pos", "atomic_numbers", "tags", "fixed") else v for k, v in random_molecule().items()}
    water = {k: v[:3] if k in ("pos", "atomic_numbers", "tags", "fixed") else v for k, v in random_molecule().items()}
    model = model_of()
    together = model(batch_of(pair, water, methanol()))
    for i, structure in enumerate((pair, water)):
        assert torch.allclose(together["energy"][i], model(batch_of(structure))["energy"][0], rtol=1e-10)
        assert torch.isfinite(model(batch_of(structure))["forces"]).all()


def test_an_atom_without_neighbours_inside_a_structure():
    structure = random_molecule() | {"pos": random_molecule()["pos"].copy()}
    structure["pos"][4] += 100
    out = model_of()(batch_of(structure))
    assert torch.isfinite(out["energy"]).all() and (out["forces"][4] == 0).all()


def test_collinear_atoms_give_finite_and_smooth_values():
    line = {**methanol(), "pos": np.array([[0, 0, 0], [1.2, 0, 0], [2.3, 0, 0], [3.0, 0.9, 0], [3.4, 0.5, 0.8],
                                           [4.4, 0.2, 0.1]], dtype=np.float32)}  # fmt: skip
    bent = line | {"pos": line["pos"].copy()}
    bent["pos"][1, 1] += 1e-3
    straight, almost = (model_of("gradient_forces").float()(batch_of(s)) for s in (line, bent))
    assert torch.isfinite(straight["forces"]).all()
    assert straight["forces"].abs().max() < 50 * almost["forces"].abs().max()


def test_unknown_elements_are_refused():
    structure = random_molecule() | {"atomic_numbers": np.full(9, 121)}
    with pytest.raises(ValueError, match="between 1 and 120"):
        model_of()(batch_of(structure))


def test_published_sizes():
    """JMP-S 44,131,328 and JMP-L 234,267,648 parameters; JMP-S without the force branch 28,577,792."""
    with torch.device("meta"):
        small, large = BackboneConfig(), BackboneConfig.large()
        count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
        pretrain = PretrainModel(small)
        assert count(pretrain) == 44_131_328 and count(pretrain.backbone) == 38_842_368
        assert count(PretrainModel(large)) == 234_267_648
        assert count(PretrainModel(replace(small, direct_forces=False)).backbone) == 28_577_792


@pytest.mark.parametrize("size", ["s", "l"])
def test_state_dict_has_the_published_names_shapes_and_order(size):
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: the published list of state-dict names is not at hand")
    stored = json.loads((Path(folder) / f"jmp_{size}_state_dict.json").read_text())
    with torch.device("meta"):
        model = PretrainModel(BackboneConfig.from_dict(stored["backbone_config"]))
    theirs = [(e["name"], tuple(e["shape"])) for e in stored["state_dict"] if not e["name"].startswith("task_steps")]
    assert [(n, tuple(v.shape)) for n, v in model.state_dict().items()] == theirs
    assert [n for n, _ in model.named_parameters()] == stored["ema_parameter_order"]


def test_initialisation_is_standardised():
    """Mean 0 and variance 1/fan_in over the inputs of every output (three-index: over K and S together)."""
    torch.manual_seed(0)
    model = PretrainModel(replace(NARROW, emb_size_edge=48, num_radial=32))
    dense = model.backbone.int_blocks[0].dense_ca.linear.weight
    assert torch.allclose(dense.mean(1), torch.zeros(48), atol=1e-6)
    assert torch.allclose(dense.var(1) * 48, torch.ones(48), atol=1e-3)
    basis = model.backbone.bases.mlp_cbf_tint.weight
    assert torch.allclose(basis.var((0, 1)) * 32 * 5, torch.ones(4), atol=1e-3)


def test_configuration_is_strict():
    with pytest.raises(ValueError, match="unknown key 'emb_size_atm'; the nearest valid key is 'emb_size_atom'"):
        BackboneConfig.from_dict({"emb_size_atm": 3})
    with pytest.raises(ValueError, match="rbf"):
        BackboneConfig.from_dict({"rbf": {"name": "bessel"}})
    with pytest.raises(ValueError, match="gradient forces need an energy head"):
        FinetuneModel(NARROW, [HeadSpec("forces", "gradient_forces")])


def test_fitted_factors_give_each_output_the_variance_of_its_input():
    torch.manual_seed(0)
    model = PretrainModel(NARROW)
    batches = [batch_of(slab(), config=CRYSTAL), batch_of(skewed_crystal(), config=CRYSTAL)]
    before = model(batches[0])["energy"]
    factors = fit_scale_factors(model, batches)
    assert len(factors) == 11 * 2 + 2 * 3 and all(f > 0 for f in factors.values())
    assert not torch.allclose(before, model(batches[0])["energy"])
    seen = {}
    name = "backbone.int_blocks.1.trip_interaction.scale_cbf_sum"
    module = scale_modules(model)[name]
    module.observer = lambda out, reference: seen.update(out=out * module.value, ref=reference())
    model(batches[0])
    assert row_variance(seen["out"]) == pytest.approx(row_variance(*seen["ref"]), rel=0.3)


def test_edge_dropout_compensates_in_training_only():
    model, batch = model_of(), batch_of(random_molecule())
    assert torch.equal(model(batch)["energy"], model(batch)["energy"])
    assert not torch.allclose(model.train()(batch)["energy"], model.eval()(batch)["energy"])


def test_backbone_of_a_pretraining_state_is_copied_and_checked():
    pretrained = PretrainModel(NARROW)
    fit_scale_factors(pretrained, [batch_of(slab(), config=CRYSTAL)])
    model = FinetuneModel(NARROW, [HeadSpec("y")])
    load_backbone(model, pretrained.state_dict())
    theirs = pretrained.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, theirs[name]), name
    assert torch.equal(model.embedding.weight, theirs["embedding.atom_embedding.weight"])
    assert scale_modules(model)["backbone.out_blocks.0.scale_sum"].value > 0
    with pytest.raises(ValueError, match="shape"):
        load_backbone(FinetuneModel(replace(NARROW, emb_size_edge=32), [HeadSpec("y")]), pretrained.state_dict())
