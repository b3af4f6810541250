"""Classification: what a model says of labelled texts, example by example, and the metrics made of it."""
