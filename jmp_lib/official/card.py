"""The model card of an imported checkpoint."""

from __future__ import annotations

_CHOICES = {
    "official": "as the published fine-tuning takes them: averaged (EMA), but raw in `out_blocks.<k>.layers`",
    "ema": "averaged (EMA) everywhere; the published fine-tuning starts from raw weights in `out_blocks.<k>.layers`",
    "raw": "raw (not averaged) everywhere; the published fine-tuning starts from averaged ones",
}


def model_card(info: dict) -> str:
    """MODEL_CARD.md for the content of a ``model.json``."""
    count, source = info["parameters"], info["source"]
    graphs = "\n".join(f"| {key} | {g['cutoff']} | {g['max_neighbors']} | {'yes' if g['periodic'] else 'no'} |"
                       for key, g in info["graphs"].items())
    scales = "\n".join(f"| {key} | {d['energy']['std']} | {d['forces']['std']} |" for key, d in info["datasets"].items())
    unfitted = f"Not fitted (they act as 1): {', '.join(info['not_fitted'])}." if info["not_fitted"] else "All are fitted."
    return f"""# JMP, {info['size']} pre-training network

**What it is.** A GemNet-OC network pre-trained jointly on OC20, OC22, ANI-1x and Transition-1x (*From Molecules to
Materials: Pre-training Large Generalizable Models for Atomic Property Prediction*, ICLR 2024), with one energy head and
one direct-force head per data set. It is a starting point for fine-tuning.

**Origin.** The checkpoint `{source['file']}` ({source['bytes']} bytes, SHA-256 `{source['sha256']}`), imported by
`python -m jmp_lib import-checkpoint`. Whether that file is the official one, only its checksum says.

**Licence.** The official code is under CC-BY-NC 4.0 (no commercial use); nothing else is stated for the weights, so
treat them as CC-BY-NC 4.0, too.

**Parameters.** {count['total']:,}: backbone {count['backbone']:,}, atom embedding {count['embedding']:,}, heads
{count['heads']:,}. Updates: {info['updates']}; epoch: {info['epoch']}; EMA decay: {info['ema_decay']}.

**Weights.** {_CHOICES[info['weights']]}.

**Scale factors.** From the checkpoint, {len(info['scale_factors'])}. {unfitted}

## Graphs of the pre-training

The radial basis divides every distance by 12 Å, whatever the cutoff.

| data set | cutoff (Å) | neighbours | periodic |
| --- | --- | --- | --- |
{graphs}

## Units of the heads

Outputs are divided by these standard deviations (means are 0). They are the published ones of the pre-training
notebook, not read from the checkpoint; per-element reference energies of the two molecular sets are not published.

| data set | energy (eV) | forces (eV/Å) |
| --- | --- | --- |
{scales}

## Caveats

- In the checkpoint every `out_blocks.<k>.seq_energy_pre` is the same tensor as `out_blocks.<k>.layers`. The official
  loading of the averages passes over the former and then loads it last, so its networks have raw weights there. This
  is the default here; `--weights ema` gives averages everywhere.
- Energies depend on the order of the atoms wherever a neighbour limit cuts the graph. Keep the order of your files.
- The energy heads give normalised energies; absolute energies need the reference energies of their data set.
"""
