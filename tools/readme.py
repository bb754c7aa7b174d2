"""Keeps the measured parts of README.md, docs/results.md and docs/speed.md in step with the shipped records:
``python -m tools.readme``.

Measured are the blocks between marks (scoreboard and gains by family; summaries of mini, published_small and the
ablations; findings, by the template ``findings.md.j2``; speed, from the measurements of ``tools.benchmarks`` by
``speed.md.j2``) and the last column of the table of notebooks.
"""

from __future__ import annotations

import functools
import json
import re
import textwrap
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from jmp_lib import paths
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.facts import ARMS
from jmp_lib.files import write_atomically
from jmp_lib.records import load_pretraining_records, pretrain_record_path, read_record
from jmp_lib.results.intervals import UNKNOWN, words
from jmp_lib.results.speedup import ARMS_OF, longer, machines, shortened, soonest, speedup_table, speedup_totals
from jmp_lib.results.style import short_task
from jmp_lib.results.summary import (
    baseline_summary,
    longer_summary,
    markdown,
    scoreboard_summary,
    soonest_lines,
    summary,
    variant_summary,
)
from jmp_lib.results.tables import own_cells, scaling_table
from jmp_lib.results.values import (
    PAIRS,
    all_tasks_table,
    baseline_table,
    comparable,
    finetune_records,
    gain,
    own_values,
    relative_improvement,
)
from jmp_lib.results.values import gains as gains_by_task
from jmp_lib.results.variants import by_training_size, gain_spread, variant_values
from jmp_lib.train.loading import shipped_record

PAGES = ("README.md", "docs/results.md", "docs/speed.md", "docs/examples.md")

CHAPTER_OF = {"pretrain": "03", **{family.name: family.notebook[:2] for family in FAMILIES.values()}}
WITHOUT_TRAINING = ("00", "01", "02", "10", "11", "12", "13", "15")
CHAPTER = re.compile(r"^(\| `(\d\d)_\w+` \|.*\| )([^|]*)( \|)$", re.MULTILINE)


def computing_minutes(results_dir: str | Path) -> dict[str, float]:
    """Number of a notebook -> minutes of computing of its records, in sum over runs;
    notebooks without runs are absent."""
    minutes: dict[str, float] = {}
    trained = [r for folder in (Path(results_dir), Path(results_dir) / "live")
               for r in load_pretraining_records(folder) if "shipped" not in r]
    for record in [*trained, *finetune_records(Path(results_dir) / "records")]:
        chapter = CHAPTER_OF.get(record.get("family", "pretrain"))
        if chapter:
            minutes[chapter] = minutes.get(chapter, 0.0) + record["wall_time_s"] / 60
    return minutes


def computing_summary(results_dir: str | Path) -> str:
    """How many runs a profile and its variants have and the minutes of computing of their records, added up."""
    folder = Path(results_dir)
    found = [read_record(p) for p in (*folder.glob("records/**/*.json"), *folder.glob("variants/*/records/**/*.json"))]
    own, given = ([r for r in found if ("shipped" in r) == shipped] for shipped in (False, True))
    once = {r["size"]: r["wall_time_s"] for r in given}
    minutes = [sum(times) / 60 for times in ((r["wall_time_s"] for r in own), once.values())]
    said = f"All {len(own)} fine-tunings and baselines took {minutes[0]:.0f} minutes of computing, added up"
    said += f"; the pre-training that ships took {minutes[1]:.0f}, on {machines(given)}." if once else "."
    return textwrap.fill(said, 118)


def family_gains(columns: dict[str, Path]) -> str:
    """Markdown table: mean gains over training from scratch by family, of the paper and of the results in each
    folder, which is named by its column."""
    found = {}
    for name, folder in columns.items():
        scaling = scaling_table(all_tasks_table(folder / "records"))
        scaling = scaling[scaling["comparison"].isin(PAIRS) & (scaling["family"] != "learnt")].assign(own=own_cells)
        for comparison, rows in scaling.set_index("family").groupby("comparison"):
            arm = comparison.split()[0]
            found[f"{arm}, paper"] = rows["published_mean_gain_percent"].map(lambda value: words(value, *UNKNOWN))
            found[f"{arm}, {name}"] = rows["own"].where(rows["own_tasks"] > 0, "")
    order = [f"{arm}, {name}" for arm in ("JMP-S", "JMP-L") for name in ("paper", *columns)]
    return markdown(pd.DataFrame(found)[order].rename_axis("mean gain / % [95 %]").rename({"all": "all tasks"}))


