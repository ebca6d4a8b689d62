"""`python -m pipeline.metrics`: prints docs/metrics.md."""

from __future__ import annotations

import sys

from pipeline.metrics.document import document

sys.stdout.write(document())
