"""System: what the machine gives: memory, files, locks, processes, and the terminal."""
