"""Image files as they come: turned, clear, gray, deep, broken, grouped."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from test_data import write_images
from test_data_formats import make, refused, same, same_rows, save

from nasjax import data
from nasjax.data import load
from nasjax.errors import InputError

TURNS = {
  2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
  3: PIL.Image.Transpose.ROTATE_180,
  4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
  5: PIL.Image.Transpose.TRANSPOSE,
  6: PIL.Image.Transpose.ROTATE_90,
  7: PIL.Image.Transpose.TRANSVERSE,
  8: PIL.Image.Transpose.ROTATE_270,
}


def put(folder, images, suffix="png", **options):
  """Saves PIL images as files of the classes a and b in turn."""
  for row, image in enumerate(images):
    path = folder / "ab"[row % 2] / f"{row:03}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
  return folder


def pictures(count, mode="RGB", size=(6, 6)):
  rng = np.random.default_rng(0)
  shape = (count, size[1], size[0]) + ((3,) if mode == "RGB" else ())
  return [PIL.Image.fromarray(x) for x in rng.integers(0, 256, shape, np.uint8)]


def rows(dataset):
  """All rows of a data set."""
  sets = [s for s in (dataset.train, dataset.test) if s is not None]
  return np.concatenate([s.images for s in sets])


def only(notes, *words):
  (note,) = notes
  for word in words:
    assert word in note
  return True


# --- turned


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_images_are_turned_as_their_exif_tag_says(tmp_path, suffix):
  lossless = {"lossless": True} if suffix == "webp" else {}
  if suffix == "jpg":
    # Blocks of 8, so that turned ones are coded alike.
    small = pictures(7, "L", (3, 2))
    upright = [i.resize((24, 16), PIL.Image.Resampling.NEAREST) for i in small]
    lossless = {"quality": 100, "subsampling": 0}
  else:
    upright = pictures(7, size=(6, 4))
  put(tmp_path / "upright" / "train", upright, suffix, **lossless)
  for row, (tag, turn) in enumerate(TURNS.items()):
    exif = PIL.Image.Exif()
    exif[0x0112] = tag
    folder = tmp_path / "turned" / "train" / "ab"[row % 2]
    folder.mkdir(parents=True, exist_ok=True)
    upright[row].transpose(turn).save(
      folder / f"{row}.{suffix}", exif=exif, **lossless
    )
  expected, found = (
    load(str(tmp_path / name)) for name in ("upright", "turned")
  )
  assert data.shape(found.train)[:2] == upright[0].size[::-1]
  if suffix != "jpg":
    assert same(expected.train, found.train)
    assert same(expected.test, found.test)
    return
  for image in upright:
    off = np.abs(rows(found)[..., 0].astype(int) - np.asarray(image))
    assert off.max((1, 2)).min() <= 2


def test_an_exif_tag_that_is_damaged_turns_nothing(tmp_path):
  put(tmp_path, pictures(4), "jpg", exif=b"Exif\0\0 this is none")
  assert data.shape(load(str(tmp_path)).train) == (6, 6, 3)


def test_a_png_may_say_its_turn_after_the_pixels(tmp_path):
  (image,) = pictures(1, size=(6, 4))
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  put(tmp_path, [image] * 2)
  path = tmp_path / "b" / "001.png"
  pictures(2, size=(6, 4))[1].transpose(TURNS[6]).save(path, exif=exif)
  content = path.read_bytes()
  start = content.index(b"eXIf") - 4
  end = start + 12 + int.from_bytes(content[start : start + 4], "big")
  last = content.index(b"IEND") - 4
  path.write_bytes(
    content[:start] + content[end:last] + content[start:end] + content[last:]
  )
  with PIL.Image.open(path) as late:
    assert "exif" not in late.info
  refused(tmp_path, "001.png", "give --image-size")
  loaded = load(str(tmp_path), image_size=(4, 6))
  assert np.array_equal(
    sorted(x.tobytes() for x in rows(loaded)),
    sorted(np.asarray(i).tobytes() for i in pictures(2, size=(6, 4))),
  )


# --- transparent


def icons(colour, count=8):
  """RGBA icons of one colour: they differ in alpha alone."""
  made = []
  for row in range(count):
    image = PIL.Image.new("RGBA", (8, 8), (*colour, 0))
    draw = PIL.ImageDraw.Draw(image)
    draw.rectangle((0, 0, row, 3), fill=(*colour, 255))
    made.append(image)
  return made


def distinct(dataset):
  return len({x.tobytes() for x in rows(dataset)})


def test_icons_in_alpha_alone_stay_different(tmp_path):
  loaded = load(str(put(tmp_path, icons((0, 0, 0)))))
  assert distinct(loaded) == 8 and loaded.background == "white"
  assert loaded.notes == ()
  assert rows(loaded).max() == 255 and rows(loaded).min() == 0


def test_white_icons_are_laid_on_grey(tmp_path):
  loaded = load(str(put(tmp_path, icons((255, 255, 255)))))
  assert distinct(loaded) == 8 and loaded.background == "grey"
  assert only(
    loaded.notes, "warning: on white, 8 pictures", "mid-grey is taken"
  )
  assert set(np.unique(rows(loaded))) == {128, 255}
  with pytest.raises(InputError, match="no two different"):
    load(str(tmp_path), background="white")
  opaque = PIL.Image.new("RGBA", (8, 8), (1, 2, 3, 255))
  opaque.save(tmp_path / "a" / "opaque.png")
  loaded = load(str(tmp_path), background="FFFFFF")
  assert loaded.background == "ffffff"
  assert "warning: on ffffff, 8 pictures" in loaded.notes[0]
  assert "grey" not in loaded.notes[0]
  loaded = load(str(tmp_path), background="black")
  assert loaded.background == "black" and loaded.notes == ()
  assert distinct(loaded) == 9


@pytest.mark.parametrize(
  ("mode", "suffix"),
  [("LA", "png"), ("P", "gif"), ("P", "png"), ("RGB", "png"), ("L", "png")],
)
def test_every_kind_of_transparency_shows_the_background(
  tmp_path, mode, suffix
):
  """Half of each image is clear, and lies on a red ground."""
  made = []
  for row in range(4):
    clear = np.zeros((6, 6), bool)
    clear[:, 3:] = True
    level = np.full((6, 6), 10 * row + 10, np.uint8)
    level[clear] = 200
    image = PIL.Image.fromarray(level)
    if mode == "LA":
      image.putalpha(PIL.Image.fromarray((~clear * 255).astype(np.uint8)))
    elif mode == "P":
      image = PIL.Image.fromarray(level).convert("P")
    elif mode == "RGB":
      image = image.convert("RGB")
    made.append(image)
  transparent = {"P": 200, "L": 200, "RGB": (200, 200, 200)}.get(mode)
  options = {} if transparent is None else {"transparency": transparent}
  put(tmp_path, made, suffix, **options)
  found = rows(load(str(tmp_path), background="ff0000"))
  assert found.shape[3] == 3
  assert (found[:, :, 3:] == [255, 0, 0]).all()
  assert sorted(found[:, 0, 0, 1]) == [10, 20, 30, 40]
  # On a gray ground they are gray, but for those of mode RGB.
  found = rows(load(str(tmp_path), background="black"))
  assert found.shape[3] == (3 if mode == "RGB" else 1)
  assert not found[:, :, 3:].any()


def test_alpha_is_laid_down_before_images_are_resized(tmp_path):
  """What is hidden in clear pixels must not bleed into the others."""
  made = []
  for row in range(4):
    values = np.zeros((8, 8, 4), np.uint8)
    values[:, 4:] = (255, 0, 0, 0)
    values[:, :4] = (row, row, row, 255)
    made.append(PIL.Image.fromarray(values))
  found = rows(load(str(put(tmp_path, made)), image_size=3, background="black"))
  assert found.max() <= 3


@pytest.mark.parametrize("colour", ["", "blue", "12345", "gggggg", "whit"])
def test_a_background_that_is_no_colour_is_refused(tmp_path, colour):
  put(tmp_path, pictures(4))
  refused(tmp_path, "--background", "is no colour", background=colour)


def test_a_background_is_for_image_files_alone(tmp_path):
  path = save(tmp_path / "a.npz", make(9))
  for source in (path, "digits"):
    refused(source, "--background", "leave it out", background="white")
    assert load(str(source), skip_broken=True).notes == ()


# --- gray and deep


def test_one_coloured_image_among_gray_ones_is_named(tmp_path):
  images = pictures(30, "L")
  images[7] = images[7].convert("RGB")
  loaded = load(str(put(tmp_path, images)))
  assert data.shape(loaded.train)[2] == 3
  assert only(loaded.notes, "1 of 30 images", "b/007.png", "--channels-in 1")
  gray = load(str(tmp_path), channels_in=1)
  assert data.shape(gray.train)[2] == 1 and gray.notes == ()
  assert np.array_equal(
    np.sort(rows(gray).sum((1, 2, 3))),
    np.sort(
      [int(np.asarray(i.convert("L")).astype(int).sum()) for i in images]
    ),
  )
  for row in range(9):
    images[row] = images[row].convert("RGB")
  assert load(str(put(tmp_path, images))).notes == ()


def test_channels_may_be_asked_for(tmp_path):
  images = make(9)
  write_images(tmp_path / "d" / "train", images, ["0", "1", "2"])
  write_images(tmp_path / "d" / "test", make(3, seed=1), ["0", "1", "2"])
  path = save(tmp_path / "a.npz", images, make(3, seed=1))
  found = [load(str(s), channels_in=1) for s in (tmp_path / "d", path)]
  assert same(found[0].train, found[1].train)
  gray = load(str(save(tmp_path / "g.npz", make(9, channels=1))), channels_in=3)
  assert data.shape(gray.train) == (6, 6, 3)
  assert np.array_equal(gray.train.images[..., 0], gray.train.images[..., 2])
  refused(path, "--channels-in", "neither 1 nor 3", channels_in=2)
  four = save(tmp_path / "f.npz", make(9, channels=4))
  refused(four, "--channels-in", "4 channels", channels_in=3)


def test_palettes_with_gray_entries_in_use_are_gray(tmp_path):
  levels = pictures(4, "L")
  made = []
  for image in levels:
    values = np.asarray(image) // 2
    palette = PIL.Image.new("P", image.size)
    palette.putdata(values.ravel().tolist())
    table = np.repeat(np.arange(256)[::-1], 3).astype(np.uint8)
    table[3 * 200 :] = 7
    table[3 * 200] = 255  # a red that no pixel has
    palette.putpalette(table.tolist())
    made.append(palette)
  found = rows(load(str(put(tmp_path, made))))
  assert found.shape == (4, 6, 6, 1)
  expected = sorted(
    (255 - np.asarray(i) // 2).astype(np.uint8).tobytes() for i in levels
  )
  assert sorted(x.tobytes() for x in found) == expected
  made[0].putpixel((0, 0), 200)
  assert rows(load(str(put(tmp_path, made)))).shape[3] == 3


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_by_the_range_of_16_bits(tmp_path, suffix):
  """A dark image stays dark: its own range does not count."""
  made = []
  for row in range(4):
    values = np.full((6, 6), 257 * (row + 1), np.uint16)
    values[0, 0], values[0, 1], values[0, 2] = 65535, 128, 129
    made.append(PIL.Image.fromarray(values))
  found = rows(load(str(put(tmp_path, made, suffix))))
  assert found.shape == (4, 6, 6, 1)
  assert sorted(found[:, 5, 5, 0]) == [1, 2, 3, 4]
  assert found[0, 0, :3, 0].tolist() == [255, 0, 1]


# --- folders


def test_class_folders_that_are_numbers_are_in_order_of_value(tmp_path):
  names = [str(number) for number in range(12)]
  write_images(tmp_path, make(24, 12), names)
  loaded = load(str(tmp_path))
  assert loaded.class_names == tuple(names)
  write_images(tmp_path, make(2, 1), ["x"])
  assert load(str(tmp_path)).class_names[:4] == ("0", "1", "10", "11")


@pytest.mark.parametrize(
  "names",
  [
    ("Train", "TEST", "Val"),
    ("train", "Test", "validation"),
    ("TRAIN", "test", "valid"),
  ],
)
def test_train_test_and_val_in_any_case(tmp_path, names):
  sets = [make(9), make(6, seed=1), make(6, seed=2)]
  for name, images in zip(names, sets, strict=True):
    write_images(tmp_path / name, images, ["a", "b", "c"])
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, sets[0]) and same_rows(loaded.test, sets[1])
  assert same_rows(loaded.valid, sets[2]) and loaded.notes == ()
  write_images(tmp_path / names[2], make(1), ["A"])
  refused(tmp_path, "A: is no class of train/")


def test_two_folders_of_one_role_are_refused(tmp_path):
  for name in ("train", "val", "Valid"):
    write_images(tmp_path / name, make(6), ["a", "b", "c"])
  refused(tmp_path, "which is the same")


def test_system_files_are_skipped_and_counted(tmp_path):
  images = make(9)
  write_images(tmp_path / "train", images, ["a", "b", "c"])
  write_images(tmp_path / "test", make(6, seed=1), ["a", "b", "c"])
  for place in ("Thumbs.db", "train/.DS_Store", "train/a/THUMBS.DB"):
    (tmp_path / place).write_bytes(b"")
  for place in ("test/b/desktop.ini", "train/b/.hidden"):
    (tmp_path / place).write_bytes(b"")
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, images)
  assert only(loaded.notes, "4 system files are skipped")


def test_system_files_of_a_flat_folder_are_counted_once(tmp_path):
  put(tmp_path, pictures(4))
  (tmp_path / "Thumbs.db").write_bytes(b"")
  (tmp_path / "a" / "Thumbs.db").write_bytes(b"")
  assert only(load(str(tmp_path)).notes, "2 system files")


# --- broken


def test_all_broken_files_are_named_at_once(tmp_path):
  images = pictures(40)
  put(tmp_path, images)
  whole = (tmp_path / "a" / "000.png").read_bytes()
  broken = sorted(tmp_path.glob("a/*.png"))[1:13]
  for number, path in enumerate(broken):
    # Some fail at the head and some at the pixels.
    path.write_bytes((b"", whole[:60], b"no image", whole[:-30])[number % 4])
  error = refused(tmp_path, "12 image files", "and 2 more", "--skip-broken")
  for path in broken[:10]:
    assert f"a/{path.name}" in str(error)
  loaded = load(str(tmp_path), skip_broken=True)
  assert len(rows(loaded)) == 28
  assert only(loaded.notes, "warning: 12 files", "a/002.png", "and 2 more")
  left = [
    i
    for n, i in enumerate(images)
    if f"a/{n:03}.png" not in {f"a/{path.name}" for path in broken}
  ]
  expected = {np.asarray(image).tobytes() for image in left}
  assert {x.tobytes() for x in rows(loaded)} == expected


def test_a_class_that_loses_all_its_files_is_refused(tmp_path):
  write_images(tmp_path, make(9), ["a", "b", "c"])
  for path in (tmp_path / "b").iterdir():
    path.write_bytes(b"no image")
  refused(tmp_path, "3 image files cannot be read", "b/001.png")
  refused(tmp_path, "b: is a class folder", "no image can be", skip_broken=True)
  for path in tmp_path.glob("*/*"):
    path.write_bytes(b"no image")
  refused(tmp_path, "9 image files, and none", skip_broken=True)


def test_a_bomb_is_no_broken_file(tmp_path, monkeypatch):
  write_images(tmp_path, make(6), ["a", "b", "c"])
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20)
  refused(tmp_path, "000.png", "decompression bomb", skip_broken=True)


# --- groups


def test_groups_by_file_name(tmp_path):
  images = make(24)
  for row, (pixels, label) in enumerate(zip(*images, strict=True)):
    path = tmp_path / "train" / "abc"[label] / f"w{row // 6}_{row}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
  write_images(tmp_path / "test", make(6, seed=1), ["a", "b", "c"])
  loaded = load(str(tmp_path), group_by=r"^(w\d)_\d+")
  place = {x.tobytes(): row // 6 for row, x in enumerate(images.images)}
  assert loaded.groups.dtype == np.int32
  assert loaded.groups.tolist() == [
    place[x.tobytes()] for x in loaded.train.images
  ]
  assert only(loaded.notes, "4 groups in 24 training images")
  # Without a group of its own the whole match counts.
  assert np.array_equal(
    load(str(tmp_path), group_by=r"w\d").groups, loaded.groups
  )
  few = load(str(tmp_path), group_by=r"w[01]")
  assert len(set(few.groups)) == 2 + 12
  assert "not found in 12 files" in few.notes[1]
  both = load(str(tmp_path), group_by=r"\d\.png")
  assert "warning: 6 groups have images in train and test" in both.notes[1]
  refused(tmp_path, "--group-by", "found in no file name", group_by="zzz")
  refused(tmp_path, "--group-by", "no regular expression", group_by="(")


def test_groups_by_file_name_need_files(tmp_path):
  path = save(tmp_path / "a.npz", make(9))
  for source in (path, "digits"):
    refused(source, "--group-by", "group_train", group_by=".")
