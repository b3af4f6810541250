"""A search's memory: one Optuna study in a journal, its sampler, its pruners and its budget."""
