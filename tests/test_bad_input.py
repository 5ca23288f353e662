"""A short run of the fault runs' malformed inputs and fuzz."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from fault_runs import bad_input, cases, fuzz  # noqa: E402

QUICK = [
  c
  for c in bad_input.all_cases()
  if not c.process and c.group not in ("user parts",)
]


def test_there_are_enough_distinct_cases():
  every = bad_input.all_cases()
  assert len({(c.group, c.name) for c in every}) == len(every) >= 195


@pytest.mark.parametrize("group", sorted({c.group for c in QUICK}))
def test_malformed_inputs_behave_as_stated(group, tmp_path):
  wrong = {}
  for number, case in enumerate(c for c in QUICK if c.group == group):
    folder = tmp_path / str(number)
    folder.mkdir()
    if problem := cases.run_case(case, folder):
      wrong[case.name[:60]] = problem
  assert not wrong


@pytest.mark.slow
def test_every_malformed_input_and_the_whole_fuzz():
  assert bad_input.run(10_000) == 0


def test_a_short_fuzz(tmp_path):
  counts, wrong = fuzz.run(600, tmp_path, seed=1)
  assert not wrong
  assert all(read and refused for _, read, refused, _ in counts.values())


def test_the_judge_sees_what_is_wrong():
  case = cases.Case("g", "n", lambda f: [], "said")
  assert not cases.judge(case, 2, "error: said\n")
  for code, error in (
    (1, "error: said\n"),
    ("traceback: ValueError", ""),
    (2, "error: said\nmore\n"),
    (2, "error: said" + "x" * 400 + "\n"),
    (2, "error: said\x1b\n"),
    (2, "error: other\n"),
    (2, "error: said"),
  ):
    assert cases.judge(case, code, error)
