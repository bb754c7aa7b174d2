"""The official checkpoints: read without executing anything, checked, imported."""
