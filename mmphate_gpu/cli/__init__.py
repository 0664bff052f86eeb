"""The command line: `mmphate-gpu demo | embed | analyze | plan | plot | config | bench`."""

from .commands import main

__all__ = ["main"]
