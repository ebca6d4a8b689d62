"""DuckDB macros that stand for BigQuery's functions and casts; created once per database.

Values of types that DuckDB does not have are structs with reserved field names (types.py); these
macros make them and take them apart. A null stays null.
"""

from __future__ import annotations

_NULLABLE = "CASE WHEN x IS NULL THEN NULL ELSE {} END"
_BIGNUMERIC = """struct_pack(
    "$bignumeric" := {cast}(CASE WHEN split_part(t, '.', 1) IN ('', '-', '+') THEN '0'
        ELSE split_part(t, '.', 1) END AS DECIMAL(38, 0)),
    "$fraction" := {cast}((CASE WHEN starts_with(t, '-') THEN '-0.' ELSE '0.' END)
        || (CASE WHEN split_part(t, '.', 2) = '' THEN '0' ELSE split_part(t, '.', 2) END)
        AS DECIMAL(38, 38)))"""
_TEXT = (
    "CASE WHEN contains(lower(CAST(x AS VARCHAR)), 'e') "
    "THEN CAST({cast}({cast}(x AS DOUBLE) AS DECIMAL(38, 9)) AS VARCHAR) "
    "ELSE trim(CAST(x AS VARCHAR)) END"
)
_JSON_TIME = (
    "strftime({x}, '%Y-%m-%dT%H:%M:%S') || CASE WHEN epoch_us({x}) % 1000000 = 0 THEN '' "
    "ELSE rtrim(strftime({x}, '.%f'), '0') END"
)
_RANGE_PART = "trim(split_part(trim(x, '[) '), ',', {}))"
_BOUND = "CASE WHEN upper({0}) IN ('UNBOUNDED', 'NULL') THEN NULL ELSE CAST({0} AS {1}) END"


def _macros() -> dict[str, str]:
    exact = {
        "retl_bignumeric": ("CAST", "CAST"),
        "retl_safe_bignumeric": ("TRY_CAST", "TRY_CAST"),
    }
    macros = {}
    for name, (cast, inner) in exact.items():
        body = _BIGNUMERIC.format(cast=cast).replace("(t, ", f"({_TEXT.format(cast=inner)}, ")
        macros[f"{name}(x)"] = _NULLABLE.format(body)
    macros["retl_numeric(x)"] = (
        'CAST(x."$bignumeric" AS DECIMAL(38, 9)) + CAST(x."$fraction" AS DECIMAL(38, 9))'
    )
    macros["retl_bignumeric_text(x)"] = _NULLABLE.format(
        'CASE WHEN x."$fraction" < 0 AND x."$bignumeric" = 0 THEN \'-0\' '
        'ELSE CAST(x."$bignumeric" AS VARCHAR) END '
        "|| CASE WHEN x.\"$fraction\" = 0 THEN '' ELSE "
        "rtrim(regexp_replace(CAST(x.\"$fraction\" AS VARCHAR), '^-?0?', ''), '0') END"
    )
    macros["retl_numeric_text(x)"] = (
        "CASE WHEN contains(CAST(x AS VARCHAR), '.') "
        "THEN rtrim(rtrim(CAST(x AS VARCHAR), '0'), '.') ELSE CAST(x AS VARCHAR) END"
    )
    macros["retl_float_text(x)"] = r"regexp_replace(CAST(x AS VARCHAR), '\.0$', '')"
    macros["retl_divide(x, y)"] = (
        "CASE WHEN y = 0 THEN error('division by zero: ' || CAST(x AS VARCHAR) || ' / ' "
        "|| CAST(y AS VARCHAR)) ELSE x / y END"
    )
    macros["retl_geography(x)"] = _NULLABLE.format(
        'struct_pack("$geography" := CAST(x AS VARCHAR))'
    )
    macros["retl_geography_text(x)"] = 'x."$geography"'
    macros["retl_point(x, y)"] = (
        "CASE WHEN x IS NULL OR y IS NULL THEN NULL ELSE "
        "struct_pack(\"$geography\" := 'POINT(' || "
        r"regexp_replace(CAST(CAST(x AS DOUBLE) AS VARCHAR), '\.0$', '') || ' ' || "
        r"regexp_replace(CAST(CAST(y AS DOUBLE) AS VARCHAR), '\.0$', '') || ')') END"
    )
    macros["retl_range_of(x, y)"] = 'struct_pack("$start" := x, "$end" := y)'
    macros["retl_range_start(x)"] = 'x."$start"'
    macros["retl_range_end(x)"] = 'x."$end"'
    for kind, dtype in (("date", "DATE"), ("datetime", "TIMESTAMP"), ("timestamp", "TIMESTAMPTZ")):
        start, end = (_BOUND.format(_RANGE_PART.format(part), dtype) for part in (1, 2))
        macros[f"retl_range_{kind}(x)"] = _NULLABLE.format(
            f'struct_pack("$start" := {start}, "$end" := {end})'
        )
    # DuckDB's own epoch() rounds; BigQuery goes down, also before 1970.
    macros["retl_floor(x, y)"] = "CAST((x - (((x % y) + y) % y)) // y AS BIGINT)"
    macros["retl_json_datetime(x)"] = _JSON_TIME.format(x="x")
    macros["retl_json_timestamp(x)"] = _JSON_TIME.format(x="CAST(x AS TIMESTAMP)") + " || 'Z'"
    macros["retl_json_numeric(x)"] = "CAST(retl_numeric_text(x) AS JSON)"
    macros["retl_json_bignumeric(x)"] = "CAST(retl_bignumeric_text(x) AS JSON)"
    return macros


MACROS = tuple(f"CREATE OR REPLACE MACRO {head} AS {body}" for head, body in _macros().items())
