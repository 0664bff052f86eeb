"""The file formats of a trace: what a file claims is checked before its values are read."""
