"""Training: losses, sampling, normalisers, schedules, the loop, pre-training and fine-tuning."""
