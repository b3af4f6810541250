"""Where runs are kept: a folder that every node sees, or a bucket of which each machine has a copy."""
