"""Variants of a profile: settings, folders, pre-training that is shared, tables and figures from records."""

import json
import shutil

import pytest
import yaml

from jmp_lib import paths, workbook
from jmp_lib.settings import PROFILE_DIR, load_profile
from jmp_lib.results import figures
from jmp_lib.results import variants as tables
from jmp_lib.results.summary import variant_summary
from jmp_lib.train.finetuning import finetuning_parameters
from jmp_lib.data.tasks import get_task
from jmp_lib.results.speedup import BUDGETS
from jmp_lib.train.loading import given_start


def test_a_variant_changes_what_it_says_and_nothing_else():
    base = load_profile("published_small")
    assert base.variant is None and "seed-43" in base.variants
    for name in base.variants:
        profile = load_profile(f"published_small:{name}")
        assert profile.variant == name and profile.name == f"published_small-{name}"
        assert all(get_task(task).id == task for task in profile.tasks or ())  # none: all
        settings = {p.name: finetuning_parameters(p, get_task("qm9_delta_eps"), "JMP-S") for p in (base, profile)}
        one, other = settings[base.name], settings[profile.name]
        differing = {key for key in one if one[key] != other[key]}
        kind = name.split("-")[0]
        assert differing == ({"seed"} if kind == "seed" else {"settings"}
                             if kind in ("train", "long", *BUDGETS) else set())


def test_ablations_differ_in_the_pre_training_alone():
    from jmp_lib.train.pretraining import pretraining_parameters

    base = pretraining_parameters(load_profile("mini:ablations"), "small")
    for name, changed in (("atom-wise-loss", "structurewise_loss"),
                          ("no-temperature", "temperature"), ("oc20-only", "datasets")):
        other = pretraining_parameters(load_profile(f"mini:ablations:{name}"), "small")
        assert {k for k in base if base[k] != other[k]} == {"pretraining"}
        keys = base["pretraining"].keys() | other["pretraining"].keys()
        assert {k for k in keys if base["pretraining"].get(k) != other["pretraining"].get(k)} == {changed}


def test_folds_that_a_task_names(tmp_path):
    profile = load_profile("published_small")
    assert profile.folds_of("matbench_phonons") == (0, 1, 2, 3, 4) and profile.folds_of("matbench_mp_gap") == (0,)
    assert profile.folds_of("matbench_perovskites") == (0,) and profile.folds_of("qm9_mu") == (0,)
    with pytest.raises(ValueError, match="task_folds.qm9_mu: .*folds are 0 to 0"):
        load_profile("mini", **{"finetuning.task_folds": {"qm9_mu": [1]}})


def test_folders_of_results():
    folder = workbook.results_folder(None, load_profile("published_small:seed-43"))
    assert folder.parts[-3:] == ("published_small", "variants", "seed-43")
    assert workbook.results_folder(folder, load_profile("published_small:seed-43")) == folder
    assert workbook.results_folder(None, load_profile("published_small")).name == "published_small"


def test_a_missing_base_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="base: .*is missing; run profile smoke first"):
        given_start(load_profile("smoke:seed-43"), "small", tmp_path / "variants" / "seed-43")


