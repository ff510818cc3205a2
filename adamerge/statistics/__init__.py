"""What one pass over unlabeled images leaves: second moments of what enters an expert's linear layers, its Fisher
information, and how strongly the base's inputs speak."""
