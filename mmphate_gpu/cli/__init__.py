"""The command line: `mmphate-gpu demo | embed | analyze | plan | plot | report | view | export | config | bench`."""

from .commands import main

__all__ = ["main"]
