"""Measurements that take longer than a notebook has; each is a command that writes notebooks/results/NAME.json."""
