"""Published pre-training data: which store or file serves a set, official and group splits,
both ways the same numbers."""

import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import ani1x, pretraining, splits
from jmp_lib.data.structures import to_set
from jmp_lib.data.pretraining import find, load, load_pretraining_data, split, why_not
from jmp_lib.data.store import Part, write_store
from jmp_lib.data.structures import Columns
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.paths import data_dirs
from jmp_lib.settings import PretrainingSet, load_profile
from jmp_lib.train import joint_sets as joint_sets_module
from jmp_lib.data.normalise import fit
from jmp_lib.data.normalise import fit_forces, fit_property
from jmp_lib.train.pretraining import pretrain

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
needs_data = pytest.mark.skipif(not DATA, reason="JMP_DATA does not name the folder of published files")


def molecule(row: int, formula: str, heavy: int) -> dict:
    rng = np.random.default_rng(row)
    return {"pos": 30 * rng.normal(size=(4, 3)).astype(np.float32), "atomic_numbers": np.array([1, 1, 6, heavy]),
            "forces": rng.normal(size=(4, 3)).astype(np.float32), "energy": float(-1000 * heavy + rng.normal()),
            "group": formula, "sid": f"{formula}/{row}"}


def make_store(root: Path, name: str, count: int = 60, more: str = ""):
    structures = [molecule(row, f"F{row // 6}{more}", 7 + row // 6 % 2) for row in range(count)]
    return write_store(root / "stores" / name, [Part("p", structures.__iter__)], name=name, chunk_bytes=3000)


def make_all(root: Path) -> None:
    for name in ("oc20-2m", "oc20-val", "oc22", "oc22-val", "ani1x", "transition1x", "transition1x-val"):
        make_store(root, name, 12 if name.endswith("val") else 60)


def test_official_parts_stay_on_disk_and_caps_draw_from_all_over(tmp_path):
    make_all(tmp_path)
    sets = load_pretraining_data("published", {"oc22": {"train": 10}}, tmp_path)
    assert ([(s.name, s.train.name) for s in sets]
            == list(zip(PRETRAINING_SETS, ("oc20-2m", "oc22", "ani1x", "transition1x"), strict=True)))
    oc20, oc22, ani, _ = sets
    assert all(part.path for s in sets for part in (s.train, s.val))
    assert isinstance(oc20.train.indices(), range) and (len(oc20.train), len(oc20.val)) == (60, 12)
    assert [s["id"] for s in oc22.train] == splits.shuffled(60)[:10].tolist()
    assert oc22.train.natoms.tolist() == [4] * 10 and oc20.train.natoms.shape == (60,)
    assert not set(ani.train.group) & set(ani.val.group)
    assert oc20.train.sha256 == oc20.train.contents_sha256() != oc20.train.subset(range(59)).sha256
    assert oc22.train.subset([3, 1])[1]["id"] == oc22.train[1]["id"]
    with pytest.raises(IndexError, match="rows 0 to 60"):
        oc20.train.subset(range(61))


def test_groups_of_a_store_and_of_the_same_set_in_memory_are_split_alike(tmp_path):
    store = make_store(tmp_path, "transition1x")
    memory = to_set("transition1x", store)
    assert memory.path is None and memory.sha256 == store.sha256
    names = list(store.group_names)
    assert ([names[number] for number in store.group] == [s["sid"].split("/")[0] for s in store]
            and names == sorted(names))
    train, val = split("transition1x", store)
    assert len(train) + len(val) == 60 and len(val) == 6
    assert {int(s.z.max()) for s in store[train]} == {7, 8}
    again = split("transition1x", memory)
    assert all(np.array_equal(a, b) for a, b in zip((train, val), again, strict=True))


def test_an_element_that_only_one_group_has_stays_in_training(tmp_path):
    names = sorted(f"F{row}" for row in range(20))
    first, second = (names[number] for number in splits.shuffled(20)[:2])  # the order in which groups are held out
    structures = [molecule(row, f"F{row}", 9 if f"F{row}" == first else 7) for row in range(20)]
    store = write_store(tmp_path / "s", [Part("p", structures.__iter__)], name="s")
    train, val = split("oc22", store)
    held = {store.group_names[store.group[row]] for row in val}
    assert len(train) == 18 and second in held and first not in held
    lonely = write_store(tmp_path / "t", [Part("p", structures[:1].__iter__)], name="t")
    with pytest.raises(ValueError, match=r"oc22, t: 1 group\(s\) cannot be split"):
        split("oc22", lonely)


def test_whole_ani1x_is_split_by_formulas(tmp_path, monkeypatch):
    monkeypatch.setattr(ani1x, "N_HELD_OUT", 12)
    monkeypatch.setattr(ani1x.split_formulas, "__kwdefaults__", {"seed": 42, "n_held_out": 12})
    store = make_store(tmp_path, "ani1x")
    train, val = split("ani1x", store)
    sizes = {name: (6, 4) for name in store.group_names}
    wanted = ani1x.split_formulas(sizes)
    assert ({store.group_names[store.group[r]] for r in train} == set(wanted[0])
            and {store.group_names[store.group[r]] for r in val} == set(wanted[1]))
    assert (len(train), len(val)) == (36, 12)


def test_what_is_missing_is_named_with_folder_and_command(tmp_path):
    make_store(tmp_path, "oc20-200k")
    assert why_not("oc20", tmp_path) is None and find("oc20", tmp_path)()[0][0].path.name == "oc20-200k"
    with pytest.raises(FileNotFoundError) as error:
        load_pretraining_data("published", None, tmp_path)
    text = str(error.value)
    assert "of oc22" in text and str(tmp_path / "oc22") in text and "`python -m jmp_lib data prepare oc22`" in text
    assert "\n" not in text


def test_large_files_are_to_be_prepared_first(tmp_path, monkeypatch):
    (tmp_path / "ani1x").mkdir()
    (tmp_path / "ani1x" / "ani1x-release.h5").write_bytes(b"x" * 100)
    monkeypatch.setattr(pretraining, "DIRECT_BYTES", 50)
    with pytest.raises(FileNotFoundError,
                       match="ani1x is in .*ani1x but not prepared .* `python -m jmp_lib data prepare ani1x`"):
        find("ani1x", tmp_path)


def test_a_store_without_forces_is_refused(tmp_path):
    structures = [{k: v for k, v in molecule(i, "F", 7).items() if k != "forces"} for i in range(3)]
    write_store(tmp_path / "stores" / "oc22", [Part("p", structures.__iter__)], name="oc22")
    with pytest.raises(ValueError, match="oc22 has no forces, which pre-training needs"):
        load("oc22", tmp_path)


@pytest.mark.parametrize("reference", [True, False])
def test_one_pass_in_blocks_gives_the_fit_of_all_rows(reference):
    structures = [molecule(row, "F", 7 + row % 3) for row in range(50)]
    numbers, energies = [s["atomic_numbers"] for s in structures], np.array([s["energy"] for s in structures])
    wanted = fit_property(numbers, energies, linear_reference=reference)
    for block in (7, 50, 1000):
        found = fit(structures, block)
        energy = found.energy(reference)
        assert energy.std == pytest.approx(wanted.std, rel=1e-9) and energy.mean == pytest.approx(wanted.mean, abs=1e-8)
        assert energy.offset(numbers[0]) == pytest.approx(wanted.offset(numbers[0]), rel=1e-12)
        assert energy.reference == (pytest.approx(wanted.reference, rel=1e-9) if reference else None)
        assert found.force_std == pytest.approx(fit_forces(np.concatenate([s["forces"] for s in structures])).std)
        assert found.n == 50
    assert fit(structures).energy(mean=1.0, std=2.0).std == 2.0


def test_settings_that_give_everything_read_no_structure(tmp_path, monkeypatch):
    make_all(tmp_path)
    given = PretrainingSet(linear_reference=False, energy_mean=0.0, energy_std=2.0, force_std=0.5)
    monkeypatch.setattr(Columns, "fields", lambda self, row: pytest.fail("structures were read"))
    sets = joint_sets_module._read("published", tuple((key, given) for key in PRETRAINING_SETS), str(tmp_path))
    assert [s.force_scale for s in sets] == [4.0] * 4 and sets[0].energy.std == 2.0
    joint_sets_module._read.cache_clear()


def test_a_fit_on_some_of_the_structures(tmp_path, monkeypatch):
    make_all(tmp_path)
    monkeypatch.setattr(joint_sets_module, "FIT_STRUCTURES", 20)
    settings = tuple((key, PretrainingSet()) for key in PRETRAINING_SETS)
    some = joint_sets_module._read("published", settings, str(tmp_path))
    rows = np.linspace(0, 59, 20).astype(int)
    assert (some[0].forces.std
            == pytest.approx(fit_forces(np.concatenate([some[0].train[int(r)]["forces"] for r in rows])).std))
    joint_sets_module._read.cache_clear()


@needs_data
def test_a_pretraining_on_published_samples_has_all_its_errors(tmp_path):
    """A few updates on frames of all four published sets."""
    files = {"oc20": "*relaxations*.npz", "oc22": "*.pkl", "ani1x": "*train*.pkl", "transition1x": "*.lmdb"}
    for key, pattern in files.items():
        (tmp_path / key).mkdir(parents=True)
        for file in (file for folder in data_dirs() for file in sorted((folder / key).glob(pattern))):
            (tmp_path / key / file.name).symlink_to(file)
    if not any((tmp_path / "oc20").iterdir()):
        pytest.skip("JMP_DATA names no folder with relaxations of OC20")
    joint_sets_module._read.cache_clear()
    profile = load_profile("smoke", max_steps=3, data_root=str(tmp_path), **{"pretraining.data": "published"})
    record = pretrain(profile, "small", tmp_path / "out", progress=False)
    joint_sets_module._read.cache_clear()
    assert record["data_kind"] == "published" and record["updates"] == 3
    assert sum(np.isfinite(value) for name, value in record["final"].items() if name.endswith("_mae")) == 8
