"""Image files to 8-bit arrays: upright, opaque, gray or coloured, of one size.

Heads are read first, to know the shape of it all before anything is decoded;
each file is then decoded straight into its row.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from nasjax.data import parts, resizing
from nasjax.data.binary import check_size
from nasjax.errors import InputError
from nasjax.reader import check_file, one_problem

# Pillow reads more, but some of its readers start other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_GRAY = ("1", "L", "LA", "La", "I")
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_TURNS = {
  2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
  3: PIL.Image.Transpose.ROTATE_180,
  4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
  5: PIL.Image.Transpose.TRANSPOSE,
  6: PIL.Image.Transpose.ROTATE_270,
  7: PIL.Image.Transpose.TRANSVERSE,
  8: PIL.Image.Transpose.ROTATE_90,
}
_EXIF_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error)
_MINORITY = 10  # one file in so many is too few to decide for colours
_LINE = 250  # characters of names in a message, which must fit in a line


class Pictures(NamedTuple):
  """What `read` makes of files.

  Attributes:
    pixels: uint8[M, H, W, C], C 1 or 3.
    marks: uint64[M, 2], equal for pictures that were equal before they were
      resized, and for these alone.
    rows: i64[M], the number of the file in each row, rising.
    background: the colour that transparent pixels were laid on.
    notes: lines for the user.
  """

  pixels: np.ndarray
  marks: np.ndarray
  rows: np.ndarray
  background: str
  notes: tuple[str, ...]


class _Head(NamedTuple):
  size: tuple[int, int]  # height and width, upright
  alpha: bool
  gray: bool


class _Broken(InputError):
  """A file that no reader can make an image of."""


def read(root: Path, names: Sequence[str], options: parts.Options) -> Pictures:
  """Reads image files into one array.

  Args:
    root: the folder.
    names: of the files, relative to it; at least one.
    options: see `parts.Options`.

  Raises:
    InputError: names every file that cannot be read, unless these are to be
      skipped; or the files differ in size and no size is asked for; or they
      are too large.
  """
  broken: dict[int, _Broken] = {}
  heads: dict[int, _Head] = {}
  for row, name in enumerate(names):
    try:
      heads[row] = _head(root / name, options.max_bytes)
    except _Broken as error:
      broken[row] = error
      continue
    _check_head(root, names, heads, row, options)
  if not heads:
    raise _all_broken(root, names, broken, options.skip_broken)
  sizes = collections.Counter(head.size for head in heads.values())
  size = options.image_size or next(iter(sizes))
  channels, notes = _channels(names, heads, options)
  shape = (len(heads), *size, channels)
  check_size(root, math.prod(shape), options.max_bytes)
  if options.image_size is not None:
    notes += resizing.notes(sizes, size, options.resize_mode)
  decoder = _Decoder(root, names, shape, options)
  broken |= decoder.decode(heads)
  if broken and not (options.skip_broken and decoder.rows):
    raise _all_broken(root, names, broken, options.skip_broken)
  if broken:
    lost = [names[row] for row in sorted(broken)]
    notes += (
      f"warning: {len(lost)} files that cannot be read are left out:"
      f" {parts.listed(lost)}",
    )
  background, more = decoder.laid_on()
  return Pictures(
    decoder.pixels[: len(decoder.rows)],
    np.frombuffer(b"".join(decoder.originals), np.uint64).reshape(-1, 2),
    np.array(decoder.rows, np.int64),
    background,
    notes + more,
  )


def _all_broken(root, names, broken, skip):
  rows = sorted(broken)
  if skip:
    return InputError(
      root, f"has {len(rows)} image files, and none can be read"
    )
  if len(rows) == 1:
    error = broken[rows[0]]
    fix = "mend or remove it; --skip-broken goes on without it"
    return InputError(error.where, error.what, fix)
  # The line must have room for what to do after the names.
  left, shown = _LINE - min(len(str(root)), 150), []
  for row in rows[:10]:
    left -= len(names[row]) + 2
    if shown and left < 0:
      break
    shown.append(names[row])
  more = f" and {len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
  return InputError(
    root,
    f"{len(rows)} image files cannot be read: {', '.join(shown)}{more}",
    "--skip-broken goes on without them",
  )


@contextlib.contextmanager
def _opened(path, max_bytes):
  """The opened image; what goes wrong in the block names the file."""
  check_file(path, max_bytes)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # odd metadata does not matter here
      warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
      with PIL.Image.open(path, formats=_FORMATS) as image:
        yield image
  except InputError:
    raise
  except (
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise InputError(
      path, f"is an image that is not read: {one_problem(error)}"
    ) from None
  except _DAMAGE as error:
    raise _Broken(
      path, f"is an image that cannot be read: {one_problem(error)}"
    ) from None


def _head(path, max_bytes):
  with _opened(path, max_bytes) as image:
    if image.mode == "F":
      raise _not_8_bits(path, "F pixels")
    width, height = image.size
    late = image.format == "PNG" and not image.info.keys() & _EXIF_KEYS
    # A PNG may say it after the pixels too; that is seen when it is decoded.
    if not late and _orientation(image) in _SIDEWAYS:
      width, height = height, width
    return _Head((height, width), _has_alpha(image), _is_gray(image))


def _not_8_bits(path, what):
  return InputError(
    path,
    f"has {what}, at most 16 bits a channel are read",
    "save the values as float32 in a .npz file",
  )


def _check_head(root, names, heads, row, options):
  first, head = next(iter(heads)), heads[row]
  if options.image_size is None and head.size != heads[first].size:
    before = root / names[first]
    raise _other_size(root / names[row], head.size, before, heads[first].size)
  if row == first:
    height, width = options.image_size or head.size
    check_size(root, len(names) * height * width, options.max_bytes)


def _other_size(path, size, first, first_size):
  (height, width), (high, wide) = size, first_size
  return InputError(
    path,
    f"is {height}x{width} and {first} is {high}x{wide} (HEIGHTxWIDTH)",
    "give --image-size to resize them all",
  )


def _orientation(image):
  # Pillow turns a TIFF itself.
  if image.format == "TIFF":
    return 1
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except _DAMAGE:
    return 1


def _has_alpha(image):
  return image.mode in _ALPHA or "transparency" in image.info


def _is_gray(image):
  if image.mode != "P":
    return image.mode in _GRAY or image.mode.startswith("I;16")
  used = np.array(image.histogram()[:256], bool)
  clear = image.info.get("transparency")
  if isinstance(clear, int):
    used[clear] = False
  elif isinstance(clear, bytes):
    used[np.flatnonzero(np.frombuffer(clear, np.uint8)[:256] == 0)] = False
  table = np.zeros(768, np.uint8)
  found = (image.getpalette("RGB") or [])[:768]
  table[: len(found)] = found
  red, green, blue = table.reshape(256, 3)[used].T
  return bool((red == green).all() and (green == blue).all())


def _channels(names, heads, options):
  """1 if all is gray and else 3, or as asked; and notes."""
  if options.channels_in is not None:
    return options.channels_in, ()
  red, green, blue = parts.colour(options.background or "white")
  coloured = [
    row
    for row, head in heads.items()
    if not head.gray or (head.alpha and not red == green == blue)
  ]
  if not coloured:
    return 1, ()
  count = len(coloured)
  if count == len(heads) or not (count == 1 or count * _MINORITY < len(heads)):
    return 3, ()
  return 3, (
    f"{count} of {len(heads)} images make 3 channels of all, as they are not"
    f" gray, first {names[coloured[0]]}; --channels-in 1 takes all as gray",
  )


class _Decoder:
  """Decodes files into rows, and knows what transparency makes equal."""

  def __init__(self, root, names, shape, options):
    self.root, self.names, self.options = root, names, options
    self.pixels = np.empty(shape, np.uint8)
    self.rows: list[int] = []
    self.originals: list[bytes] = []  # digests before resizing
    self.mode = "L" if shape[3] == 1 else "RGB"
    self.colour = parts.colour(options.background or "white")
    self.other = parts.WHITE if self.colour == parts.GREY else parts.GREY
    self.clear: list[int] = []  # places of images with alpha
    self.marks: list[tuple[bytes, bytes]] = []

  def decode(self, heads):
    """Fills the rows; the errors of the files that are broken."""
    broken = {}
    several = any(head.alpha for head in heads.values())
    for row in heads:
      place = len(self.rows)
      try:
        image = self._image(row)
      except _Broken as error:
        broken[row] = error
        continue
      self.rows.append(row)
      self.originals.append(b"")
      self._put(image, self.colour, place)
      if several:
        self._mark(image, place)
    return broken

  def _mark(self, image, place):
    mark = _mark(self.pixels[place])
    if image.mode != "RGBA":
      self.marks.append((mark, mark))
      return
    self.clear.append(place)
    row = self.rows[place]
    other = self._fitted(self._over(image, self.other), row)
    self.marks.append((mark, _mark(other)))

  def laid_on(self):
    """The background as resolved, and notes; may decode what is clear anew."""
    name = self.options.background or "white"
    others = collections.defaultdict(set)
    for mark, other in self.marks:
      others[mark].add(other)
    if len(others) >= len({other for _, other in self.marks}):
      return name, ()
    count = sum(len(others[mark]) > 1 for mark, _ in self.marks)
    text = (
      f"warning: on {name}, {count} pictures that differ in alpha become equal"
    )
    if self.options.background is not None:
      return name, (f"{text}; --background decides",)
    for place in self.clear:
      self._put(self._image(self.rows[place]), parts.GREY, place)
    return "grey", (f"{text}: mid-grey is taken; --background decides",)

  def _image(self, row):
    path = self.root / self.names[row]
    with _opened(path, self.options.max_bytes) as image:
      return _decoded(image, path)

  def _put(self, image, colour, place):
    """Fills the row of a decoded image, over a colour."""
    whole = self._over(image, colour)
    size = np.array(whole.size, "<u4").tobytes()
    mark = hashlib.blake2b(size + whole.tobytes(), digest_size=16)
    self.originals[place] = mark.digest()
    self.pixels[place] = self._fitted(whole, self.rows[place])

  def _over(self, image, colour):
    """A decoded image over a colour, in the mode of all."""
    if image.mode == "RGBA":
      base = PIL.Image.new("RGBA", image.size, (*colour, 255))
      # Over an opaque base the result is opaque: nothing is lost here.
      image = PIL.Image.alpha_composite(base, image).convert("RGB")
    return image.convert(self.mode)

  def _fitted(self, image, row):
    """uint8[H,W,C] of an image at the size of all."""
    size = self.pixels.shape[1:3]
    if self.options.image_size is not None:
      image = resizing.fitted(image, size, self.options.resize_mode)
    elif image.size != size[::-1]:
      first = self.root / self.names[0]
      path = self.root / self.names[row]
      raise _other_size(path, image.size[::-1], first, size)
    return np.asarray(image).reshape(self.pixels.shape[1:])


def _mark(pixels):
  data = np.ascontiguousarray(pixels)
  return hashlib.blake2b(data, digest_size=16).digest()


def _decoded(image, path):
  """An upright image of mode L, RGB or RGBA, apart from its file."""
  image.load()
  turn = _TURNS.get(_orientation(image))
  if image.mode.startswith("I"):
    image = _from_16_bits(image, path)
  elif _has_alpha(image):
    image = image.convert("LA") if image.mode == "La" else image
    image = image.convert("RGBA")
  else:
    image = image.convert("L" if image.mode in _GRAY else "RGB")
  return image if turn is None else image.transpose(turn)


def _from_16_bits(image, path):
  """The upper 8 of 16 bits, rounded, whatever the image's own range is."""
  values = np.asarray(image).astype(np.int64)
  if values.min() < 0 or values.max() > 65535:
    raise _not_8_bits(path, f"values from {values.min()} to {values.max()}")
  levels = PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))
  clear = image.info.get("transparency")
  if not isinstance(clear, int):
    return levels
  opaque = np.where(values == clear, 0, 255).astype(np.uint8)
  alpha = PIL.Image.fromarray(opaque)
  return PIL.Image.merge("LA", (levels, alpha)).convert("RGBA")
