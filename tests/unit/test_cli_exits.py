import pytest
import typer

from pipeline.cli.exits import ended, worst
from pipeline.errors import ConfigError, CredentialsError, Fault, PipelineError, SourceError

SECRET = "row content"


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 75], 75),
        ([75, 65, 0], 65),
        ([65, 77, 75], 77),
        ([77, 78], 78),
        ([78, 70], 70),
        ([64, 65], 64),
        ([0, 99], 99),
    ],
)
def test_the_worst_of_several(codes: list[int], code: int) -> None:
    assert worst(codes) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (typer.BadParameter("no"), 64),
        (ConfigError("no"), 78),
        (CredentialsError("no"), 77),
        (SourceError("no"), 75),
        (PipelineError("no"), 70),
        (typer.Abort(), 75),
        (KeyboardInterrupt(), 75),
        (SystemExit(1), 75),
        (ZeroDivisionError(SECRET), 70),
        (ExceptionGroup("several", [ExceptionGroup("more", [KeyError(SECRET)])]), 70),
    ],
)
def test_each_end_has_its_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    assert ended(command) == code
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (65, 65), (130, 75)])
def test_what_a_command_returns(returned: int | None, code: int) -> None:
    assert ended(lambda: returned) == code


def test_the_unforeseen_is_named_by_type_and_reported_as_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise ExceptionGroup("tasks", [LookupError(SECRET)])

    ended(command)
    said = capsys.readouterr().err
    assert "unexpected LookupError" in said
    assert "our own fault" in said
    assert "Traceback" not in said
    assert "test_cli_exits" not in said


def test_debug_adds_where_but_never_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETL_LOG_LEVEL", "debug")

    def command() -> None:
        try:
            int(SECRET)
        except ValueError as error:
            raise LookupError(SECRET) from error

    ended(command)
    said = capsys.readouterr().err
    assert "test_cli_exits" in said
    assert "ValueError" in said
    # The source lines of the frames are ours; the messages of the exceptions are not shown.
    assert SECRET not in said


def test_every_fault_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ConfigError([Fault("syncs.a", "What.", "Do."), Fault("send", "Else.", "")])

    assert ended(command) == 78
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "retl: 2 faults in the configuration",
        "syncs.a: What. Do.",
        "send: Else.",
    ]
