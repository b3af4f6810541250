"""The Ray shell: what one trial is to Ray Tune, what fits, and what happens when a worker dies."""
