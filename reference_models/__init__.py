"""Generators: a request in, chunks of frames out. Imports nothing of the other packages."""
