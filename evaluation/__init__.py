"""Retrieval evaluation of text-embedding models: tasks, exact search, metrics, significance.

The leaf of the import order search -> trainables -> evaluation: it knows nothing of LoRA, Ray or Optuna.
"""
