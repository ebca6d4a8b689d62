"""The command line: verbs, arguments, signals, exit codes, progress and tables."""
