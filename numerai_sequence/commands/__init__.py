"""Commands: the package from a shell, one module a subcommand."""
