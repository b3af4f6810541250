"""What a trial is told by, rung after rung: losses, gates, checkpoints."""
