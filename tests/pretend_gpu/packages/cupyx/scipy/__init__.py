"""Holds `sparse`, in the place of `cupyx.scipy`."""
