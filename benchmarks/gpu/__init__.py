"""What is run on a machine with a GPU: `first_light` in its first ten minutes, `verify_gpu` after that."""
