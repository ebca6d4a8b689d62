"""Columns to payloads, vectorized: Arrow kernels in, one joined buffer of JSON out. No I/O."""
