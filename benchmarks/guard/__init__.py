"""Counts of instructions and of work, which no clock disturbs."""
