"""Where rows come from: query jobs and read streams of BigQuery, and files. Knows no calls."""
