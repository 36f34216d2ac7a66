"""FitCall: from batches to Keras, whichever is there."""
