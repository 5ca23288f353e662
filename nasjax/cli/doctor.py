"""`nasjax doctor`: versions, devices, caches, data found."""

from __future__ import annotations

import os

import jax
from rich.console import Console
from rich.table import Table

from nasjax import data, errors, hardware, run_folder
from nasjax.errors import InputError


def run() -> int:
  """Prints what this machine offers."""
  table = Table("what", "found", title="nasjax doctor")
  found = run_folder.environment()
  for name, version in found["versions"].items():
    table.add_row(name, version)
  table.add_row("python", found["python"])
  table.add_row("system", f"{found['system']}, {found['cores']} cores")
  table.add_row(
    "JAX devices", ", ".join(f"{d.platform} {d.id}" for d in jax.devices())
  )
  on = jax.config.jax_enable_compilation_cache
  cache = jax.config.jax_compilation_cache_dir if on else None
  table.add_row("compilation cache", cache or "off")
  table.add_row("device tables", ", ".join(hardware.device_names()))
  for source in ("digits", "fashion-mnist"):
    try:
      dataset = data.load(source)
      shape = "x".join(str(n) for n in data.shape(dataset.train))
      said = f"{len(dataset.train.labels)} images of {shape}"
    except InputError as error:
      said = str(error)
    table.add_row(f"data {source}", said)
  table.add_row("working folder", os.getcwd())
  Console().print(table)
  return errors.DONE
