"""Networks from their folders: every kind, and folders that are not whole."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from structures import methanol, slab
from test_model import CRYSTAL, NARROW, batch_of

import jmp_lib
from jmp_lib.model import FinetuneModel, HeadSpec, PretrainModel, fit_scale_factors
from jmp_lib.model.scaling import scale_modules
from jmp_lib.model.weights import save_weights

FORCES = [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")]
R2 = [HeadSpec("y", "spatial_extent")]


def some_factors(model) -> dict[str, float]:
    for number, module in enumerate(scale_modules(model).values()):
        module.set(0.75 + 0.25 * (number % 4))
    return {name: module.value for name, module in scale_modules(model).items()}


def finetuned(tmp_path, specs):
    model = FinetuneModel(NARROW, specs).eval()
    save_weights(tmp_path / "model", model, {"kind": "finetune", "backbone": NARROW.to_dict(),
                                             "scale_factors": some_factors(model), "heads": [asdict(s) for s in specs]})
    return model


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(1)
    model = PretrainModel(NARROW).eval()
    save_weights(tmp_path / "model", model, {
        "kind": "pretrain", "backbone": NARROW.to_dict(), "datasets": dict.fromkeys("abcd", {}),
        "scale_factors": some_factors(model)})
    return model


def edit(path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_pretrained_folder_gives_the_same_network(pretrained, tmp_path):
    loaded = jmp_lib.load(tmp_path)
    batch = batch_of(methanol())
    with torch.no_grad():
        assert torch.equal(loaded.model(batch)["energy"], pretrained(batch)["energy"])
    assert loaded.info["kind"] == "pretrain" and loaded.path == tmp_path / "model.safetensors"
    assert not loaded.model.training and isinstance(loaded, jmp_lib.Loaded)
    alias = dict(loaded.model.named_parameters(remove_duplicate=False))
    assert (alias["backbone.out_blocks.0.seq_energy_pre.0.linear.weight"]
            is alias["backbone.out_blocks.0.layers.0.linear.weight"])


@pytest.mark.parametrize("heads", [
    FORCES, [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")], [HeadSpec("y", "scalar", "mean")], R2,
    [HeadSpec("a"), HeadSpec("b", reduction="max")]])
def test_every_kind_of_head_comes_back(tmp_path, heads):
    model = finetuned(tmp_path, heads)
    batch = batch_of(methanol())
    ours, theirs = jmp_lib.load(tmp_path / "model.safetensors").model(batch), model(batch)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_network_is_not_loaded_with_the_package():
    code = "import sys, jmp_lib; assert 'torch' not in sys.modules; jmp_lib.Loaded; assert callable(jmp_lib.load)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        jmp_lib.laod


@pytest.mark.parametrize("change, words", [
    (lambda info: info.pop("scale_factors"), "no fitted scale factor.*fit_scale_factors"),
    (lambda info: info["scale_factors"].popitem(), "no fitted scale factor"),
    (lambda info: info["scale_factors"].update({next(iter(info["scale_factors"])): 3.0}), "its JSON 3.0"),
    (lambda info: info["backbone"].update(emb_size_edge=40),
     "does not belong to model.json.* the network has .*float32"),
    (lambda info: info["backbone"].update(num_blocks=NARROW.num_blocks + 1), "is not there, the network has"),
    (lambda info: info["backbone"].update(num_blocks=NARROW.num_blocks - 1), "the network has none of that name"),
    (lambda info: info["backbone"].update(emb_size=40), "unknown key 'emb_size'"),
    (lambda info: info.pop("datasets"), "does not say all"),
    (lambda info: info.update(kind="else"), "does not describe a network"),
])  # fmt: skip
def test_a_folder_that_does_not_fit_says_so(pretrained, tmp_path, change, words):
    edit(tmp_path / "model.json", change)
    with pytest.raises(ValueError, match=words):
        jmp_lib.load(tmp_path)


def test_a_factor_of_zero_passes_only_where_it_is_declared(pretrained, tmp_path):
    state = load_file(tmp_path / "model.safetensors")
    name = next(n for n in state if n.endswith(".scale_factor"))
    short = name.removesuffix(".scale_factor")
    state[name] = torch.tensor(0.0)
    save_file(state, tmp_path / "model.safetensors")
    edit(tmp_path / "model.json", lambda info: info["scale_factors"].update({short: 0.0}))
    with pytest.raises(ValueError, match=f"no fitted scale factor '{short}'.*16 batches"):
        jmp_lib.load(tmp_path)
    edit(tmp_path / "model.json", lambda info: info.update(not_fitted=[short]))
    assert scale_modules(jmp_lib.load(tmp_path).model)[short].value == 0.0


def test_missing_and_damaged_files(pretrained, tmp_path):
    with pytest.raises(FileNotFoundError, match="model.json is missing"):
        jmp_lib.load(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        jmp_lib.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="model.json cannot be read"):
        jmp_lib.load(tmp_path)


def test_factors_are_fitted_for_another_width_and_depth_and_saved_with_the_weights(tmp_path):
    config = replace(NARROW, emb_size_edge=20, num_blocks=1)
    model = PretrainModel(config).eval()
    factors = fit_scale_factors(model, [batch_of(slab(), config=CRYSTAL)])
    save_weights(tmp_path / "model", model, {"kind": "pretrain", "backbone": config.to_dict(),
                                             "datasets": dict.fromkeys("abcd", {}), "scale_factors": factors})
    loaded = jmp_lib.load(tmp_path).model
    assert {name: module.value for name, module in scale_modules(loaded).items()} == pytest.approx(factors, rel=1e-7)
