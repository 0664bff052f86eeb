"""Tests for a Python that was started with the pretended GPU."""
