"""Which pairs meet in a batch, and which negatives they bring."""
