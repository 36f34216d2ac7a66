"""System: the machine's memory, files, locks, processes and terminal."""
