"""Classification of texts and of pairs: labelled data, the trial's model with its head, baselines, export."""
