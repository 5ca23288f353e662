"""The strict reader."""

import pytest

from nasjax import reader, strict_yaml
from nasjax.errors import InputError, nearest, one_line


@pytest.mark.parametrize(
  "text", ["nan", "-inf", ".inf", "1e999", "1_0", "0,5", "0x1", "٣", "", "1 2"]
)
def test_words_that_are_no_finite_number(text):
  with pytest.raises(InputError, match="here: .*number"):
    reader.number(text, "here")


@pytest.mark.parametrize("value", [True, None, [], float("nan"), 10**400])
def test_values_that_are_no_finite_number(value):
  with pytest.raises(InputError, match="number"):
    reader.number(value, "here")


def test_numbers_have_a_range():
  assert reader.number(" 1e3 ", "here", low=1000, high=1000) == 1000.0
  with pytest.raises(InputError, match="below 2"):
    reader.number("1", "here", low=2)
  with pytest.raises(InputError, match="at most 2"):
    reader.number("3", "here", high=2)


def test_whole_numbers_are_exact():
  big = 2**53 + 1
  assert reader.whole(str(big), "here") == reader.whole(big, "here") == big
  assert reader.whole("1e3", "here") == 1000
  for text in ("1.5", "1e300"):
    with pytest.raises(InputError, match="whole|exact"):
      reader.whole(text, "here")


@pytest.mark.parametrize(
  "text, said",
  [
    ("1e999", "not a finite"),
    ("[1, -1e999]", "not a finite"),
    ("[NaN]", "not a finite"),
    ("9" * 30, "too large"),
    ("9" * 5000, "too large"),
    ('{"a": 1, "a": 2}', "twice"),
    ('["\\u001b[2J"]', "control"),
    ('{"\\ud800": 1}', "control"),
    ("[" * 65, "64 deep"),
  ],
)
def test_json_refusals(text, said):
  with pytest.raises(InputError, match=said):
    reader.parse_json(text, "a.json")


def test_many_keys_and_columns_take_no_square_of_time(tmp_path):
  keys = ",".join(f'"{i}":{i}' for i in range(200_000))
  assert len(reader.parse_json("{" + keys + "}", "a.json")) == 200_000
  columns = ",".join(f"c{i}" for i in range(200_000))
  path = tmp_path / "t.csv"
  path.write_text(f"{columns}\n{columns}\n")
  assert len(reader.read_csv(path).columns) == 200_000


def test_yaml_words_are_what_they_look_like(tmp_path):
  path = tmp_path / "a.yaml"
  path.write_text(
    "a: 10\nb: 1e5\nc: no\nd: 010\ne: true\nf: ~\ng: 1:30\nh: -.5"
  )
  values, lines = strict_yaml.read_yaml(path)
  assert values["a"] == 10 and values["b"] == 1e5 and values["h"] == -0.5
  assert values["c"] == "no" and values["d"] in ("010", 10)
  assert values["e"] is True and values["f"] is None and values["g"] == "1:30"
  assert lines["d"] == 4


def test_a_users_file_that_exits_is_an_error(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("import sys\nsys.exit(0)\n")
  with pytest.raises(InputError, match="SystemExit"):
    reader.load_part(f"{path}:mine", "--relaxation")


def test_lines_for_a_terminal():
  line = one_line("a\n\x1b[31m\udcff " + "x" * 1000)
  assert len(line) == 400 and line.isprintable() and "\\x1b" in line
  error = InputError("/" + "d" * 5000, "is wrong", "mend it")
  assert str(error).endswith("is wrong; mend it") and len(str(error)) < 200
  many = nearest("zzz", [f"name{i}" for i in range(1000)])
  assert many.endswith("...") and len(many) < 200
