"""The page of the command `report`: one HTML file that tells the whole run and needs no network."""

from .page import write_page

__all__ = ["write_page"]
