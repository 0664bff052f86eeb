"""Files and folders that appear whole or not at all, whatever ends the process that writes them."""

from .scratch import is_scratch
from .whole import PathExistsError, listing, whole_file, whole_folder

__all__ = ["PathExistsError", "is_scratch", "listing", "whole_file", "whole_folder"]
