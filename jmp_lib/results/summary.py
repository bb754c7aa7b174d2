"""The few lines that say how a profile's run went, for the README and the end of ``reproduce``.

    print(summary("results/mini"))
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

SHOWN = ("JMP-S over GN-OC-S", "JMP-L over GN-OC-L", "GN-OC-L over GN-OC-S", "JMP-L over JMP-S")


def summary(results_dir: str | Path) -> str:
    """Markdown table of mean relative improvements and of the speed-up, read from the ``tables`` of a profile.

    Raises FileNotFoundError when the tables have not been written.
    """
    folder = Path(results_dir) / "tables"
    scaling, totals = pd.read_csv(folder / "scaling.csv"), pd.read_csv(folder / "speedup_totals.csv")
    rows = scaling.pivot(index="family", columns="comparison", values="own_mean_gain_percent")
    families = list(dict.fromkeys(scaling["family"]))
    counts = scaling[scaling["family"] == "all"].set_index("comparison")
    lines = ["| mean improvement / % | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for family in families:
        name = "all tasks" if family == "all" else family
        lines.append(f"| {name} | " + " | ".join(f"{rows.loc[family, c]:+.1f}" for c in SHOWN) + " |")
    improved = [f"{counts.loc[c, 'own_tasks_improved']:.0f} of {counts.loc[c, 'own_tasks']:.0f}" for c in SHOWN]
    lines.append("| tasks improved | " + " | ".join(improved) + " |")
    published = [f"{counts.loc[c, 'published_mean_gain_percent']:+.1f}" for c in SHOWN]
    lines.append("| *paper, published data, all tasks* | " + " | ".join(published) + " |")
    lines.append("")
    for row in totals.itertuples():
        lines.append(f"Speed-up, {row.size}: fine-tuning reaches the best validation error of training from scratch on "
                     f"{row.tasks_reached} of {row.tasks} tasks, in total {row.ratio_seconds_all:.2f}x sooner in time and "
                     f"{row.ratio_steps_all:.2f}x in updates (tasks that never reach it counted with their whole run).")
    return "\n".join(lines)
