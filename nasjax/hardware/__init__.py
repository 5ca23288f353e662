"""What a network costs: workloads, tables, devices."""

from nasjax.hardware.closing import closed
from nasjax.hardware.device import (
  METRICS,
  Device,
  device,
  device_names,
)
from nasjax.hardware.energy import energy_delay_product
from nasjax.hardware.workload import (
  SpaceWorkloads,
  Workload,
  additive_metric,
  flops,
  macs,
  params,
  skips,
)

__all__ = [
  "METRICS",
  "Device",
  "SpaceWorkloads",
  "Workload",
  "additive_metric",
  "closed",
  "device",
  "device_names",
  "energy_delay_product",
  "flops",
  "macs",
  "params",
  "skips",
]
