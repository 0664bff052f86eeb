"""Scripts for a machine with a GPU: `first_light` for the first ten minutes, `verify_gpu` for the second call."""
