"""Training: train models as runs in folders, score them, and predict with them."""
