"""What `nasjax search` prints: tables and progress."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import data
from nasjax.cli import hints, low_bits, populations
from nasjax.spaces import costs as cost_tables

_CLASSES = 20  # whose names are printed
_LINES = 20  # of progress, where there is no terminal
_COUNTS = ("params", "macs", "flops")


def _number(value: float) -> str:
  if np.isnan(value):
    return "?"
  return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _range(values) -> str:
  """A number, or the range of a front's."""
  values = np.asarray(values, np.float64)
  if values.ndim == 0 or values.min() == values.max():
    return f"{values.max():.4g}"
  return f"{values.min():.4g}..{values.max():.4g}"


def show_problem(problem) -> None:
  """The table before the search: what the space and the limits are like."""
  config, console = problem.config, Console()
  shape = "x".join(str(n) for n in data.shape(problem.train))
  size = sum(np.prod(np.shape(m)[0]) for m in problem.space.masks.values())
  how = f"{config.relaxation}, {config.hypergradient}"
  if config.strategy != "differentiable":
    how = config.strategy
  if config.strategy == "hybrid":
    how += f" after {config.relaxation}, {config.hypergradient}"
  elif config.strategy in populations.STRATEGIES:
    how += " after single paths"
  console.print(
    f"[bold]{escape(problem.space.name)}[/bold] on"
    f" {escape(problem.dataset.name)}"
    f" ({len(problem.train.labels)} + {len(problem.valid.labels)} images of"
    f" {shape}), {int(size)} choices; {how}, {config.epochs} epochs of"
    f" {problem.steps // config.epochs} steps",
    highlight=False,
  )
  console.print(
    f"augmentation: {config.augment}; networks are scored on"
    f" {problem.scored} of {len(problem.valid.labels)} validation images",
    highlight=False,
  )
  table = Table("metric", title="the space, over random architectures")
  for name in ("minimum", "median", "maximum", "limit", "share within"):
    table.add_column(name, justify="right")
  limits = {m.name: bound for m, bound in problem.limits}
  for name, costs in problem.costs.items():
    unit = problem.metrics[name].unit
    low, high = costs.extremes(problem.space.masks)
    values = problem.random_values(name)
    if not isinstance(costs, cost_tables.AdditiveCosts):
      # Its extremes need every network.
      low, high = float(values.min()), float(values.max())
    bound = limits.get(name)
    table.add_row(
      name + (f" ({unit})" if unit else ""),
      _number(low),
      _number(float(np.median(values))),
      _number(high),
      "" if bound is None else _number(bound),
      "" if bound is None else f"{np.mean(values <= bound):.1%}",
    )
  console.print(table)
  _show_sources(problem, console)


def show_scoring(problem, console) -> None:
  """What the accuracies are of, and what the network's outputs mean."""
  bits = low_bits.described(problem.config)
  console.print(
    f"accuracies at the supernet's weights{f' ({bits})' if bits else ''}, on"
    " validation images, with batch statistics of each network's own",
    highlight=False,
  )
  names = list(problem.config.classes)
  more = f" and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
  shown = escape(", ".join(names[:_CLASSES]))
  console.print(f"classes: {shown}{more}", highlight=False)


def _show_sources(problem, console) -> None:
  """Where the numbers come from: one line a source."""
  found: dict[str, list[str]] = {}
  for name, metric in problem.metrics.items():
    found.setdefault(metric.source, []).append(name)
  for source, names in found.items():
    console.print(f"{', '.join(names)}: {escape(source)}", highlight=False)


class Progress:
  """A bar on a terminal, one line an epoch elsewhere."""

  def __init__(self, problem, *, done: int = 0):
    """Starts it for `problem`, of which `done` steps were run before."""
    self._done = done
    self._problem = problem
    self._terminal = sys.stdout.isatty()
    self._start = time.monotonic()
    self._bar = bars.Progress(
      bars.TextColumn("{task.description}"),
      bars.BarColumn(),
      bars.TaskProgressColumn(),
      bars.TimeRemainingColumn(),
      disable=not self._terminal,
    )
    self._task = None

  def __enter__(self):
    """Shows the bar."""
    self._bar.__enter__()
    self._task = self._bar.add_task("compiling", total=None)
    return self

  def __exit__(self, *exception):
    """Leaves the bar as it is."""
    self._bar.__exit__(*exception)

  def _text(self, number, info) -> str:
    config = self._problem.config
    members = self._problem.members
    cost = "".join(
      f"  {m.name} {_range(info.costs[m.name])}"
      f"/{_range([own[i][1] for own in members] or bound)} {m.unit}"
      for i, (m, bound) in enumerate(self._problem.limits)
      if m.name in info.costs
    )
    return (
      f"epoch {number}/{config.epochs}  loss {float(info.train_loss):.3f}"
      f"  accuracy {float(info.train_accuracy):.3f}{cost}"
    )

  def update(self, epoch: int, steps: int, total: int, info) -> None:
    """Called after each compiled chunk."""
    epochs = self._problem.config.epochs
    self._bar.update(
      self._task,
      total=epochs * total,
      completed=(epoch - 1) * total + steps,
      description=self._text(epoch, info),
    )

  def epoch_done(self, epoch) -> None:
    """Called at an epoch's end."""
    epochs = self._problem.config.epochs
    every = -(-epochs // _LINES)
    if self._terminal or (epoch.number % every and epoch.number != epochs):
      return
    taken = time.monotonic() - self._start
    steps = self._problem.steps // epochs
    ran = epoch.number - self._done / steps
    left = taken / ran * (epochs - epoch.number)
    print(
      f"{self._text(epoch.number, epoch.info)}  {left:.0f} s left", flush=True
    )

  def log(self, text: str) -> None:
    """Prints a line of the log; a terminal has the bar instead."""
    if not self._terminal:
      print(text, flush=True)

  def say(self, text: str) -> None:
    """Prints a line above the bar."""
    self._bar.console.print(text, highlight=False)


def show_decision(problem, columns, expected, folder: Path) -> None:
  """The table at the end, and the warning where the result collapsed.

  Args:
    problem: what was searched.
    columns: (title, architecture, accuracy) each; the first was decided.
    expected: each metric before deciding, or None.
    folder: of the run.
  """
  console = Console()
  decided = columns[0][1]
  table = Table("", title="decided architecture")
  for title, _, _ in columns:
    table.add_column(title)
  names = [architecture.names() for _, architecture, _ in columns]
  for group in names[0]:
    for edge in range(len(names[0][group])):
      cells = [own[group][edge] for own in names]
      table.add_row(f"{group}[{edge}]", *cells)
  table.add_section()
  limits = {m.name: bound for m, bound in problem.limits}
  for name, metric in problem.metrics.items():
    label = name + (f" ({metric.unit})" if metric.unit else "")
    if expected and (name in limits or name not in _COUNTS):
      table.add_row(f"{label}, expected", _number(expected[name]))
    table.add_row(
      f"{label}, decided" if name not in _COUNTS else label,
      *(_number(metric.exact(one)) for _, one, _ in columns),
    )
    if name in limits:
      cells = [_number(limits[name])] * len(columns)
      table.add_row(f"{label}, limit", *cells)
  table.add_row("validation accuracy", *(f"{a:.4f}" for *_, a in columns))
  console.print(table)
  _show_sources(problem, console)
  show_scoring(problem, console)
  if said := hints.collapse(problem, decided):
    console.print(f"[bold red]warning:[/] {escape(said)}", highlight=False)
  for line in hints.unfilled(problem, decided, problem.limits):
    console.print(f"note: {escape(line)}", highlight=False)
  console.print(f"written to {escape(str(folder))}", highlight=False)
