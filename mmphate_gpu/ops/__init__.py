"""The operations under the stages: they take tensors, give tensors and know nothing of MM-PHATE."""
