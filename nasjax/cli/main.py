"""`nasjax`: parses, calls a command, and turns errors into one line."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

from nasjax import errors, signals
from nasjax.cli import config as configs
from nasjax.cli import hw_config
from nasjax.cli import parser as parsers
from nasjax.cli.retrain_config import RetrainConfig
from nasjax.errors import InputError, NumbersError, one_line
from nasjax.lock import InUseError
from nasjax.signals import Stopped


def _parser() -> parsers.Parser:
  parser = parsers.Parser(
    prog="nasjax",
    description="Searches neural networks that run well on an edge device.",
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(
    dest="command", metavar="COMMAND", parser_class=parsers.Parser
  )
  search = commands.add_parser(
    "search",
    help="search an architecture for your images and device",
    description="Searches an architecture; without arguments the default run.",
    allow_abbrev=False,
  )
  search.add_argument(
    "--config", metavar="RUN.yaml", help="read these options; flags override"
  )
  configs.add_flags(search, configs.SearchConfig)
  search.add_argument(
    "--force", action="store_true", help="replace the run in --out"
  )
  show = commands.add_parser(
    "show", help="print a decided architecture", allow_abbrev=False
  )
  show.add_argument(
    "what",
    metavar="PATH-or-STRING",
    help="a run folder, a genotype.json, a NAS-Bench-201 string or a DARTS"
    " genotype",
  )
  show.add_argument(
    "--format",
    default="table",
    help="nasbench201, darts, json or table (default)",
  )
  doctor = commands.add_parser(
    "doctor",
    help="print versions, devices, caches, data found",
    allow_abbrev=False,
  )
  hw = commands.add_parser(
    "hw",
    help="describe a device: profiles and latency tables",
    allow_abbrev=False,
  )
  tools = hw.add_subparsers(
    dest="tool", metavar="TOOL", parser_class=parsers.Parser, required=True
  )
  measure = tools.add_parser(
    "measure",
    help="time every workload of a space on this machine",
    allow_abbrev=False,
  )
  configs.add_flags(measure, hw_config.MeasureConfig)
  fit = tools.add_parser(
    "fit",
    help="fit a table of choices to measured networks",
    allow_abbrev=False,
  )
  configs.add_flags(fit, hw_config.FitConfig)
  listed = tools.add_parser(
    "list", help="the devices that nasjax comes with", allow_abbrev=False
  )
  shown = tools.add_parser(
    "show", help="what is known of a device, with units", allow_abbrev=False
  )
  shown.add_argument(
    "name", metavar="DEVICE", help="a name, TABLE.csv or PROFILE.toml"
  )
  for command in (listed, shown):
    command.add_argument(
      "--debug", action="store_true", help="show a traceback with an error"
    )
  bundle = tools.add_parser(
    "bundle",
    help="write ONNX files and a script that times them on the device",
    allow_abbrev=False,
  )
  configs.add_flags(bundle, hw_config.BundleConfig)
  take = tools.add_parser(
    "import",
    help="make a table of what a bundle's script measured",
    allow_abbrev=False,
  )
  take.add_argument("path", metavar="CSV", help="the script's results.csv")
  configs.add_flags(take, hw_config.ImportConfig)
  covering = tools.add_parser(
    "coverage",
    help="print which workloads of a space a table knows",
    allow_abbrev=False,
  )
  configs.add_flags(covering, hw_config.CoverageConfig)
  timing = tools.add_parser(
    "time",
    help="measure one decided network with a program of your own",
    allow_abbrev=False,
  )
  timing.add_argument(
    "path", metavar="PATH", help="a run folder or a genotype.json"
  )
  configs.add_flags(timing, hw_config.TimeConfig)
  scheduling = tools.add_parser(
    "schedule",
    help="print in which order a decided network needs the least memory",
    allow_abbrev=False,
  )
  scheduling.add_argument(
    "path", metavar="PATH", help="a run folder or a genotype.json"
  )
  configs.add_flags(scheduling, hw_config.ScheduleConfig)
  resume = commands.add_parser(
    "resume",
    help="go on with a search that was stopped",
    description="Goes on with a search from its newest sound checkpoint.",
    allow_abbrev=False,
  )
  resume.add_argument("run", metavar="RUN", help="a run folder")
  resume.add_argument(
    "--allow-changed",
    action="store_true",
    help="also with another configuration, space, table or data",
  )
  resume.add_argument(
    "--data", metavar="PATH", help="where the run's data was moved to"
  )
  retrain = commands.add_parser(
    "retrain",
    help="train a decided architecture alone and test it",
    description="Trains what a run decided, on all training images, and scores"
    " it on the test images. A stopped one goes on when started again.",
    allow_abbrev=False,
  )
  retrain.add_argument("run", metavar="RUN", help="a finished run folder")
  configs.add_flags(retrain, RetrainConfig)
  retrain.add_argument(
    "--force", action="store_true", help="begin anew in --out"
  )
  checkpoint = commands.add_parser(
    "checkpoint", help="look at a run's checkpoints", allow_abbrev=False
  )
  looks = checkpoint.add_subparsers(
    dest="look", metavar="WHAT", parser_class=parsers.Parser, required=True
  )
  listing = looks.add_parser(
    "list", help="print step and digest of each", allow_abbrev=False
  )
  verify = looks.add_parser(
    "verify", help="the same, all read and recomputed", allow_abbrev=False
  )
  for command in (listing, verify):
    command.add_argument("run", metavar="RUN", help="a run folder")
  for command in (search, resume, retrain, doctor, measure, fit, bundle):
    command.add_argument(
      "--no-compilation-cache",
      action="store_true",
      help="neither use nor keep compiled programs of earlier runs",
    )
  hardware = (measure, fit, bundle, take, covering, timing, scheduling)
  looking = (show, doctor, listing, verify)
  for command in (search, resume, retrain, *looking, *hardware):
    command.add_argument(
      "--debug", action="store_true", help="show a traceback with an error"
    )
  return parser


def _subparser(parser, words):
  """The parser of the command that `words` name, for its flags."""
  for action in parser._actions:
    if (
      isinstance(action.choices, dict) and words and words[0] in action.choices
    ):
      return _subparser(action.choices[words[0]], words[1:])
  return parser


def _check_command(parser, argv):
  for action in parser._actions:
    if isinstance(action.choices, dict) and argv:
      if not argv[0].startswith("-") and argv[0] not in action.choices:
        raise InputError(
          "command line",
          f"unknown command {argv[0]!r}",
          errors.nearest(argv[0], action.choices),
        )
      if argv[0] in action.choices:
        _check_command(action.choices[argv[0]], argv[1:])


def _run(argv: Sequence[str]) -> int:
  parser = _parser()
  _check_command(parser, argv)
  arguments, unknown = parser.parse_known_args(argv)
  parsers.check_known_flags(_subparser(parser, argv), unknown)
  if arguments.command is None:
    parser.print_help()
    return errors.DONE
  # Imported late: --help and a wrong flag need no JAX.
  if "no_compilation_cache" in arguments:
    from nasjax.cli import backend, cache

    cache.configure(not arguments.no_compilation_cache)
    backend.start()
  if arguments.command == "search":
    from nasjax.cli import reuse, search

    if "from_" in arguments:
      if arguments.config is not None:
        raise InputError("--config", "--from brings its own", "leave one out")
      config = reuse.config(vars(arguments))
    else:
      config = configs.from_flags(
        configs.SearchConfig, vars(arguments), arguments.config
      )
      config = _found_anew(config, vars(arguments))
    return search.run(config, force=arguments.force)
  if arguments.command == "resume":
    from nasjax.cli import resume

    return resume.run(
      arguments.run,
      allow_changed=arguments.allow_changed,
      data=arguments.data,
    )
  if arguments.command == "retrain":
    from nasjax.cli import retraining

    made = configs.from_flags(RetrainConfig, vars(arguments))
    return retraining.run(arguments.run, made, force=arguments.force)
  if arguments.command == "checkpoint":
    from nasjax.cli import resume

    return resume.show(arguments.run, recompute=arguments.look == "verify")
  if arguments.command == "show":
    from nasjax.cli import show

    return show.run(arguments.what, arguments.format)
  if arguments.command == "doctor":
    from nasjax.cli import doctor

    return doctor.run()
  return _hardware(arguments)


def _found_anew(config, flags):
  """A file's configuration without what another seed or data makes void."""
  if "seed" in flags and "split_seed" not in flags:
    config = dataclasses.replace(config, split_seed=None)
  if "data" in flags and "background" not in flags:
    config = dataclasses.replace(config, background=None)
  return config


