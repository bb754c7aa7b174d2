"""A user's own data: read, check, split, fine-tune, judge (notebook 14)."""
