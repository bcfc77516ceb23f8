"""Thumbnails of a run's images, small enough for a thousand on one page; made by Pillow."""

import io
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

__all__ = ["can_make_thumbnails", "thumbnails"]

# No format that hands the file to another program, as EPS does.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "ICO", "TIFF")
_PIXELS = 32_000_000  # of an image that is decoded: 128 MB in each thread
_THREADS = 4
# Size and WebP quality: the first that fits is taken. The page shows them at 64 x 48.
_TRIES = (((96, 72), 55), ((64, 48), 45), ((48, 36), 30), ((32, 24), 15))


def can_make_thumbnails() -> bool:
    """Whether Pillow is installed, which the extra [thumbnails] brings."""
    try:
        import PIL.Image  # noqa: F401 - only whether it can be
    except ImportError:
        return False
    return True


def thumbnails(paths: Iterable[Path], *, each: int, total: int) -> list[bytes | None]:
    """Make WebP thumbnails of image files, in threads.

    Args:
        paths: Of the images.
        each: Bytes of a thumbnail, at most.
        total: Bytes of all, at most; the images after that have none.

    Returns:
        One for each path, in order. None where Pillow cannot read the file, where the image has
        more than 32 million pixels, and where no thumbnail of it is small enough.
    """
    made: list[bytes | None] = []
    rest = iter(paths)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of what is odd in a file
        while some := list(islice(rest, 16 * _THREADS)):
            if total <= 0:
                made += [None] * len(some)
                continue
            for found in pool.map(partial(_thumbnail, limit=each), some):
                total -= len(found or b"")
                made.append(found if total >= 0 else None)
    return made


def _thumbnail(path: Path, limit: int) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _PIXELS:  # known from its header, without decoding
                return None
            image.draft("RGB", (192, 144))  # a JPEG is decoded at a fraction of its size
            if image.mode == "P":  # colours of a palette cannot be mixed
                small: Image.Image = image.convert("RGBA")
            else:
                image.load()
                small = image
            if small.height > 2 * small.width:  # of a long screenshot the top
                small = small.crop((0, 0, small.width, max(1, small.width * 3 // 4)))
            small.thumbnail((192, 144))
            small = ImageOps.exif_transpose(small)
            small = small.convert("RGBA" if small.has_transparency_data else "RGB")
        for size, quality in _TRIES:
            small.thumbnail(size)
            file = io.BytesIO()
            small.save(file, "WEBP", quality=quality, method=4)
            if file.tell() <= limit:
                return file.getvalue()
    except Exception:  # noqa: BLE001 - a broken file raises anything; it is shown by name and size
        return None
    return None
