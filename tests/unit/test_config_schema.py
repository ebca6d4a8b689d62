from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import EXAMPLE, SHORT_NAMES, Config, json_schema
from pipeline.config.base import Model
from pipeline.config.keys import models_in
from pipeline.config.reference import document

jsonschema = pytest.importorskip("jsonschema")
DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

VALID = yaml.safe_load(EXAMPLE)


def fits(path: str, value: object) -> bool:
    data: Any = copy.deepcopy(VALID)
    *above, last = path.split("/")
    node = data
    for part in above:
        node = node.setdefault(part, {})
    node[last] = value
    return bool(jsonschema.Draft202012Validator(json_schema()).is_valid(data))


def test_the_schema_is_one_and_takes_the_example() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(VALID, schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("send/concurrency", [8, "adaptive", "${N}", "1${N}"], ["8x", True, 1.5, 0, 257, "$N"]),
        ("send/rate_limit/requests_per_second", [0.5, "${N}", None], ["x", -1]),
        ("send/timeout", ["30s", 30, "${N}", "${N}s"], ["soon", -1, []]),
        ("send/buffer_bytes", ["64MB", 10**6, "${N}"], ["64 apples", 1.5]),
        ("send/compression", ["gzip", "${C}"], ["zstd", 1]),
        ("metrics/port", [9000, "${P}", None], ["x", 70_000]),
        ("syncs/users/call", ["track", "${C}"], ["tracks"]),
        ("syncs/users/max_rejected", [5, "1%", "0.5 %", "${N}", "${N}%"], ["x", -1]),
        ("syncs/users/columns", [{"a": "b", "c": None}], [["a"], {"a": 1}]),
        ("syncs/users/nonsense", [], [1]),
        ("syncs/Users", [], [VALID["syncs"]["users"]]),
        ("sources/warehouse/type", ["bigquery"], ["${T}", "x"]),
        ("sources/warehouse/maximum_bytes_billed", ["1GiB", "${N}"], ["x"]),
        ("destinations/customerio/region", ["eu", "${R}"], ["moon"]),
        ("version", [1], [2, "${V}"]),
        ("nonsense", [], [1]),
    ],
)
def test_what_fits(path: str, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not fits(path, value)] == []
    assert [value for value in bad if fits(path, value)] == []


def test_every_key_has_a_description() -> None:
    models: list[type[Model]] = [Config]
    for model in models:
        models += [
            found for one in model.model_fields.values() for found in models_in(one.annotation)
        ]
    assert len(models) == 22
    for model in models:
        for key, one in model.model_fields.items():
            assert one.description, f"{model.__name__}.{key}"
            assert one.description.endswith("."), f"{model.__name__}.{key}"


def test_docs_configuration_is_up_to_date() -> None:
    text = document()
    assert DOCS.read_text(encoding="utf-8") == text, (
        "run: python -m pipeline.config.reference > docs/configuration.md"
    )
    assert [name for name in SHORT_NAMES if f"| `{name}` |" not in text] == []


def test_the_reference_is_written_to_standard_output() -> None:
    command = [sys.executable, "-m", "pipeline.config.reference"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DOCS.parents[1])
    assert done.stdout == document()


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, pipeline.config\n"
        "heavy = {'pyarrow', 'google.cloud', 'grpc', 'aiohttp', 'sqlalchemy', 'rich', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=DOCS.parents[1],
    )
    assert done.stdout == "[]\n"


def test_the_schema_has_no_keyword_of_its_own() -> None:
    own = {"ge", "gt", "le", "lt", "allow_inf_nan", "min_length", "max_length"}
    text = json.dumps(json_schema())
    assert [word for word in own if f'"{word}":' in text] == []
