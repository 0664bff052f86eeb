"""A GPU that is not there, for the Python code that runs around CUDA kernels; see `device`."""
