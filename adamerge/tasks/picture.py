"""One picture as every part of the program sees it: upright, with 8 bits per channel, whatever it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# A change of what the functions here make of any file needs a new number: decoded pictures are kept on disk.
READING = 2
_AS_IN_OPEN_CLIP = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"))
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
_WHITE_IS_ZERO = 0


def read_picture(file: Path | IO[bytes], name: str | None = None) -> Image:
    """Decode a file, as `standard` has it.

    Args:
        name: in messages, where `file` has none.

    Raises:
        DataError: it cannot be read as a picture.
    """
    from PIL import Image

    name = str(file) if name is None else name
    try:
        with Image.open(file) as picture:
            picture.load()
            return standard(picture, name)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever damaged bytes make them stumble over
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> DataError:
    """What is said of a picture that a decoder gives up on."""
    reason = str(error) or type(error).__name__
    return DataError(f"{name} cannot be read as a picture ({reason}).\n  Replace or remove it.")


def standard(picture: Image | NDArray[Any], name: str = "A picture") -> Image:
    """The picture upright and with 8 bits per channel. Done twice, it is the same; a palette stays a palette.

    An orientation tag (EXIF) turns it, as viewers do. 16 bits become 8 by the range of their format: white stays
    white. Values of an unknown range are refused rather than cut off.

    Args:
        picture: decoded, or an array: uint8 (H, W) or (H, W, 3), or uint16 (H, W).
        name: in messages.

    Raises:
        DataError: a kind of picture whose black and white are not known, or that has no colours.
    """
    from PIL import Image

    if isinstance(picture, np.ndarray):
        kind = f"{picture.dtype} {picture.shape}"
        try:
            picture = Image.fromarray(picture)
        except TypeError as error:
            raise DataError(f"{name} is an array {kind}; expected uint8 (height, width, 3).") from error
    picture.load()
    if _white(picture) is not None:
        picture = _eight_bits(picture)
    elif picture.mode not in _AS_IN_OPEN_CLIP:
        picture = _as_rgb(picture, name)
    return _upright(picture)


def orientation(picture: Image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright. An orientation that cannot be read is none, as in any viewer."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF beside a sound picture
        return 1


def is_sixteen_bit(picture: Image) -> bool:
    """Whether its values are scaled to 8 bits."""
    return _white(picture) is not None


def _upright(picture: Image) -> Image:
    from PIL import ImageOps

    if orientation(picture) not in range(2, 9):
        return picture
    return ImageOps.exif_transpose(picture)


def _white(picture: Image) -> int | None:
    """The value of white of 16-bit grey; None for other pictures and where the file does not say."""
    if picture.mode.startswith("I;16"):
        bits = getattr(picture, "tag_v2", {}).get(_BITS, (16,))
        return int(2 ** bits[0]) - 1
    # Pillow gives these formats' 16 bits as 32-bit integers, scaled to 65535.
    return 65535 if picture.mode == "I" and picture.format in ("PNG", "PPM") else None


def _eight_bits(picture: Image) -> Image:
    from PIL.Image import fromarray

    values = np.asarray(picture).astype(np.float64) * (255 / (_white(picture) or 65535))
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 255 - values
    grey = fromarray(values.round().clip(0, 255).astype(np.uint8))
    grey.info = dict(picture.info)  # the orientation stands there
    return grey


def _as_rgb(picture: Image, name: str) -> Image:
    if picture.mode in ("I", "F"):
        low, high = (np.asarray(picture).min(), np.asarray(picture).max())
        kind = "32-bit whole numbers" if picture.mode == "I" else "32-bit floats"
        raise DataError(
            f"{name} holds {kind} from {low:g} to {high:g} (mode {picture.mode}); which value is white is not known.\n"
            "  Save it with 8 or 16 bits per channel, as PNG for example."
        )
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise DataError(
            f"{name} has the colours {picture.mode}, which cannot be turned to RGB.\n  Save it as RGB."
        ) from error
