"""CuPy's parts that follow SciPy."""