def _hardware(arguments) -> int:
  from nasjax.cli import devices, fit, hw, hw_use

  flags = vars(arguments)
  if arguments.tool == "list":
    return devices.listed()
  if arguments.tool == "show":
    return devices.show(arguments.name)
  if arguments.tool == "fit":
    return fit.run(configs.from_flags(hw_config.FitConfig, flags))
  if arguments.tool == "bundle":
    return hw.bundle(configs.from_flags(hw_config.BundleConfig, flags))
  if arguments.tool == "import":
    made = configs.from_flags(hw_config.ImportConfig, flags)
    return hw.take(arguments.path, made)
  if arguments.tool == "coverage":
    return hw_use.coverage(configs.from_flags(hw_config.CoverageConfig, flags))
  if arguments.tool == "time":
    made = configs.from_flags(hw_config.TimeConfig, flags)
    return hw_use.time_network(arguments.path, made)
  if arguments.tool == "schedule":
    made = configs.from_flags(hw_config.ScheduleConfig, flags)
    return hw_use.schedule(arguments.path, made)
  return hw.measure(configs.from_flags(hw_config.MeasureConfig, flags))


def _check_text(argv):
  for number, word in enumerate(argv, start=1):
    try:
      word.encode()
    except UnicodeEncodeError:
      raise InputError(
        "command line", f"word {number}, {word[:60]!r}, is not UTF-8 text"
      ) from None


