"""Images of another size: stretched, padded or cut.

A file's picture and a row of an array go through the same filter, channel by
channel, so that a folder and a .npz of the same images stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import PIL.Image

from nasjax.errors import InputError, nearest

MODES = ("stretch", "pad", "crop")
MAX_SIDE = 4096

_SHOWN = 3
_SAID = {
  "stretch": "are stretched to",
  "pad": "are padded with zeros to",
  "crop": "lose their edges to become",
}


def checked_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
  """Height and width of `--image-size`, one side or both; raises InputError."""
  sides = image_size if isinstance(image_size, (tuple, list)) else (image_size,)
  if len(sides) not in (1, 2):
    raise InputError("--image-size", f"{sides} is no height and width")
  for side in sides:
    if not 1 <= side <= MAX_SIDE:
      raise InputError(
        "--image-size", f"{side} is not between 1 and {MAX_SIDE}"
      )
  return int(sides[0]), int(sides[-1])


def check_mode(mode: str) -> None:
  """Refuses a mode that is none of `MODES`; raises InputError."""
  if mode not in MODES:
    raise InputError("--resize", f"unknown name {mode!r}", nearest(mode, MODES))


def fitted(
  image: PIL.Image.Image, size: tuple[int, int], mode: str
) -> PIL.Image.Image:
  """An image at another size, bilinearly over all that a pixel covers.

  Args:
    image: of mode L, RGB or F.
    size: height and width to get.
    mode: `stretch` each side alone; `pad` what fits inside by zeros, centred;
      or `crop` the centre of what covers.
  """
  height, width = size
  how = PIL.Image.Resampling.BILINEAR
  if mode == "stretch":
    return image.resize((width, height), how)
  across, down = width / image.width, height / image.height
  if mode == "crop":
    scale = max(across, down)
    wide = min(width / scale, image.width)
    high = min(height / scale, image.height)
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    return image.resize(
      (width, height), how, box=(left, top, left + wide, top + high)
    )
  scale = min(across, down)
  wide = min(max(round(image.width * scale), 1), width)
  high = min(max(round(image.height * scale), 1), height)
  made = PIL.Image.new(image.mode, (width, height))
  inner = image.resize((wide, high), how)
  made.paste(inner, ((width - wide) // 2, (height - high) // 2))
  return made


def resized(
  images: np.ndarray, size: tuple[int, int], mode: str = "stretch"
) -> np.ndarray:
  """Arrays as `fitted` makes images.

  Args:
    images: uint8 or f32 [N, H, W, C].
    size: height and width to get.
    mode: see `fitted`.

  Returns:
    [N, height, width, C] of the same dtype.
  """
  made = np.empty((len(images), *size, images.shape[3]), images.dtype)
  for row, image in enumerate(images):
    # Channel by channel: there may be any number of them.
    for channel in range(images.shape[3]):
      one = PIL.Image.fromarray(np.ascontiguousarray(image[..., channel]))
      made[row, ..., channel] = np.asarray(fitted(one, size, mode))
  return made


def notes(
  sizes: Mapping[tuple[int, int], int], size: tuple[int, int], mode: str
) -> tuple[str, ...]:
  """Says how images of other proportions than the size's are resized.

  Args:
    sizes: how many images there are of each height and width.
    size: height and width which they get.
    mode: see `fitted`.
  """
  changed = {s: count for s, count in sizes.items() if not _alike(s, size)}
  if not changed:
    return ()
  shown = ", ".join(f"{h}x{w}" for h, w in sorted(changed)[:_SHOWN])
  if len(changed) > _SHOWN:
    shown += f" and {len(changed) - _SHOWN} sizes more"
  others = " and ".join(m for m in MODES if m != mode)
  return (
    f"{sum(changed.values())} images of other proportions, {shown} (HEIGHTx"
    f"WIDTH), {_SAID[mode]} {size[0]}x{size[1]}: --resize {mode};"
    f" {others} are the other ways",
  )


def _alike(old, new):
  """Whether the sides are in proportion, to within a pixel."""
  scale = min(new[0] / old[0], new[1] / old[1])
  return all(b - a * scale < 1 for a, b in zip(old, new, strict=True))
