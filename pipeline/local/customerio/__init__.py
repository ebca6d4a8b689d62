"""A Customer.io on this machine: the documented API, its silent drops, and faults on demand."""

from pipeline.local.customerio.server import serve

__all__ = ["serve"]
