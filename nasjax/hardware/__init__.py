"""What a network costs: workloads, tables, devices."""

from nasjax.hardware.closing import closed
from nasjax.hardware.device import (
  METRICS,
  Device,
  device,
  device_names,
)
from nasjax.hardware.workload import (
  SpaceWorkloads,
  Workload,
  additive_metric,
  flops,
  macs,
  params,
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
  "flops",
  "macs",
  "params",
]
