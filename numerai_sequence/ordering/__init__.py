"""Ordering: which eras and rows come when; numbers alone, no file and no Keras."""
