"""Commands: the package from a shell, with one module for each subcommand."""
