"""The kernels of the ops of tiles, in Triton's language."""
