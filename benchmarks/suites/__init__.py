"""The suites: what is measured."""
