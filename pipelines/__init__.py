"""Raw files in, prepared clips and manifest rows out. Imports nothing of the other packages."""
