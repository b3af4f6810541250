"""A source's rows become pairs, and pairs the parts of a run's data folder."""
