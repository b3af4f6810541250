"""The YAML file of a search: read, checked, and parsed into a space of configurations."""