@functools.cache
def blocks(shipped: str | Path) -> dict[str, str]:
    """Mark -> the words between it and the next end, from the folders of ``results/shipped``."""
    mini, small, ablations, bulk, benchmarks = (
        Path(shipped) / name for name in ("mini", "published_small", "mini-ablations", "bulk-crystals", "benchmarks"))
    more = longer(small)
    short = [textwrap.fill(f"- {line}", 118, subsequent_indent="  ")
             for line in soonest_lines(soonest(shortened(small)))]
    forms = dict.fromkeys(more.columns[2:5], "{:.0f}") | {"times sooner": "{:.1f}"}
    cells = more.assign(**{name: more[name].map(form.format).replace("nan", "not reached")
                           for name, form in forms.items()})
    for name, folder in (("gain / %", small / "variants" / "long"), ("gain, usual updates / %", small)):
        known = {size: gains_by_task(all_tasks_table(folder / "records"), *ARMS_OF[size])[["own", "from", "to"]]
                 for size in more["size"]}
        cells[name] = [words(*known[row.size].loc[row.task]) for row in more.itertuples()]
    parts = [summary(small), "\n".join(short), markdown(cells.set_index("task")) if len(more) else "",
             textwrap.fill(longer_summary(more), 118),
             *(part(small) for part in (variant_summary, baseline_summary, computing_summary))]
    return {"scoreboard of results/shipped/mini": scoreboard_summary(mini, "results/shipped/mini/"),
            "families of results/shipped": family_gains({"mini": mini, "published_small": small}),
            "summary of results/shipped/mini": "\n\n"
            .join(filter(None, [part(mini) for part in (summary, variant_summary, baseline_summary)])),
            "summary of results/shipped/mini-ablations": variant_summary(ablations),
            "summary of results/shipped/published_small": "\n\n".join(filter(None, parts)),
            "summary of results/shipped/bulk-crystals": variant_summary(bulk),
            "speed of results/shipped/benchmarks": speed(benchmarks),
            "summary of results/shipped/own": own_examples(mini),
            "summary of results/shipped/longer": longer_pretraining(shipped),
            **{f"findings of results/shipped{name}": findings(part, shipped)
               for name, part in (("", "readme"), ("/mini", "mini"),
                                  ("/published_small", "published"), ("/aims", "goals"))}}


