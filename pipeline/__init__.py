"""bigquery-reverse-etl: rows out of BigQuery into Customer.io, fast, and none of them lost."""
