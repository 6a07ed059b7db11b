"""Choosing a checkpoint or a run without labels."""
