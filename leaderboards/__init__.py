"""Result rows in, tables out. Imports nothing of the other packages."""
