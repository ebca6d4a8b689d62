"""The retl.yml that `retl init` writes: commented, and valid once its variables are set."""

from __future__ import annotations

EXAMPLE = """\
# Configuration of retl: which rows of BigQuery go where, and as what.
# `retl validate` checks it, `retl preview users` shows what would be sent,
# `retl run users` sends it. Every key: docs/configuration.md, or `retl schema` for your editor.
#
# ${NAME} reads an environment variable, ${file:PATH} the text of a file; $$ is a plain $.

version: 1

sources:
  warehouse:
    type: bigquery
    project: ${BIGQUERY_PROJECT}        # the project that runs and pays for the queries
    # location: US                      # left out: found from the tables
    # A service account's key. Left out: Application Default Credentials, which is what
    # `gcloud auth application-default login` and Workload Identity give.
    # credentials: ${file:/secrets/bigquery.json}
    maximum_bytes_billed: 50GB          # a query that would scan more is refused

destinations:
  customerio:
    type: customerio
    region: us                          # us or eu
    api_key: ${CUSTOMERIO_API_KEY}      # Integrations > your Data Pipelines source > API key

syncs:
  # People: every row updates one person. `userId` is who; other columns become attributes.
  users:
    description: People and their plan
    tags: [people]
    source: warehouse
    call: identify
    destinations: [customerio]
    # {{last_sync_time}} is when the last completed run's query started, in Unix seconds, and 0
    # at first: so a run moves only what has changed since.
    query: |
      SELECT id AS userId, email, first_name, plan, created_at
      FROM app.users
      WHERE UNIX_SECONDS(updated_at) >= {{last_sync_time}}

  # Events: every row is something that a person did.
  orders:
    description: Completed orders
    tags: [events]
    source: warehouse
    call: track
    destinations: [customerio]
    lookback: 5m                        # for rows that arrive late
    max_rejected: 1%                    # stop when more than that can't be delivered
    # query_file: queries/orders.sql    # instead of `query`
    query: |
      SELECT user_id AS userId, 'Order Completed' AS event, completed_at AS timestamp,
             order_id, total, currency
      FROM app.orders
      WHERE completed_at >= {{last_sync_timestamp}}

send:
  concurrency: adaptive                 # or a number of requests in flight; RETL_CONCURRENCY=16
  rate_limit:
    requests_per_second: 1000           # what Customer.io allows; or RETL_RATE_LIMIT=1000

# What has been moved so far, and the rows that could not be. Keep it on a disk that lasts.
state: sqlite:///.retl/state.db
"""
