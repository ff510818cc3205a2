"""What one pass of an expert over unlabeled images leaves: second moments of what enters its linear layers."""
