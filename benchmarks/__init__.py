"""Measured time, memory and accuracy; see README.md in this folder."""
