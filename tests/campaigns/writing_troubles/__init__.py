"""Writer: the troubles of a writer, and the folders and sets that they are tried on."""
