"""Feeding: give batches to Keras, in any of its versions."""
