"""Conversion of arrays and tensors to uint8 pixels, channels first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodo.data.images.image_set import Pixels
from autodo.errors import DataError

_CHANNELS = (1, 3, 4)
"""Gray, RGB, and RGB with transparency, which is dropped."""


def is_tensor(given: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for the answer."""
    return type(given).__module__.partition(".")[0] == "torch" and hasattr(given, "detach")


def holds_numbers(given: Any) -> bool:
    """Whether it is a tensor, or an array that does not hold paths or objects."""
    return is_tensor(given) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OSTU")


def as_array(given: Any) -> NDArray[Any]:
    """An array with the values of an array or tensor, of which a tensor may lie on a GPU."""
    if not is_tensor(given):
        return np.asarray(given)
    tensor = given.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def pixels_of_array(given: Any, *, batch: bool) -> Pixels:
    """Pixels of an array or tensor.

    Integers are from 0 to 255, floating-point numbers from 0 to 1, and True is white. Of the three axes of an image,
    the one with 1, 3 or 4 values holds the channels. If both the first and the last axis could be it, it is the last
    one of an array and the first one of a tensor.

    Args:
        batch: whether the first axis counts images.
    Shape:
        [N, H, W], [N, H, W, C] or [N, C, H, W], without N if it is no batch -> [N, c, H, W] or [c, H, W] uint8; c is 1
        or 3.
    Raises:
        DataError: if it has another shape, is not finite or out of range; one line.
    """
    array = as_array(given)
    axes = array.shape[1:] if batch else array.shape
    if len(axes) == 2:
        array, last = array[..., None, :, :], False
    elif len(axes) == 3 and not {axes[0], axes[2]}.isdisjoint(_CHANNELS):
        last = axes[2] in _CHANNELS and (axes[0] not in _CHANNELS or not is_tensor(given))
    else:
        many = "[N, H, W], [N, H, W, C] or [N, C, H, W]" if batch else "[H, W], [H, W, C] or [C, H, W]"
        hint = "; vectors are for the dataset 'features', see docs/how-to/features.md" if len(axes) == 1 else ""
        raise DataError(f"shape {array.shape} is not that of images: {many} with 1, 3 or 4 channels{hint}")
    if 0 in array.shape:
        raise DataError(f"shape {array.shape}: there are no pixels")
    if last:
        array = np.moveaxis(array, -1, -3)
    if array.shape[-3] == 4:
        array = array[..., :3, :, :]
    return _eight_bit(array, batch=batch)


def _eight_bit(array: NDArray[Any], *, batch: bool) -> Pixels:
    """The values as uint8. Shape: any."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise DataError(f"values of type {array.dtype} are no pixels; uint8 or floats from 0 to 1 are")
    floats = array.dtype.kind == "f"
    finite = np.isfinite(array) if floats else np.ones((), bool)
    if not finite.all():
        place = f" of image {_first_image(~finite)}" if batch else ""
        raise DataError(f"NaN or infinite pixels{place}; replace them or leave the image out")
    least, most, limit = array.min(), array.max(), 1 if floats else 255
    if least < 0 or most > limit:
        wrong = (array < 0) | (array > limit)
        place = f" (image {_first_image(wrong)} is the first out of range)" if batch else ""
        kind = "floating-point" if floats else "integer"
        raise DataError(
            f"{kind} pixels must be from 0 to {limit}, and these are from {least:g} to {most:g}{place}; scale "
            "them to this range, without normalising them (AutoDO normalises)"
        )
    return np.rint(array * 255).astype(np.uint8) if floats else array.astype(np.uint8)


def _first_image(wrong: NDArray[np.bool_]) -> int:
    return int(np.argmax(wrong.reshape(len(wrong), -1).any(1)))