def test_an_unknown_variant_is_told():
    with pytest.raises(ValueError, match="seed-43"):
        load_profile("smoke:seed-4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The variants of smoke, run; the folder of its results."""
    folder = tmp_path_factory.mktemp("smoke")
    run = workbook.start({"profile": "smoke", "workers": 1, "results_dir": str(folder)},
                         ("profile", "workers", "results_dir"))
    run.pretrain_all()
    run.finetune_all(["qm9_mu"])
    run.run_variants()
    return folder


def test_variants_of_fine_tuning_start_from_the_same_weights(finished):
    def start(*parts):
        return json.loads(finished.joinpath(*parts, "records", "finetune", "qm9_mu", "JMP-S.json").read_text())["start"]

    base = start()
    for name in ("seed-43", "train-4"):
        assert start("variants", name)["pretrained"]["sha256"] == base["pretrained"]["sha256"]
        assert start("variants", name)["scale_factors"] == base["scale_factors"]
    assert start("variants", "atom-wise-loss")["pretrained"]["sha256"] != base["pretrained"]["sha256"]


def test_tables_say_the_role_of_every_variant(finished):
    values = tables.variant_values(finished)
    roles = dict(zip(values["variant"], values["role"]))
    assert roles == {"base": "base", "seed-43": "seed", "train-4": "size", "atom-wise-loss": "ablation"}
    spread = tables.spread(values)
    assert set(spread["seeds"]) == {2} and len(spread) == 4
    two = values[(values["arm"] == "JMP-S") & values["role"].isin(["base", "seed"])]["value"]
    row = spread[spread["arm"] == "JMP-S"].iloc[0]
    assert row["mean"] == pytest.approx(two.mean()) and row["std"] == pytest.approx(two.std())
    sizes = tables.by_training_size(values)
    assert list(sizes["n_train"]) == [4, 8]
    ablated = tables.ablations(values)
    assert list(ablated["variant"]) == ["GN-OC-S", "base", "atom-wise-loss"] and ablated["gain"].iloc[0] == 0.0
    assert (ablated["from"].notna().all() and (ablated["from"] <= ablated["gain"] + 1e-9).all()
            and (ablated["to"] >= ablated["gain"] - 1e-9).all())
    assert list(tables.mean_gains(ablated)["variant"]) == ["whole recipe", "atom-wise-loss"]
    words = variant_summary(finished)
    assert "over 2 seeds" in words and "| qm9_mu | 4 |" in words and "whole recipe" in words


def test_figures_of_variants_and_of_none(finished, tmp_path):
    values = tables.variant_values(finished)
    for table, draw in ((tables.seed_gains, figures.gain_spread), (tables.by_training_size, figures.by_training_size),
                        (tables.ablations, figures.ablations)):
        assert draw(table(values)).axes[0].get_lines() or draw(table(values)).axes[0].patches
        assert draw(table(tables.variant_values(tmp_path))).axes[0].get_title() == "nothing was run"


def test_roles_without_variants_are_shown_from_the_shipped_run(finished, tmp_path, capsys):
    shipped = {role: paths.shipped_dir(name) for role, name in tables.VARIANTS_SHOWN.items()}
    assert {tables.shown(finished, role) for role in tables.ROLES} == {finished}
    shutil.copytree(finished / "records", tmp_path / "records")
    shutil.copytree(finished / "variants" / "seed-43" / "records", tmp_path / "variants" / "seed-43" / "records")
    assert [tables.shown(tmp_path, role) for role in tables.ROLES] == [tmp_path, shipped["size"], shipped["ablation"]]
    run = workbook.start({"profile": "mini", "workers": 1, "results_dir": str(tmp_path)},
                         ("profile", "workers", "results_dir"))
    assert not run.profile.variants and run.run_variants() == {**shipped, "seed": tmp_path}
    assert "variants of ablation: none in these results" in capsys.readouterr().out


def test_a_second_run_repeats_nothing(finished, capsys):
    records = {p: p.stat().st_mtime_ns for p in finished.rglob("records/**/*.json")}
    run = workbook.start({"profile": "smoke", "workers": 1, "results_dir": str(finished)},
                         ("profile", "workers", "results_dir"))
    run.run_variants()
    assert records == {p: p.stat().st_mtime_ns for p in finished.rglob("records/**/*.json")}


def test_every_shipped_variant_is_valid():
    for path in PROFILE_DIR.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        for name in values.get("variants", {}):
            assert load_profile(f"{path.stem}:{name}").tasks != ()
        for outer, block in values.get("alternatives", {}).items():
            for name in block.get("variants", {}):
                profile = load_profile(f"{path.stem}:{outer}:{name}")
                assert profile.tasks and profile.variant == name and profile.results_name == f"{path.stem}-{outer}"


def test_ablations_are_compared_at_equal_updates():
    base = load_profile("mini:ablations")
    molecules, catalysts = {"ani1x", "transition1x"}, {"oc20", "oc22"}
    assert base.variant is None and not base.pretrained.get("small")
    for name, sampled in zip(base.variants, (molecules, catalysts, {"oc20"}, molecules | catalysts,
                                             molecules | catalysts), strict=True):
        profile = load_profile(f"mini:ablations:{name}")
        assert {key for key, part in profile.pretraining.datasets.items() if part.sampled} == sampled
        assert profile.pretraining.schedule == base.pretraining.schedule and profile.tasks == base.tasks
    with pytest.raises(ValueError, match="the nearest valid key is 'molecules'"):
        load_profile("mini:ablations:molecule")


def test_results_beside_are_own_ones_or_those_that_ship(tmp_path):
    assert tables.beside(tmp_path / "mini", "published_small") == paths.shipped_dir("published_small")
    (tmp_path / "published_small" / "records").mkdir(parents=True)
    assert tables.beside(tmp_path / "mini", "published_small") == tmp_path / "published_small"


def test_a_variant_that_has_only_begun_is_left_out_without_a_warning(tmp_path, recwarn):
    (tmp_path / "variants" / "long" / "records" / "pretrain").mkdir(parents=True)
    shutil.copytree(paths.shipped_dir("published_small") / "records", tmp_path / "records")
    assert tables.variant_values(tmp_path).empty and not [w for w in recwarn if w.category is FutureWarning]
