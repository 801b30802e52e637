"""The `bench` command and the jobs that tie datasets, metrics, tables and generators together."""

__version__ = "0.1.0"