def findings(part: str, shipped: str | Path) -> str:
    """What the results in ``shipped`` say (part: readme, mini or published), by the template ``findings.md.j2``: the
    words are ours, every number in them is computed here."""
    @functools.cache
    def errors(name: str, *variant: str) -> pd.DataFrame:
        """Test errors: tasks x (arms and baselines)."""
        folder = Path(shipped, name, *variant)
        arms = own_values(comparable(all_tasks_table(folder / "records"))).dropna(how="all")
        return arms.join(baseline_table(folder).pivot(index="task", columns="baseline", values="value"))

    def gains(name: str, new: tuple[str, ...], *families: str, over: str = "") -> pd.Series:
        """Improvement in % of each of ``new`` over its arm from scratch (or ``over``), by task, one below the other."""
        found = pd.concat([gain(errors(name), arm, over or arm.replace("JMP", "GN-OC")).dropna() for arm in new])
        return found[found.index.str.startswith(families or ("",))]

    def count(which: pd.Series) -> str:
        return f"all {len(which)}" if which.all() else f"{which.sum()} of {len(which)}"

    def but(which: pd.Series) -> str:
        return f" (not {', '.join(map(short_task, which.index[~which]))})" * bool(not which.all())

    def better(name: str, others: tuple[str, ...], *families: str, named: bool = False) -> str:
        """On how many tasks ``name`` has a lower error than all ``others``; ``named``: and on which not."""
        known = errors("published_small")[[name, *others]].dropna()
        known = known[known.index.str.startswith(families)]
        lower = known[name] < known[[*others]].min(axis=1)
        return count(lower) + but(lower) * named

    def updates(name: str, family: str = "") -> str:
        found = [r["updates"] for r in finetune_records(Path(shipped) / name / "records")
                 if r["family"].startswith(family)]
        return " to ".join(map(str, dict.fromkeys((min(found), max(found)))))

    def structures(name: str, family: str) -> int:
        (found,) = {r["n_train"] for r in finetune_records(Path(shipped) / name / "records") if r["family"] == family}
        return found

    def sure(name: str, new: str, *families: str) -> str:
        """On how many tasks ``new`` gains over its arm from scratch with an interval above zero."""
        from_ = gains_by_task(all_tasks_table(Path(shipped) / name / "records"), new,
                              new.replace("JMP", "GN-OC"))["from"].dropna()
        return count(from_[from_.index.str.startswith(families or ("",))] > 0)

    def fair(new: str) -> float:
        """Mean improvement in % over the better of the arm from scratch and, where there is one, the model of
        the composition (mini)."""
        found = errors("mini")
        return relative_improvement(found[[new.replace("JMP", "GN-OC"), "composition"]].min(axis=1), found[new]).mean()

    def below(name: str, model: str, other: str, *families: str) -> str:
        """On how many tasks that have both ``model`` has a lower error than ``other``."""
        known = errors(name)[[model, other]].dropna()
        known = known[known.index.str.startswith(families or ("",))]
        return f"{(known[model] < known[other]).sum()} of {len(known)}"

    def held_out(sets: str, kind: str) -> str:
        """Held-out errors (energy or force) of the small and the large network that ship,
        over those without a network."""
        each = [r["final"][f"{sets}_{kind}_mae"] / r["baseline"][sets][f"{kind}_mae"]
                for r in map(shipped_record, ("mini-small", "mini-large"))]
        return " and ".join(f"{ratio:.2f}" for ratio in each)

    def molecules(arm: str) -> str:
        """The lowest and the highest mean gain of ``arm`` in mini of the families of molecules."""
        means = [gains("mini", (arm,), family).mean() for family in ("qm9", "rmd17", "md22", "spice")]
        return f"{min(means):.0f} to {max(means):.0f} %"

    def near(what: str) -> dict[str, str]:
        """Shares in % of notebook 12, of the pre-trained and of the untrained network."""
        table = pd.read_csv(Path(shipped) / "mini" / "tables" / "12_neighbours.csv", index_col=0)
        row = next(table.loc[name] for name in table.index if name.endswith(what) or name.startswith(what))
        return {"trained": f"{row['pre-trained']:.0f}", "untrained": f"{row['untrained']:.0f}"}

    def sooner(size: str, families: tuple[str, ...] = ("",)) -> float:
        """How many times sooner fine-tuning in mini is as good as training from scratch, in updates over the
        tasks of ``families``."""
        table = speedup_table(Path(shipped) / "mini" / "records")
        return speedup_totals(table[table["task"].str.startswith(families)]).set_index("size").loc[
            size, "ratio_steps_all"]

    def own(updates: int) -> float:
        """Gain in % of the forces of notebook 14's example, both arms with the rate of the lowest validation error."""
        rows = pd.read_csv(Path(shipped) / "rates" / "own.csv").query("updates == @updates")
        found = rows.loc[rows.groupby("arm")["best_val"].idxmin()].set_index("arm")["test forces"]
        return relative_improvement(found["from scratch"], found["pre-trained"])

    small, every = Path(shipped) / "published_small", longer(Path(shipped) / "published_small")

    def long(size: str = "", task: str = "") -> pd.DataFrame:
        return every[every["size"].str.startswith(size) & every["task"].str.startswith(task)]

    given, short, variants = load_pretraining_records(small), soonest(shortened(small)), variant_values(small)
    environment = page_templates()
    environment.globals |= {
        "errors": errors, "gains": gains, "count": count, "but": but, "better": better, "updates": updates,
        "structures": structures, "long": long, "forces": ("rmd17", "md22", "spice"), "sooner": sooner, "own": own,
        "shipped_updates": [f"{shipped_record(f'mini-{size}')['updates']:,}" for size in ("small", "large")],
        "molecules": molecules, "near": near, "sure": sure, "fair": fair, "below": below, "held_out": held_out,
        "usual": lambda *which: long(*which)["gain, usual updates / %"], "arms": tuple(ARMS),
        "short": lambda size: next(row for row in short.to_dict("records")
                                   if (row["size"], row["of"]) == (size, "all tasks")),
        "speedup": lambda name: speedup_totals(
            speedup_table(Path(shipped) / name / "records")).set_index("size")["ratio_steps_all"],
        "every_seed": lambda: ", ".join(map(short_task, gain_spread(variants).query(
            "comparison == 'JMP-L over GN-OC-L' and lowest > 0")["task"])),
        "drawn": lambda: pd.Series([r["updates"] * r["parameters"]["pretraining"]["batch_size"] for r in given]),
        "few": lambda task: by_training_size(variants).query("task == @task"),
        "made": lambda name, family: baseline_table(small).query(
            "baseline == @name and task.str.startswith(@family)")["updates"].astype(int)}
    return environment.get_template("findings.md.j2").render(part=part).strip()


