"""The interactive picture: a page that needs no network, no server and no other file."""

from .document import page
from .notebook import framed

__all__ = ["framed", "page"]
