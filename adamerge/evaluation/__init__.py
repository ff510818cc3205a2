"""What a model is worth: predictions, scores, representations, and an estimate without labels."""
