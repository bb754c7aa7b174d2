"""The paper profile has every official setting, and docs/recipe.md decides every known discrepancy."""

import json
import math
import os
import re
from pathlib import Path

import pytest
import yaml

from jmp_lib import facts
from jmp_lib.data.tasks import TASKS
from jmp_lib.settings import PRETRAINING_SETS, PROFILE_DIR, SIZES, load_profile
from jmp_lib.train.losses import EPSILON
from jmp_lib.train.schedule import group_min_factor, layerwise_groups, plateau

ROOT = Path(__file__).parents[1]
RECIPE = facts.hyperparameters()
PRECISION = {"16-mixed": "float16-mixed", "32-true": "float32"}
MEASURED = ("spice", "matbench", "qmof")  # published statistics do not fit the data: docs/recipe.md 23, 24, 25
PROFILES = {"run_script": load_profile("paper"), "packaged": load_profile("paper:packaged")}
tasks = pytest.mark.parametrize("row", facts.tasks().to_dict("records"), ids=lambda r: r["id"])
sources = pytest.mark.parametrize("source", PROFILES)


def stated(row: dict, name: str, source: str):
    """The value of a column for a source; what the packaged configs leave open is as in the run script."""
    value = row[f"{name}_{source}"]
    return row[f"{name}_run_script"] if isinstance(value, float) and math.isnan(value) else value


@sources
@tasks
def test_every_task_has_the_settings_of_its_source(row, source):
    settings = PROFILES[source].finetune_settings(row["family"], row["id"])
    assert (set(settings.lr.scratch) | set(settings.lr.pretrained)
            == {(size, float(stated(row, "lr", source))) for size in SIZES})
    assert settings.batch_size == stated(row, "batch", source)
    assert settings.precision == PRECISION[stated(row, "precision", source)]
    assert settings.plateau_patience == stated(row, "plateau_patience", source)
    assert settings.early_stopping_patience == row["early_stopping_patience"]
    assert settings.schedule.stop_at == f"{row['max_epochs']} epochs"
    assert (settings.reduction or row["reduction_run_script"]) == stated(row, "reduction", source)
    assert (settings.force_head or row["head_run_script"]) == stated(row, "head", source)
    if row["label"] == "forces":
        assert (settings.force_coefficient, settings.energy_coefficient) == (row["force_coefficient"], 0.0)


@sources
@tasks
def test_every_graph_is_that_of_its_source(row, source):
    graph = PROFILES[source].graphs[row["family"]]
    assert (graph.cutoff, graph.max_neighbors, graph.periodic) == (row["cutoff"], row["max_neighbors"], row["periodic"])
    by_size = row["max_neighbors_by_size"] if isinstance(row["max_neighbors_by_size"], str) else ""
    wanted = {int(k): int(v) for k, v in (pair.split(":") for pair in by_size.split(";") if pair)}
    assert dict(graph.reduce_above) == ({} if (row["family"], source) == ("matbench", "packaged") else wanted)
    for natoms, n in ((100, graph.max_neighbors), (201, wanted.get(200)), (301, wanted.get(300))):
        if n and dict(graph.reduce_above) == wanted:
            assert graph.limits(natoms) == {
                "main": n,
                "a2ee2a": int(n * 20 / 30),
                "qint": int(n * 8 / 30),
                "a2a": int(n * 1000 / 30),
            }


@sources
@tasks
def test_every_normaliser_is_the_published_one_where_it_fits_the_data(row, source):
    settings = PROFILES[source].finetune_settings(row["family"], row["id"])
    if row["family"] in MEASURED:
        assert (settings.normaliser, settings.mean, settings.std) == ("standard", None, None)
    elif row["id"] == "qm9_r2" and source == "run_script":
        assert settings.normaliser == "none"
    else:
        assert (settings.normaliser, settings.std) == ("standard", row["std"])
        assert row["label"] == "forces" or settings.mean == row["mean"]
    assert settings.linear_reference == row["atom_reference"]
    if row["atom_reference"]:
        assert list(settings.reference_values) == RECIPE["qm9_atom_references"][row["label"]]


