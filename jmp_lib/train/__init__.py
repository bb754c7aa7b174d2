"""Training: losses, sampling, schedules, the loop, pre-training and fine-tuning."""
