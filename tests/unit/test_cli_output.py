import json

import pytest

from pipeline.cli import output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 漢字", "Zoë 漢字"),
        ("a\x1b[31mred", "a\\u001b[31mred"),
        ("bell\x07 \x9b", "bell\\u0007 \\u009b"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\u202eturned", "\\u202eturned"),
        ("", ""),
    ],
)
def test_text_from_outside_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert output.plain(text) == shown


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_500_000, "2.5 MB"),
        (7 * 10**9, "7.0 GB"),
        (12 * 10**15, "12000.0 TB"),
    ],
)
def test_sizes(nbytes: int | None, shown: str) -> None:
    assert output.size(nbytes) == shown


def test_numbers_rates_and_moments() -> None:
    assert output.number(1_234_567) == "1,234,567"
    assert output.number(None) == "-"
    assert output.rate(1_000, 0.5) == "2,000"
    assert output.rate(0, 0.5) == output.rate(5, 0.0) == "-"
    assert output.moment(0) == "1970-01-01T00:00:00Z"
    assert output.moment(None) == "-"


def test_ready_json_keeps_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    exact = b'{"n":1.10,"big":123456789012345678901234567890}'
    output.print_json({"payload": output.ready_json(exact)})
    assert exact.decode() in capsys.readouterr().out


def test_what_is_not_json_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json([output.ready_json(b'{"cut')])
    assert json.loads(capsys.readouterr().out) == ['{"cut']


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.stdout().print(output.table({"message": "left"}, [["x" * 500], ["[bold]y[/bold]"]]))
    out = capsys.readouterr().out
    assert "x" * 500 in out
    assert "[bold]y[/bold]" in out
