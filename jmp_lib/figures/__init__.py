"""Figures of the notebooks: each function takes plain data and returns a matplotlib figure."""

from .data import (
    atoms_per_structure,
    element_heatmap,
    embedding_scatter,
    label_distributions,
    neighbour_counts,
    pictures,
    target_distributions,
)
from .results import (
    arms_by_task,
    gains,
    learning_curves,
    parity,
    pretraining_curves,
    pretraining_loss,
    scaling,
    speedup,
)
from .style import ARM_COLOURS, ARMS, save
from .tsne_page import save_tsne_page
from .variants import ablations, by_training_size, gain_spread

__all__ = ["ARMS", "ARM_COLOURS", "ablations", "arms_by_task", "atoms_per_structure", "by_training_size",
           "element_heatmap", "embedding_scatter", "gain_spread", "gains", "label_distributions", "learning_curves",
           "neighbour_counts", "parity", "pictures", "pretraining_curves", "pretraining_loss", "save",
           "save_tsne_page", "scaling", "speedup", "target_distributions"]
