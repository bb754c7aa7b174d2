"""Node embeddings of the pre-trained network, their t-SNE picture and neighbourhoods in numbers."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pandas as pd
import torch
from ase.data import chemical_symbols
from scipy.spatial.distance import cdist

from jmp_lib.data.door import hill
from jmp_lib.data.statistics import family_of
from jmp_lib.graphs import AddGraphs, collate
from jmp_lib.model.scaling import scale_modules, set_factors
from jmp_lib.predict import Predictor, as_structure, check_finite, several
from jmp_lib.records import pretrain_record_path, read_record
from jmp_lib.results.views import domain_of
from jmp_lib.train.loading import Loaded, given_start, load, seen_elements
from jmp_lib.train.pretraining import new_model
from jmp_lib.train.processes import choose_device


@torch.no_grad()
def embed_sets(run, model, sets: dict[str, list]) -> tuple[pd.DataFrame, np.ndarray]:
    """Embeddings of ``sets`` {set: structures}, one point per structure and element: points (columns set, domain,
    structure, element, formula) and the mean final node embeddings of the atoms of that element, (points, A) float32.
    """
    rows, vectors = [], []
    for name, structures in sets.items():
        add_graphs = AddGraphs(run.profile.graphs[family_of(name)])
        for structure in structures:
            numbers, nodes = (np.asarray(structure["atomic_numbers"]),
                              model.embed(collate([add_graphs(structure)])).numpy())
            formula = hill(numbers)
            for number in np.unique(numbers):
                rows.append({"set": name, "domain": domain_of(name), "structure": structure["id"],
                             "element": chemical_symbols[number], "formula": formula})
                vectors.append(nodes[numbers == number].mean(axis=0))
    return pd.DataFrame(rows), np.array(vectors, np.float32)


def tsne(points: pd.DataFrame, embeddings: np.ndarray, perplexity: float, seed: int) -> pd.DataFrame:
    """``points`` with columns x and y: t-SNE of the standardised embeddings (van der Maaten and Hinton, 2008)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(embeddings) <= 3 * perplexity:
        raise ValueError(f"t-SNE with perplexity {perplexity:g} needs more than {3 * perplexity:g} points, there are "
                         f"{len(embeddings)}: raise structures_per_set or lower perplexity")
    with threadpool_limits(1):
        placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(_standard(embeddings))
    return points.assign(x=placed[:, 0].round(3), y=placed[:, 1].round(3))


def pretrained_model(run, size: str):
    """The pre-training network of ``size`` in evaluation mode, and words that say where its weights are from: those
    that the profile names, else of notebook 03, else random ones."""
    path, name = pretrain_record_path(run.results_dir, size), run.profile.pretrained.get(size)
    given = given_start(run.profile, size, run.results_dir)
    if given is None and not path.is_file():
        return (new_model(run.profile, size).eval(),
                (f"{size} network with random weights (run notebook 03 to pre-train it): its numbers mean nothing"))
    record, origin = read_record(path) if path.is_file() else {}, name or "with the weights of notebook 03"
    if given is None or record.get("shipped") == name:
        origin += f" ({record['updates']} updates on {', '.join(record['data'])})"
    file = (given["pretrained"] if given else record["files"]["weights"])["file"]
    return load(run.results_dir / file).model, f"{size} network {origin}"


def untrained(run, model, size: str):
    """The network of ``model`` with random weights of the profile's seed, in evaluation mode;
    its scale factors stay."""
    fresh = new_model(run.profile, size).eval()
    set_factors(fresh, {name: float(module.value) or 1.0 for name, module in scale_modules(model).items()})
    return fresh


def neighbour_shares(points: pd.DataFrame, embeddings: dict[str, np.ndarray], neighbours: int = 10) -> pd.DataFrame:
    """What lies beside what in the standardised spaces of several networks {name: (points, A)}, in %;
    one column per network.

    Share of the nearest neighbours of a point that agree in set, domain or element, and in domain where only
    points of the same element are looked at (of elements with enough of them); points of one structure are no
    neighbours. ``by chance``: share among all that could be neighbours. Last row: share of the variance that the
    element explains.
    """
    same = {name: points[name].to_numpy()[:, None] == points[name].to_numpy()[None]
            for name in ("set", "domain", "element")}
    structure = (points["set"] + points["structure"].astype(str)).to_numpy()
    other = structure[:, None] != structure[None]
    questions = {f"neighbours of the same {name}": (same[name], other) for name in same}
    questions["neighbours of the same domain, element given"] = (same["domain"], other & same["element"])
    codes = points["element"].astype("category").cat.codes.to_numpy(int)
    rows = {what: {} for what in (*questions, "variance explained by the element")}
    for network, vectors in embeddings.items():
        values = _standard(vectors)
        distance = cdist(values, values)
        for what, (agree, allowed) in questions.items():
            chosen = np.flatnonzero(allowed.sum(1) > neighbours)
            nearest = np.argsort(np.where(allowed, distance, np.inf)[chosen], axis=1)[:, :neighbours]
            rows[what] |= {network: _share(np.take_along_axis(agree[chosen], nearest, 1)),
                           "by chance": _share(agree[chosen][allowed[chosen]])}
        means = np.array([values[codes == code].mean(0) for code in codes])
        share = 100 * (means ** 2).sum() / (values ** 2).sum()
        rows["variance explained by the element"] |= {
            network: round(share, 1), "by chance": round(100 * codes.max() / max(len(codes) - 1, 1), 1)}
    table = pd.DataFrame(rows).T.rename_axis("share / %")
    return table[[*embeddings, "by chance"]].reset_index()


def _share(agree: np.ndarray) -> float:
    return round(100 * agree.mean(), 1) if agree.size else float("nan")


def _standard(embeddings: np.ndarray) -> np.ndarray:
    """Each feature with mean 0 and standard deviation 1."""
    return (embeddings - embeddings.mean(0)) / np.maximum(embeddings.std(0), 1e-8)


# nodes: one (N,A) float32 array per structure; structures: (S,A), the mean over the atoms of each
Embeddings = namedtuple("Embeddings", ("nodes", "structures"))


@torch.no_grad()
def embed(structures, checkpoint, *, dataset: str | None = None, batch_size: int = 32, device: str = "cpu",
          check_elements: bool = True) -> Embeddings:
    """Final node embeddings of ``ase.Atoms``, pymatgen objects or structures, in order; ``ValueError`` names one that
    it cannot take.

    dataset: whose graphs a pre-trained network uses; default oc20 where any structure is periodic, else ani1x.
    """
    items = [as_structure(s, f"structure {i}") for i, s in enumerate(several(structures))]
    if not items:
        raise ValueError("there is no structure to embed")
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint, str(choose_device(device)))
    if dataset is None and loaded.info["kind"] == "pretrain":
        dataset = "oc20" if any("pbc" in s and np.any(np.asarray(s["pbc"])) for s in items) else "ani1x"
    predictor = Predictor(loaded, dataset, check_elements)
    # no energy, hence no reference, is asked for
    predictor.elements = seen_elements(loaded.info) if check_elements else None

    def nodes_of(part: list[dict]) -> list[np.ndarray]:
        values = predictor.model.embed(predictor.collated(part)).float().cpu().numpy()
        found = np.split(values, np.cumsum([len(p["pos"]) for p in part])[:-1])
        for one, item in zip(found, part):
            check_finite({"an embedding": one}, item["where"])
        return found

    nodes = list(predictor.each(items, batch_size, nodes_of))
    return Embeddings(nodes, np.stack([n.mean(axis=0) for n in nodes]))
