"""Write files and folders that appear whole or not at all, even if the process is killed."""

from .scratch import is_scratch, short
from .whole import PathExistsError, listing, names_to_keep, scratch_folder, whole_file, whole_folder

__all__ = [
    "PathExistsError",
    "is_scratch",
    "listing",
    "names_to_keep",
    "scratch_folder",
    "short",
    "whole_file",
    "whole_folder",
]
