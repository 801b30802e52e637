"""One file a dataset: `index(root)` turns a raw tree into rows before anything is decoded."""
