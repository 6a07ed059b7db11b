"""Parameter groups, the optimizer, and the learning-rate schedule."""