def own_examples(folder: Path) -> str:
    """Markdown table: the examples of notebook 14, test errors of both arms and the gain with its interval where
    the notebook has one."""
    rows = []
    for path in sorted((folder / "own").glob("*/pre-trained.seed42.json")):
        tuned, scratch = (read_record(path.with_name(f"{arm}.seed42.json")) for arm in ("pre-trained", "from-scratch"))
        table = folder / "tables" / f"14_{tuned['data']}_gain.csv"
        known = (pd.read_csv(table).set_index("property")[["95 % from", "95 % to"]]
                 if table.is_file() else pd.DataFrame())
        for name, unit in tuned["unit"].items():
            error, before = tuned["value"][name], scratch["value"][name]
            ends = known.loc[name] if name in known.index else UNKNOWN
            rows.append({"example": tuned["data"], "property": name,
                         "training structures": tuned["n_train"], "updates": tuned["updates"],
                         "from scratch": f"{before:.3g} {unit}", "pre-trained": f"{error:.3g} {unit}",
                         "gain / % [95 %]": words(relative_improvement(before, error), *ends)})
    return markdown(pd.DataFrame(rows).set_index("example"))


def longer_pretraining(shipped: str | Path) -> str:
    """Markdown table: held-out errors of the networks that ship and of the same ones trained on (``longer``), and the
    lowest validation error of fine-tuning from either over the rates of ``tools.study_rates``, with the geometric
    mean of its changes. All sets are shown, but the energies that were not trained."""
    folder, table = Path(shipped) / "longer", {}
    lowest = [pd.read_csv(Path(shipped) / name / "rates.csv").groupby(["arm", "task"])["best_val"].min()
              for name in ("rates", "longer")]
    for size, arm in (("small", "JMP-S"), ("large", "JMP-L")):
        now, more = shipped_record(f"mini-{size}"), read_record(pretrain_record_path(folder, size))
        ends = {f"pre-training, held out: {name}, "
                f"{'eV' if kind == 'energy' else 'eV/Å'}": [r["final"][f"{name}_{kind}_mae"] for r in (now, more)]
                for name in now["data"] for kind in ("energy", "force") if now["loss_scales"][name][kind] > 0}
        ends |= {f"fine-tuning, lowest validation error: {short_task(task)}": [errors[arm, task] for errors in lowest]
                 for task in lowest[1][arm].index}
        change = {name: 100 * (after / before - 1) for name, (before, after) in ends.items()}
        mean = np.exp(np.mean([np.log1p(value / 100) for name, value in change.items() if name.startswith("fine")])) - 1
        table[f"{arm}: {now['updates']:,} and {more['updates']:,} updates"] = {
            **{name: f"{before:.3g}, {after:.3g} ({change[name]:+.0f} %)" for name, (before, after) in ends.items()},
            "fine-tuning, all of these": f"{100 * mean:+.0f} %"}
    return markdown(pd.DataFrame(table).rename_axis("error"))


def page_templates() -> jinja2.Environment:
    """The templates of this folder, with filters for numbers (``fixed``) and for lines of Markdown (``wrap``)."""
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent),
                              trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"fixed": lambda value, digits=0: f"{value:.{digits}f}",
                     "wrap": lambda text: textwrap.fill(text.strip(), 120,
                                                        subsequent_indent="  " * text.strip().startswith("-"),
                                                        break_on_hyphens=False)}
    return made


def filled(text: str, shipped: str | Path) -> str:
    """The text of a page with its measured parts computed from ``shipped``; other cells stay."""
    for mark, block in blocks(shipped).items():
        between = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        text = between.sub(lambda _, words=block: words + "\n", text, count=1)
    times = {chapter: "no training" for chapter in WITHOUT_TRAINING}
    times |= {chapter: f"{value:.0f} min" for chapter, value in computing_minutes(Path(shipped) / "mini").items()}
    return CHAPTER.sub(lambda m: m[1] + times.get(m[2], m[3]) + m[4], text)


def speed(folder: str | Path) -> str:
    """Table of the training step, and a sentence for each other record.

    Ideal: the operations of the step at the speed of one matrix product in the same run. Raises FileNotFoundError
    without ``step.json``.
    """
    records = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    if "step" not in records:
        raise FileNotFoundError(f"there is no {folder}/step.json: run `python -m tools.benchmarks step` first")
    return page_templates().get_template("speed.md.j2").render(records).rstrip()


if __name__ == "__main__":
    root = paths.checkout_dir() or Path.cwd()
    for page in PAGES:
        changed = filled((root / page).read_text(encoding="utf-8"), root / "results" / "shipped")
        with write_atomically(root / page) as stream:
            stream.write(changed)
        print(root / page)