@sources
def test_settings_that_all_tasks_share(source):
    profile, known = PROFILES[source], RECIPE["finetuning"]
    for row in facts.tasks().to_dict("records"):
        s = profile.finetune_settings(row["family"], row["id"])
        stop = known["early_stopping"]["rmd17" if row["family"] == "rmd17" else "default"]
        assert (list(s.betas), s.weight_decay) == (known["optimiser"]["betas"], known["optimiser"]["weight_decay"])
        assert (s.clip_value, s.ema_decay) == (known["gradient_clipping"]["value"], None)
        assert (s.early_stopping_patience, s.min_delta, s.stop_below_lr) == (
            stop["patience"],
            stop["min_delta"],
            stop["stop_below_lr"],
        )
        assert s.schedule.stop_at == f"{stop['max_epochs']} epochs"
        wanted = known["schedule"]
        assert (s.schedule.warmup, s.schedule.cosine_until, s.schedule.validate_every) == (
            f"{wanted['warmup_epochs']} epochs",
            f"{wanted['cosine_until_epoch']} epochs",
            "1 epoch",
        )
        assert (s.schedule.warmup_start_factor, s.schedule.min_factor, s.plateau_factor) == (
            wanted["warmup_start_factor"],
            wanted["cosine_min_factor"],
            wanted["plateau_factor"],
        )
    layers = known["layerwise_lr_factors"]
    assert profile.finetuning.layerwise.embedding == layers["large"]["embedding"] == layers["small"]["embedding"]
    assert list(profile.finetuning.layerwise.large) == layers["large"]["blocks"]
    assert list(profile.finetuning.layerwise.small) == layers["small"]["blocks"]
    assert profile.seed == known["seed"][0] and profile.finetuning.folds == 5
    assert sum(task.n_folds for task in TASKS.values()) == known["runs"][0]


def test_pretraining_and_networks():
    paper, known = PROFILES["run_script"], RECIPE["pretraining"]
    p = paper.pretraining
    assert (p.lr, list(p.betas), p.weight_decay) == tuple(
        known["optimiser"][k] for k in ("lr", "betas", "weight_decay")
    )
    assert (p.clip_norm, p.ema_decay, p.edge_dropout) == (
        known["gradient_clipping"]["value"],
        known["ema"]["decay"],
        known["edge_dropout"]["p"],
    )
    assert (p.temperature, p.precision) == (known["sampling"]["temperature"], PRECISION[known["precision"][0]])
    assert p.batch_size == known["batch_size_per_gpu"][0]
    wanted = known["schedule"]
    assert (p.schedule.warmup, p.schedule.warmup_start_factor, p.schedule.min_factor, p.schedule.stop_at) == (
        f"{wanted['warmup_steps']} updates",
        wanted["warmup_start_factor"],
        wanted["min_lr_factor"],
        f"{wanted['epochs']} epochs",
    )
    for name in PRETRAINING_SETS:
        s, graph = p.datasets[name], paper.graphs[name]
        assert (s.energy_loss_scale, s.force_loss_scale) == (
            known["loss"]["energy_coefficient"][name],
            known["loss"]["force_coefficient"][name],
        )
        assert (s.energy_std, s.force_std) == (
            known["normalisation"]["energy_std"][name],
            known["normalisation"]["force_std"][name],
        )
        assert graph.cutoff == known["graphs"]["cutoff"][name]
        assert list(graph.limits().values()) == list(known["graphs"]["max_neighbors"].values())
    common = dict(RECIPE["models"]["both_sizes"])
    assert common.pop("head_layers") == 5 and common.pop("envelope_exponent") == 5
    assert common.pop("activation") == "scaled_silu"
    for size in ("small", "large"):
        config = paper.models[size].to_dict() | {"radial_basis_end": paper.models[size].absolute_rbf_cutoff}
        wanted = common | RECIPE["models"][size]
        assert {name: config[name] for name in wanted} == wanted


@pytest.fixture(scope="module")
def golden() -> dict:
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    return json.loads((Path(folder) / "golden_training.json").read_text())


