"""Tensor in, tensor out: the operations under the stages, which know nothing of MM-PHATE."""
