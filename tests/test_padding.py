"""Batches padded to a few shapes: the same outputs, losses, gradients and weights (float64), at a small cost;
recording."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from structures import methanol, random_molecule, skewed_crystal, slab
from test_engine_parts import float64, same, update_batches  # noqa: F401 (a fixture among them)
from test_model import CRYSTAL, MOLECULE, NARROW
from test_no_host import NoHost
from test_resume import Killed, kill_after

from jmp_lib.graphs import collate
from jmp_lib.graphs.build import a2a_edges, cut_graphs, drop_edges
from jmp_lib.graphs.padding import GRAPHS, TABLES, buckets, cost, fits, pad, padded_to_fit, shape
from jmp_lib.model import FinetuneModel, HeadSpec, PretrainModel, geometry
from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning, pretraining
from jmp_lib.train.batches import LabelledGraphs, Share, UpdateBatches
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.losses import Counts, finetuning_loss, pretraining_loss, with_padding
from jmp_lib.train.processes import Processes
from jmp_lib.train.recorded import Recorded
from jmp_lib.train.sampling import Sampler
from jmp_lib.train.schedule import EMA, Updates
from jmp_lib.train.trainer import BUCKETS, DRAWN, Progress, Training, _losses, _update

HEADS = {
    **{reduction: [HeadSpec("energy", "scalar", reduction)] for reduction in ("sum", "mean", "max")},
    "spatial extent": [HeadSpec("energy", "spatial_extent")],
    "direct forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")],
    "gradient forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")],
}
PRETRAINING = ("by structure", "by atom", "without fixed atoms")
MADE = {"molecules": (MOLECULE, [random_molecule, methanol, lambda: random_molecule(6, 5)]),
        "crystals": (CRYSTAL, [skewed_crystal, slab]),
        "mixed": (None, [slab, methanol, skewed_crystal, random_molecule])}  # fmt: skip


def a_batch(made: str, seed: int = 0, dropout: float = 0.1):
    """With labels, data sets 2, 0, 2, 0, fixed atoms and dropped edges."""
    rng = np.random.default_rng(seed)
    config, items = MADE[made][0], []
    for k, make in enumerate(MADE[made][1]):
        s = make()
        s["pos"] = s["pos"] + rng.normal(0, 0.02, s["pos"].shape)
        of = config or (CRYSTAL if s["pbc"].any() else MOLECULE)
        labels = {"fixed": rng.random(len(s["pos"])) < 0.3, "energy": rng.normal(),
                  "forces": rng.normal(size=s["pos"].shape)}
        edges = a2a_edges(s, of)
        graphs = cut_graphs([s], [drop_edges(edges, dropout, rng) if dropout else edges], [of])
        items.append({**s, **labels, "dataset_index": 2 - 2 * (k % 2), "graphs": graphs})
    batch = collate(items)
    batch["pos"] = batch["pos"].double()  # forces, as their gradients, in float64
    return batch


def wider(batch, **more) -> dict:
    """A bucket in which every number is larger, or larger by ``more``."""
    own = shape(batch)
    return {key: value + more.get(key, {"structures": 2, "atoms": 5, "main": 14}.get(key, 3))
            for key, value in own.items()}


def padded(batch, bucket, counts=None):
    found = pad(batch, bucket)
    found["counts"] = torch.tensor(counts or (len(batch["natoms"]), len(batch["batch"])))
    return found


def model_and_loss(kind: str):
    """A network in float64, and the loss of a batch as the trainer calls it."""
    torch.manual_seed(0)
    model = (PretrainModel(NARROW) if kind in PRETRAINING else FinetuneModel(NARROW, HEADS[kind])).double()
    scales_on = {}  # by device: a pass that is recorded copies nothing from the host

    def loss(batch, counts):
        out, device = model(batch), batch["pos"].device
        if device not in scales_on:
            scales_on[device] = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64, device=device)
        scales = scales_on[device]
        if kind in PRETRAINING:
            return pretraining_loss(out["energy"], out["forces"], batch["energy"], batch["forces"], batch["batch"],
                                    batch["dataset_index"], scales, 2 * scales, kind != "by atom", counts,
                                    ~batch["fixed"] if kind == "without fixed atoms" else None)
        return {"total": finetuning_loss(out, batch,
                                         {name: 1.5 for name in out if name in ("energy", "forces")}, counts)}

    return model, loss


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float((a - b).detach().abs().max()) <= 1e-12 * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", [*PRETRAINING, *HEADS])
def test_outputs_losses_and_gradients_are_those_without_padding(kind, made):
    batch = a_batch(made)
    counts = Counts(2 * len(batch["natoms"]), 2 * len(batch["batch"]))  # a part of a batch
    model, loss = model_and_loss(kind)

    def found(batch, counts):
        model.zero_grad()
        losses = loss(batch, counts)
        losses["total"].backward()
        model.eval()
        outputs = {key: value for key, value in model(batch).items() if key not in ("h", "x_f")}
        model.train()
        return outputs, losses, {name: p.grad for name, p in model.named_parameters()}

    outputs, losses, gradients = found(batch, counts)
    more = padded(batch, wider(batch), counts[:2])
    outputs2, losses2, gradients2 = found(more, with_padding(counts, more))
    for name, value in outputs.items():
        ours = outputs2[name][: len(value)]
        if kind in PRETRAINING:  # heads of other sets are zero, or evaluated for nothing
            own = batch["dataset_index"] if name == "energy" else batch["dataset_index"][batch["batch"]]
            value, ours = (x.transpose(1, -1)[torch.arange(len(x)), own] for x in (value, ours))
        assert near(ours, value), name
    for name, value in losses.items():
        assert near(losses2[name], value), name
    for name, value in gradients.items():
        assert (value is None) == (gradients2[name] is None) and (value is None or near(gradients2[name], value)), name
    assert all(torch.isfinite(value).all() for value in outputs2.values())


def a_run(kind: str, folder) -> Training:
    model, loss = model_and_loss(kind)
    pre = kind in PRETRAINING
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "base_lr": 1e-4}], lr=1e-4, fused=True)
    return Training(
        model=model, optimizer=optimizer, schedule=Updates(0, 1.0, 20, 0.1, 20, 20), updates_per_epoch=20, data=None,
        loss=loss, validate=dict, clip=lambda norm: torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm),
        checkpoint=folder / "c", checkpoint_every=99, loss_names=("total", "energy", "force") if pre else ("total",),
        ema=EMA(model, 0.9), gradient_divisors=model.gradient_divisors())  # fmt: skip


class Acted(Recorded):
    """A recording as on a GPU, acted by computing again with what lies in its arrays."""

    wrong, made_of = 0.0, 0

    def record(self, batch):
        losses, self.made_of = {}, self.made_of + 1
        return lambda: losses.update({name: value + self.wrong for name, value in self.work(batch).items()}), losses


@pytest.mark.parametrize("kind, made",
                         [("by structure", "mixed"), ("direct forces", "molecules"), ("gradient forces", "molecules")])
def test_weights_after_20_updates_are_those_without_padding(kind, made, tmp_path):
    """Also with passes that are replayed (as if). At ten times the rate training itself is chaotic:
    1e-16 grow to 1e-8."""
    ends, batches = [], [a_batch(made, seed) for seed in range(20)]
    *_, top = buckets([shape(batch) for batch in batches], 1)
    for bucket_of in (None, wider, lambda batch: top):
        run = a_run(kind, tmp_path)
        if bucket_of not in (None, wider):
            run.recorded = Acted(partial(_losses, run, None), run.model.parameters(), torch.device("cpu"))
        for batch in batches:
            counts = Counts(len(batch["natoms"]), len(batch["batch"]))
            part = padded(batch, bucket_of(batch)) if bucket_of else batch
            _update(run, Progress(), Share([part], [0], [[]], counts, None), False)
        ends.append([*run.model.parameters(), *run.ema.averages])
    assert all(near(a, b) and near(c, b) for a, b, c in zip(ends[1], ends[0], ends[2]))
    assert run.recorded.count == 1 and run.recorded.made_of == 1


@pytest.mark.parametrize("kind", ["by structure", "max", "spatial extent", "gradient forces"])
def test_an_update_with_padding_never_waits(kind, tmp_path):
    run, batch = a_run(kind, tmp_path), a_batch("mixed")
    share = Share([padded(batch, wider(batch))], [0], [[]], None, None)
    _update(run, Progress(), share, False)  # tables are copied to a device once
    tables = [table(NARROW.num_spherical, torch.float64, torch.device("cpu"))
              for table in (geometry.cosine_expansion, geometry._norms, geometry._slopes)]
    known = [*tables, *run.model.parameters(), *run.model.buffers(),
             *(t for t in share.parts[0].to_dict().values() if torch.is_tensor(t))]
    with NoHost(known) as mode:
        numbers, _ = _update(run, Progress(), share, False)
    assert mode.found == [] and torch.isfinite(numbers).all()


def test_the_last_bucket_takes_what_is_a_little_larger():
    """Whatever the mix of its sets."""
    batches = [a_batch("molecules", seed) for seed in range(4)]
    found = buckets([shape(b) for b in batches], 2)
    assert len(found) == 4 and all(found[-1][f"edges_by_set {k}"] == found[-1]["main"] for k in range(3))
    assert all(b["main"] % 2 == 0 for b in found)
    other = {**shape(batches[0]), "edges_by_set 0": found[-1]["main"] - 2, "main": found[-1]["main"] - 2}
    assert [fits(other, bucket) for bucket in found] == [False] * 3 + [True]


def test_shapes_suit_batches_that_were_not_seen():
    """Numbers as a joint pre-training draws them, a few sets rare, all a little at random: shapes of 128 batches, the
    largest of every number and no more, make others 19 % dearer."""
    share, edges = (np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.05, 0.02]),
                    np.array([120, 160, 150, 200, 220, 420, 450, 380]))
    rng = np.random.default_rng(0)

    def drawn() -> dict:
        rows = 2 * (rng.multinomial(64, share) * edges * rng.normal(1, 0.15, 8) / 2).astype(int)
        main = int(rows.sum())
        near = {"pair": 2.2, "a2a": 2.7, "qint": 0.14, "qin_back": 0.14, "qout_same": 0.14, "quad_same_out": 0.75}
        return {"structures": 64, "atoms": main // 9, "main": main, "a2ee2a": main // 2,
                "ae_same": main // 2, "a2ee2a_width": 6, "qint_width": 2,
                "main_width": int(np.clip(rng.normal(19, 1.2), 16, 24)), "pair_width": int(rng.normal(52, 6)),
                **{name: int(main * factor * rng.normal(1, 0.05)) for name, factor in near.items()},
                **{f"atoms_by_set {k}": int(n) // 9 for k, n in enumerate(rows)},
                **{f"edges_by_set {k}": int(n) for k, n in enumerate(rows)}}  # fmt: skip

    found, others = buckets([drawn() for _ in range(256)], 24), [drawn() for _ in range(100)]
    dearer = [cost(next(b for b in found if fits(of, b))) / cost(of) - 1 for of in others
              if any(fits(of, b) for b in found)]
    assert len(found) == 26 and len(dearer) >= 98 and np.mean(dearer) < 0.14


def test_padding_joins_nothing_with_a_true_atom():
    batch = a_batch("mixed")
    bucket = wider(batch)
    more, n = pad(batch, bucket), len(batch["batch"])
    assert shape(more) == bucket and same(batch, a_batch("mixed"))  # the batch itself is as it was
    for name in GRAPHS:
        source, target = more[f"{name}_edge_index"]
        count = batch[f"{name}_edge_index"].shape[1]
        assert (torch.equal(more[f"{name}_edge_index"][:, :count], batch[f"{name}_edge_index"])
                and target[count:].min() >= n)
        assert torch.equal(source[count:], target[count:])
        if name in TABLES:
            assert torch.equal(more[f"{name}_slot"] // bucket[f"{name}_width"], target)
            assert len(more[f"{name}_slot"][:count].unique()) == count
    source, target = more["main_edge_index"]
    reverse = more["main_reverse"]
    assert torch.equal(source[reverse], target) and torch.equal(more["main_offset"][reverse], -more["main_offset"])
    assert more["ptr"].tolist() == [0, *np.cumsum(more["natoms"].tolist())] and more.num_graphs == bucket["structures"]
    assert torch.equal(more["natoms"], torch.bincount(more["batch"])) and more["natoms"].min() > 0


def test_a_batch_fits_or_stays_as_it_is():
    batch = a_batch("molecules")
    own, bucket = shape(batch), wider(batch)
    assert fits(own, bucket)
    for key in own:
        assert not fits(own, {**bucket, key: own[key] - 1}), key
    assert not fits(own, {**bucket, "structures": own["structures"] + 9})  # more structures of padding than atoms
    assert not fits(own, own)  # no room for padding
    assert padded_to_fit(batch, [{**bucket, "main": 0}]) == (batch, None)
    assert not fits({**own, "edges_by_set 3": 1}, bucket) and fits(own, {**bucket, "edges_by_set 3": 9})
    found, share = padded_to_fit(batch, [{**bucket, "main": 0}, bucket])
    assert shape(found) == bucket and share == cost(bucket) / cost(own) - 1 > 0


def test_no_other_cut_of_the_shapes_costs_less():
    shapes = [shape(a_batch(made, seed, 0.4)) for made in MADE for seed in range(3)]
    shapes = [{key: value for key, value in of.items() if "by_set" not in key} for of in shapes]
    for count in (1, 2, 3):
        found = buckets(shapes, count)[:-1]
        assert len(found) == count and all(any(fits(own, b) for b in found) for own in shapes)

        def spent(cut):
            ordered, total = sorted(shapes, key=cost), 0.0
            for first, end in itertools.pairwise((0, *cut, len(shapes))):
                bucket, _ = buckets(ordered[first:end], 1)
                total += sum(cost(bucket) / cost(own) for own in ordered[first:end])
            return total

        best = min(itertools.combinations(range(1, len(shapes)), count - 1), key=spent)
        ordered = sorted(shapes, key=cost)
        assert found == [b for first, end in itertools.pairwise((0, *best, len(shapes)))
                         for b in buckets(ordered[first:end], 1)[:-1]]
    assert len(buckets(shapes[:2], 8)) == 3


def mini(task: str, size: int) -> UpdateBatches:
    """Batches of the mini profile, of the pre-training or of a task."""
    profile = load_profile("mini")
    if task == "pre-training":
        sets = joint_sets(profile)
        caches = [LabelledGraphs(s.train, {}, profile.graphs[s.key], dataset_index=i, edge_dropout=0.1)
                  for i, s in enumerate(sets)]
        return UpdateBatches(caches, Sampler.joint([len(s.train) for s in sets], 2.0, size, 42))
    data = finetuning.task_data(profile, task)
    return UpdateBatches([LabelledGraphs(data.train, {}, profile.graphs[data.task.family])],
                         Sampler.single(len(data.train), size, 42))  # fmt: skip


@pytest.mark.parametrize("task, size, most",
                         [("pre-training", 32, 0.15), ("pre-training", 8, 0.25), ("qm9_mu", 8, 0.10),
                          ("rmd17_ethanol", 2, 0.05), ("matbench_phonons", 8, 0.15)])  # fmt: skip
def test_padding_costs_little_on_mini_data(task, size, most):
    """Of batches that were not among those from which the buckets were chosen, nearly all fit;
    four unlike sets cost most."""
    data = mini(task, size)
    shapes = [shape(data[k].parts[0]) for k in range(DRAWN + 64)]
    found = buckets(shapes[:DRAWN], BUCKETS)
    for part, share in ((shapes[:DRAWN], 1.0), (shapes[DRAWN:], 0.95)):
        costs = [cost(next(b for b in found if fits(own, b))) / cost(own) - 1 for own in part
                 if any(fits(own, b) for b in found)]
        assert np.mean(costs) < most and len(costs) >= share * len(part)


def smoke(**changes):
    return load_profile("smoke", device="cpu", **changes)


@pytest.mark.parametrize("recipe", ["pre-training", "gradient forces"])
def test_a_run_with_padding_has_the_weights_of_one_without(recipe, tmp_path, toy, float64, monkeypatch):  # noqa: F811
    """Also in parts, after a kill (to the last bit), and where nothing fits."""

    def run(folder, **engine):
        profile = smoke(**{f"engine.{key}": value for key, value in engine.items()})
        if recipe == "pre-training":
            return pretraining.pretrain(profile, "small", tmp_path / folder, progress=False)
        return finetuning.finetune(profile, "rmd17_ethanol", "GN-OC-S", tmp_path / folder, progress=False)

    def ends(folder):
        (file,) = (tmp_path / folder / "work").glob("pretrain/small/model.safetensors" if recipe == "pre-training" else
                                                    "finetune/*/*/model.safetensors")  # fmt: skip
        return load_file(file)

    off, on, parts = run("off"), run("on", graphs="on"), run("parts", graphs="on", max_edges=60)
    assert run("auto", graphs="auto")["graphs"] is None is off["graphs"] and on["fingerprint"] == off["fingerprint"]
    assert (on["graphs"]["share_of_updates"] == 1.0 and on["graphs"]["recorded"] == 0
            and on["graphs"]["mean_padding_cost"] > 0)
    assert on["graphs"]["buckets"] and all(bucket["main"] <= 60 for bucket in parts["graphs"]["buckets"][:1])
    a, b, c, auto = (ends(folder) for folder in ("off", "on", "parts", "auto"))
    assert all(torch.equal(a[k], auto[k]) for k in a)
    assert max(float((a[k] - other[k]).abs().max()) for other in (b, c) for k in a) < 1e-12
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            run("killed", graphs="on")
    again, e = run("killed", graphs="on"), ends("killed")
    assert all(torch.equal(b[k], e[k]) for k in b)
    assert ({**again["graphs"], "buckets": 0} == {**on["graphs"], "buckets": 0}
            and again["graphs"]["buckets"] == on["graphs"]["buckets"])


def test_parts_after_running_out_of_memory_are_not_padded_to_larger_ones(toy):
    data = update_batches()
    data.buckets = buckets([shape(data[k].parts[0]) for k in range(8)], 2)
    assert all(padding is not None for k in range(8) for padding in data[k].padding)
    data.max_edges = data.buckets[0]["main"] - 1
    share = data[3]
    assert share.padding == [None] * len(share.parts) and all("counts" not in part for part in share.parts)
    assert Share([], [], [], Counts(1, 1), None).padding == []


def work_of(kind: str):
    model, loss = model_and_loss(kind)

    def work(batch):
        losses = loss(batch, with_padding(None, batch))
        losses["total"].backward()
        return {name: value.detach() for name, value in losses.items()}

    return model, work


@pytest.mark.parametrize("wrong", [0.0, 5.0])
def test_what_is_around_a_recording(wrong, capsys):
    """Batches of two shapes in turn: losses and gradients are those of the usual pass, also beside a
    recording that is wrong."""
    (model, work), (other, usual) = work_of("by structure"), work_of("by structure")
    recorded = Acted(work, model.parameters(), torch.device("cpu"))
    recorded.wrong = wrong
    batches = [a_batch("molecules", seed) for seed in range(8)]
    *_, top = buckets([shape(b) for b in batches], 1)
    for k, batch in enumerate(batches):
        more = padded(batch, {**top, "atoms": top["atoms"] + k % 2})
        model.zero_grad(set_to_none=False)
        other.zero_grad()
        wanted, found = usual(more), recorded(more)
        assert all(near(found[name], wanted[name]) for name in wanted)
        assert all(near(p.grad, q.grad) for p, q in zip(model.parameters(), other.parameters()))
    assert recorded.count == (0 if wrong else 2) and recorded.made_of == 2
    assert capsys.readouterr().err.count("it gives other numbers") == (2 if wrong else 0)
    recorded.clear()
    assert recorded.count == 0 and near(recorded(more)["total"], wanted["total"]) and recorded.made_of == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: recorded and replayed passes")
@pytest.mark.parametrize("kind", ["by structure", "direct forces", "gradient forces"])
def test_replayed_updates_on_a_gpu(kind, tmp_path):
    ends = []
    *_, top = buckets([shape(a_batch("mixed", seed)) for seed in range(12)], 1)
    for recording in (False, True):
        run = a_run(kind, tmp_path)
        run.processes = Processes("cuda")
        run.model.cuda()
        run.ema = EMA(run.model, 0.9)
        if recording:
            run.recorded = Recorded(partial(_losses, run, None), run.model.parameters(), run.processes.device)
        for step in range(12):
            _update(run, Progress(), Share([padded(a_batch("mixed", step), top)], [0], [[]], None, None), False)
        ends.append([p.detach().cpu() for p in run.model.parameters()])
    assert run.recorded.count == 1 and all(float((a - b).abs().max()) < 1e-9 for a, b in zip(*ends))
