"""Files wherever they are: on this machine, within other files, at URLs. Independent of what is in them."""

from cbam3d.storage.cache import BlockCache, default_folder
from cbam3d.storage.moving import Refused, exists, files_below, kept_copy, local_copy, remove, state_of, written
from cbam3d.storage.places import Part, Place, Url, is_stored, is_url, place_of
from cbam3d.storage.reading import OpenFile, Source, is_local, open_file

__all__ = [
    "BlockCache",
    "OpenFile",
    "Part",
    "Place",
    "Refused",
    "Source",
    "Url",
    "default_folder",
    "exists",
    "files_below",
    "is_local",
    "is_stored",
    "is_url",
    "kept_copy",
    "local_copy",
    "open_file",
    "place_of",
    "remove",
    "state_of",
    "written",
]
