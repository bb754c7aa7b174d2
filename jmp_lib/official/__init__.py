"""Checkpoints of the official release: reading them safely, importing them, downloading them."""
