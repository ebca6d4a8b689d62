"""What is settled and what is kept: the Ledger, and the Store over SQL.

The Ledger is pure. The Store blocks: call it in a thread. Neither knows of sources, payloads or
destinations but by name.
"""

from pipeline.checkpoint.ledger import Ledger
from pipeline.checkpoint.store import SqlStore
from pipeline.ports import ReasonCount

__all__ = ["Ledger", "ReasonCount", "SqlStore"]
