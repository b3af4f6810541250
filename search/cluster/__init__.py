"""A search as a job of a Ray cluster: what goes along, how it stands, how it is followed and stopped."""
