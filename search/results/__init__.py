"""Trials become rows, rows a choice, and the choice a merged and benchmarked model."""
