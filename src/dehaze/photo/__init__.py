"""Photos kept whole: files to upright pixels and back, with everything that came with them.

Read and write in one line each::

    picture = photo.read(Path("foggy.jpg"))
    photo.write(replace(picture, pixels=clear(picture.pixels)), Path("clear.jpg"))
"""

from dehaze.photo.colour import ColourTransform
from dehaze.photo.formats import PHOTO_SUFFIXES, output_suffix
from dehaze.photo.reading import MAX_PIXELS, read
from dehaze.photo.types import Photo, PhotoInfo
from dehaze.photo.writing import QUALITY, write

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "QUALITY",
    "ColourTransform",
    "Photo",
    "PhotoInfo",
    "output_suffix",
    "read",
    "write",
]
