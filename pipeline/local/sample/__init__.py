"""Sample data for the local BigQuery: tables, changes, and the syncs that read them."""
