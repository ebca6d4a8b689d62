"""Batches to Deliveries: permits, pacing, one post, a verdict, retries. Knows no source."""
