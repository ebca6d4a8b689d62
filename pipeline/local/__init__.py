"""A BigQuery and a Customer.io on this machine, for the demo, the tests and the benchmarks.

Nothing of the engine imports this package. It needs the extra `[local]` (DuckDB and sqlglot).
"""