def test_the_profile_has_the_settings_of_the_reference(golden):
    """What golden_training.json states besides the numbers that the tests of losses, schedules and EMA compare."""
    import torch

    paper = PROFILES["run_script"]
    p, defaults = paper.pretraining, paper.finetuning.defaults
    for name, stated in golden["normalization"]["pretraining"].items():
        s = p.datasets[name]
        assert (s.energy_loss_scale, s.force_loss_scale, s.energy_std, s.force_std) == tuple(
            stated[k] for k in ("energy_loss_scale", "force_loss_scale", "energy_std", "force_std")
        )
        assert stated["energy_mean"] == stated["force_mean"] == 0 and s.energy_mean in (0.0, None)
    rate = golden["lr_pretrain"]
    assert (p.lr, p.schedule.warmup, p.schedule.warmup_start_factor, p.schedule.min_factor) == (
        rate["base_lr"],
        f"{rate['warmup_steps']} updates",
        rate["warmup_start_lr_factor"],
        rate["min_lr_factor"],
    )
    sampling = golden["sampling"]["paper_T2"]
    assert p.temperature == sampling["temperature"]
    assert list(RECIPE["pretraining"]["train_sizes_in_paper"].values()) == sampling["sizes"]
    layers = golden["layerwise_lr"]
    ours = layerwise_groups(paper.finetuning.layerwise.embedding, paper.finetuning.layerwise.large)
    assert defaults.rate(True, "large") == layers["base_lr"]
    for group, wanted in zip(ours, layers["groups"], strict=True):
        assert (group.name, group.multiplier) == (wanted["name"], wanted["lr_multiplier"])
        if group.name != "rest":
            assert sorted(group.patterns) == sorted(wanted["patterns"])
            low = group_min_factor(defaults.schedule.min_factor, group.multiplier)
            assert low == pytest.approx(wanted["min_lr_factor"], rel=1e-12)
    rule = golden["lr_finetune"]["rlp"]
    assert (defaults.plateau_factor, defaults.plateau_patience) == (rule["factor"], rule["patience"])
    scheduler = plateau(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1), defaults.plateau_factor, 3)
    assert (scheduler.threshold, scheduler.threshold_mode, scheduler.eps, scheduler.cooldown) == (
        rule["threshold"],
        rule["threshold_mode"],
        rule["eps"],
        rule["cooldown"],
    )
    assert math.sqrt(3) * EPSILON == pytest.approx(golden["pairwise_distance_eps"]["zero_difference_value"], rel=1e-6)
    assert RECIPE["finetuning"]["gradient_force_scale"]["start"] == golden["gradient_forces"]["scaler"]["initial_scale"]


@pytest.mark.parametrize("slope", [1000.0, 1.0e-7])
def test_gradient_forces_survive_sixteen_bits(slope):
    """A slope whose gradient times 2^8 overflows float16, and one that vanishes in it without the factor."""
    import torch

    from jmp_lib.model.models import FORCE_SCALE, position_gradient

    assert FORCE_SCALE == RECIPE["finetuning"]["gradient_force_scale"]["start"]
    pos = torch.ones(2, 3, requires_grad=True)
    energy = (pos.half().float() * slope).sum()
    plain = position_gradient(energy, pos, create_graph=True)
    with torch.autocast("cpu", torch.float16):
        scaled = position_gradient(energy, pos, create_graph=True)
    assert torch.isfinite(scaled).all() and (scaled - slope).abs().max() <= 5e-3 * slope
    if slope < 1:
        assert (plain - slope).abs().max() > 0.1 * slope


def decisions() -> list[list[str]]:
    """Rows of the table of docs/recipe.md: number, topic, sources, choice, reason, place."""
    lines = (ROOT / "docs" / "recipe.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| *\d+ *\|", line)]


def test_every_known_discrepancy_is_decided_once():
    rows = decisions()
    assert [int(row[0]) for row in rows] == list(range(1, 26))
    assert all(len(row) == 6 and all(row) for row in rows)


@pytest.mark.parametrize("row", decisions(), ids=lambda r: r[0])
def test_the_place_of_a_decision_exists(row):
    """`dotted.key` of paper.yaml, `packaged:dotted.key` of its alternative, or `file::text` in the file."""
    values = yaml.safe_load((PROFILE_DIR / "paper.yaml").read_text())
    places = re.findall(r"`([^`]+)`", row[5])
    assert places, "a decision names a profile key or a file"
    for place in places:
        if "/" in place:
            file, _, text = place.partition("::")
            assert (ROOT / file).is_file() and text in (ROOT / file).read_text(), place
            continue
        branch = values["alternatives"]["packaged"] if place.startswith("packaged:") else values
        for key in place.removeprefix("packaged:").split("."):
            assert isinstance(branch, dict) and key in branch, place
            branch = branch[key]
