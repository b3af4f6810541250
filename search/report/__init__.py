"""A run's folder becomes one HTML page with its plots."""
