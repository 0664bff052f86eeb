"""The part of the package cupyx that mmphate_gpu uses."""