def _flush():
  """Flushes the output; one that is gone or full fails here, not at exit."""
  if sys.stdout is None:  # closed by whoever started us
    return
  try:
    sys.stdout.flush()
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command.

  Args:
    argv: words after `nasjax`; default: the process's own.

  Returns:
    The exit code, see `nasjax.errors`.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    _check_text(argv)
    code = _run(argv)
    _flush()
    return code
  except Stopped as stopped:
    print(one_line(str(stopped)), file=sys.stderr)
    return stopped.code
  except (InputError, NumbersError, InUseError, OSError) as error:
    if "--debug" in argv:
      raise
    if isinstance(error, BrokenPipeError):
      return 141
    print(one_line(f"error: {error}"), file=sys.stderr)
    if isinstance(error, InputError):
      return errors.BAD_INPUT
    if isinstance(error, NumbersError):
      return errors.NUMBERS
    if isinstance(error, InUseError):
      return errors.IN_USE
    return errors.STORAGE
  except SystemExit as stopped:
    # argparse printed its help, or rich met a reader that has gone.
    if isinstance(stopped.__context__, BrokenPipeError):
      return 141
    try:
      _flush()
    except BrokenPipeError:
      return 141
    raise
  except KeyboardInterrupt:
    print("error: interrupted", file=sys.stderr)
    return 130


def program() -> int:
  """`main` for a process of its own, whose end nothing interrupts.

  Its work is done then, and shutting down the interpreter with JAX takes a
  while: a signal would only kill it, or print a traceback.
  """
  ending = signals.Ending()
  code = main()
  ending.ignore()
  return code


if __name__ == "__main__":
  sys.exit(program())
