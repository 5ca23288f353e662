"""`nasjax retrain`: a decided network, trained alone and tested."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import (
  checkpoint,
  data,
  errors,
  lock,
  run_folder,
  signals,
  training,
)
from nasjax.cli import config as configs
from nasjax.cli import fingerprint, low_bits, own_spaces, parts, paths, reuse
from nasjax.cli.config import SearchConfig
from nasjax.cli.retrain_config import RetrainConfig
from nasjax.errors import InputError, NumbersError, one_line

_CLASSES = 20  # whose accuracy is printed


def run(run: str, config: RetrainConfig, *, force: bool = False) -> int:
  """Trains what a run decided and writes a folder of its own.

  `metrics.csv` has a row an epoch, `retrained.json` the accuracies and
  `checkpoints/` the weights. Started again it goes on where it was stopped.

  Args:
    run: a finished run folder, or RUN/members/N.
    config: how it is trained; what is open is as the run had it.
    force: begin anew, whatever is in the folder.

  Returns:
    The exit code.

  Raises:
    InputError: no finished run, options that cannot be, or a folder of
      another training.
    NumbersError: the training met a number that is not finite.
  """
  source, base = _source(run, config.member)
  run = str(base)
  searched = configs.from_flags(
    SearchConfig, {}, str(reuse.config_path(run, ""))
  )
  config = low_bits.of_the_run(config, searched)
  if config.inherit:
    reuse.check_row_order(searched, run)
  decided, _ = own_spaces.read_genotype(source)
  if config.data is not None:
    moved = dataclasses.replace(searched, data=config.data)
    searched = paths.absolute(moved)
  dataset = parts.dataset(searched)
  _check_data(run, searched, dataset, moved=config.data is not None)
  train = data.everything(dataset)
  shape = decided.space.arguments["image_shape"]
  if tuple(data.shape(dataset.train)) != tuple(shape):
    raise InputError(
      run, f"was searched on images of {shape}, these are another data set"
    )
  augmentation = parts.augmentation(config.augment, dataset)
  recipe = training.Recipe(
    config.epochs,
    config.batch_size,
    config.learning_rate,
    label_smoothing=config.label_smoothing,
    drop_path=config.drop_path,
    augmentation=augmentation,
    auxiliary=config.auxiliary,
    low_bits=parts.low_bits(config),
  )
  size = len(train.labels)
  if config.batch_size > size:
    raise InputError(
      "--batch-size", f"{config.batch_size} is over the {size} training images"
    )
  out = source / run_folder.AGAIN if config.out is None else Path(config.out)
  options = dataclasses.asdict(config)
  # Where they lie changes nothing, and the genotype says what is trained.
  del options["out"], options["data"], options["member"]
  known = {
    "fixed": {
      **{f"option {name}": value for name, value in options.items()},
      "genotype": fingerprint.sha256(
        (source / run_folder.GENOTYPE).read_bytes()
      ),
      "data": fingerprint.sha256(*train),
    },
    "machine": {},
  }
  going_on = bool(checkpoint.steps(out / checkpoint.FOLDER)) and not force
  folder = run_folder.create(out, force=force or going_on)
  with signals.caught() as stop, lock.hold(folder):
    if not going_on:
      run_folder.clear(folder)
      checkpoint.remove_all(folder / checkpoint.FOLDER)
    for note in dataset.notes:
      print(note)
    print(
      f"{size} training images, augmentation:"
      f" {data.augmentation_text(augmentation)}",
      flush=True,
    )
    if bits := low_bits.described(config):
      print(f"weights: {bits}", flush=True)
    state = _train(base, decided, recipe, train, config, folder, known, stop)
    _finish(decided, config, state, dataset, train, folder)
  return errors.DONE


def _source(run: str, member: int | None) -> tuple[Path, Path]:
  """(the folder that holds the genotype, that of the run).

  Raises:
    InputError: no finished run, or no such member of its front.
  """
  source = base = Path(run)
  if source.parent.name == run_folder.MEMBERS:
    base = source.parent.parent
    if member is not None:
      raise InputError("--member", f"{run} is a member already", "leave it out")
  elif member is not None:
    source = base / run_folder.MEMBERS / str(member)
  if not (base / run_folder.GENOTYPE).is_file():
    raise InputError(run, f"is no finished run: no {run_folder.GENOTYPE}")
  if not (source / run_folder.GENOTYPE).is_file():
    found = sorted(
      (p.name for p in (base / run_folder.MEMBERS).glob("[0-9]*")), key=int
    )
    has = f"it has {', '.join(found)}" if found else "it has no front"
    raise InputError(f"{base}", f"has no member {source.name}: {has}")
  return source, base


def _check_data(run, searched, dataset, *, moved: bool) -> None:
  """Refuses data that is not the run's, where that is known.

  Raises:
    InputError: other classes, or --data with other images.
  """
  if searched.data_digest is None:
    return
  if searched.classes != parts.classes(dataset):
    raise InputError(
      run,
      f"was searched on the classes {', '.join(searched.classes)[:80]}, this"
      f" data has {', '.join(parts.classes(dataset))[:80]}",
    )
  if searched.data_digest != fingerprint.of_data(dataset):
    if moved:
      raise InputError(
        f"--data {searched.data}", f"holds other images than {run} was made of"
      )
    print(
      f"warning: {searched.data}: the images are no longer those that {run}"
      " was searched on",
      file=sys.stderr,
    )


def after_search(folder: Path, searched: SearchConfig) -> int:
  """Retrains what a search decided, if its --retrain says so; once.

  Args:
    folder: of the finished search.
    searched: its options, none of them open.

  Returns:
    The exit code.
  """
  done = folder / run_folder.AGAIN / run_folder.RETRAINED
  if searched.retrain is None or done.is_file():
    return errors.DONE
  config = RetrainConfig(
    epochs=searched.retrain,
    batch_size=searched.batch_size,
    augment=searched.augment,
    seed=searched.seed,
  )  # the bits of its weights are the run's
  return run(str(folder), config)


def forget(folder: Path) -> None:
  """Removes what an earlier run in the folder, or its front, was trained to."""
  for own in (folder, *(folder / run_folder.MEMBERS).glob("[0-9]*")):
    again = own / run_folder.AGAIN
    if again.is_dir():
      run_folder.clear(again)
      checkpoint.remove_all(again / checkpoint.FOLDER)


def _train(source, decided, recipe, train, config, folder, known, stop):
  key = jax.random.key(config.seed)
  variables = None
  if config.inherit:
    variables = decided.space.extract(reuse.variables(str(source)), decided)
  size = len(train.labels)

  def begin(key):
    return training.begin(key, decided, recipe, size, variables)

  state, rows = _restored(folder, known, jax.eval_shape(begin, key))
  if state is None:
    state = jax.jit(begin)(key)
  for epoch in training.epochs(
    decided, recipe, train, state, key=jax.random.fold_in(key, 1)
  ):
    if not epoch.finite:
      raise NumbersError(
        f"epoch {epoch.number}: the loss or a weight is not finite; lower"
        " --learning-rate"
      )
    state = epoch.state
    if epoch.number == recipe.epochs:
      # What is kept is the network as it computes.
      state = training.finished(state, recipe)
    rows.append(
      {
        "epoch": epoch.number,
        "train_loss": repr(epoch.loss),
        "train_accuracy": repr(epoch.accuracy),
      }
    )
    run_folder.write_atomic(
      folder / run_folder.METRICS, run_folder.csv_text(list(rows[0]), rows)
    )
    checkpoint.save(folder / checkpoint.FOLDER, epoch.number, state, known)
    print(
      f"epoch {epoch.number}/{recipe.epochs}  loss {epoch.loss:.3f}  accuracy"
      f" {epoch.accuracy:.3f}",
      flush=True,
    )
    stop.check()
  return state


def _restored(folder: Path, known, target: Any):
  """(state, rows) of the newest sound checkpoint; (None, []) without one."""
  saved = checkpoint.newest(
    folder / checkpoint.FOLDER,
    lambda text: print(one_line(text), file=sys.stderr, flush=True),
  )
  if saved is None:
    return None, []
  where = f"{folder}/{checkpoint.FOLDER}/{saved.step}"
  changed = fingerprint.changed(saved.manifest.fingerprint, known, "fixed")
  if changed:
    raise InputError(
      where,
      f"was made with another {', '.join(changed)}",
      "name another --out, or begin anew with --force",
    )
  rows = run_folder.read_rows(folder / run_folder.METRICS, saved.step)
  print(f"RESUMED {saved.step}", flush=True)
  state = checkpoint.fit(saved, target, where)
  return jax.tree.map(jnp.asarray, state), rows


def _finish(decided, config, state, dataset, train, folder: Path) -> None:
  statistics, variables = data.statistics(train), state.variables
  found: dict[str, Any] = {
    "train_accuracy": training.accuracy(decided, variables, train, statistics)
  }
  if config.quantize_bits is not None:
    found["weight_bits"] = config.quantize_bits
    found["weight_scale"] = config.quantize_scale
  if dataset.test is not None:
    shares = training.class_accuracies(
      decided, variables, dataset.test, statistics
    )
    counts = np.bincount(dataset.test.labels, minlength=len(shares))
    hits = np.nansum(shares * counts)
    found["test_accuracy"] = float(hits / counts.sum())
    found["per_class"] = {
      name: None if np.isnan(share) else float(share)
      for name, share in zip(parts.classes(dataset), shares, strict=True)
    }
  run_folder.write_atomic(
    folder / run_folder.RETRAINED, run_folder.json_text(found)
  )
  bits = low_bits.described(config)
  for name in ("train_accuracy", "test_accuracy"):
    if name in found:
      print(f"{name}: {found[name]:.4f}" + (f" ({bits})" if bits else ""))
  if dataset.test is None:
    print("the data has no test images")
  else:
    _show_classes(found["per_class"])
  print(f"written to {folder}\nDONE", flush=True)


def _show_classes(shares) -> None:
  """Accuracy by class on test images, the worst ones first."""
  known = {name: share for name, share in shares.items() if share is not None}
  order = sorted(known, key=known.get)
  print(f"worst class: {order[0]} {known[order[0]]:.4f}")
  for name in order[:_CLASSES]:
    print(f"  {name}: {known[name]:.4f}")
  if len(order) > _CLASSES:
    print(f"  and {len(order) - _CLASSES} more, in {run_folder.RETRAINED}")
