"""One trial, readable top to bottom and runnable without Ray: base model, adapter, batches, training, merge, export."""
