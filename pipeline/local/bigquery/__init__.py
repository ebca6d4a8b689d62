"""A BigQuery on this machine: REST jobs and the Storage Read API over DuckDB.

types      BigQuery's types, and their forms in DuckDB, Arrow and REST; arrow moves the data
sql        a script -> statements; analysis types and judges them; rewrite makes DuckDB's SQL
           of them, node by node in expressions and bignumeric, with macros
plan       what a statement will do: ddl, dml, coerce; execute runs it
catalog    datasets and tables; warehouse their rows
jobs       query jobs; rest, resources, rows their HTTP and JSON
read_api   the Storage Read API; sessions, messages, wire; memory holds ready-made tables
server     all of it in one process
"""
