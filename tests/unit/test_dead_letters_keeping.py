"""What is kept of a dead letter: payload, ids or nothing; encrypted; and words without values."""

from __future__ import annotations

import orjson
import pytest
from cryptography.fernet import Fernet

from pipeline.checkpoint.keeping import Keeper, words
from pipeline.model import DeadLetter, Kept

KEY, OTHER = Fernet.generate_key().decode(), Fernet.generate_key().decode()
PAYLOAD = orjson.dumps(
    {
        "type": "identify",
        "messageId": "m-1",
        "userId": "7",
        "traits": {"email": "bob@example.com", "plan": "pro", "age": 41},
    }
)


def letter(message: str, reason: str = "rejected_400", payload: bytes = PAYLOAD) -> DeadLetter:
    return DeadLetter(stream=0, row=1, reason=reason, message=message, payload=payload)


def test_full_keeps_the_payload_to_the_byte() -> None:
    kept = Keeper().keep(PAYLOAD)
    assert kept == (PAYLOAD, Kept.FULL, False)
    assert Keeper().open(*kept[:1], sealed=False) == PAYLOAD


def test_ids_keeps_who_and_which_and_nothing_else() -> None:
    data, kept, sealed = Keeper(Kept.IDS).keep(PAYLOAD)
    assert orjson.loads(data) == {"type": "identify", "messageId": "m-1", "userId": "7"}
    assert (kept, sealed) == (Kept.IDS, False)


@pytest.mark.parametrize("payload", [b"", b"{cut", b"[1]", b'{"traits":{"userId":"7"}}'])
def test_ids_of_what_has_none_keeps_nothing(payload: bytes) -> None:
    assert Keeper(Kept.IDS).keep(payload) == (b"", Kept.NONE, False)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_none_keeps_nothing(keys: tuple[str, ...]) -> None:
    assert Keeper(Kept.NONE, keys).keep(PAYLOAD) == (b"", Kept.NONE, False)


@pytest.mark.parametrize("kept", [Kept.FULL, Kept.IDS])
def test_a_key_encrypts_and_only_it_decrypts(kept: Kept) -> None:
    keeper = Keeper(kept, [KEY])
    data, how, sealed = keeper.keep(PAYLOAD)
    assert (how, sealed) == (kept, True)
    assert b"m-1" not in data
    plain = Keeper(kept).keep(PAYLOAD).data
    assert keeper.open(data, sealed=True) == plain
    assert Keeper(kept, [OTHER, KEY]).open(data, sealed=True) == plain  # a key that was replaced
    assert Keeper(kept, [OTHER]).open(data, sealed=True) is None
    assert Keeper(kept).open(data, sealed=True) is None
    assert keeper.open(PAYLOAD, sealed=False) == PAYLOAD  # from before there was a key


def test_the_first_of_several_keys_encrypts() -> None:
    data = Keeper(keys=[OTHER, KEY]).keep(PAYLOAD).data
    assert Keeper(keys=[OTHER]).open(data, sealed=True) == PAYLOAD
    assert Keeper(keys=[KEY]).open(data, sealed=True) is None


LONG = "x" * 8 + "abcdefghijklmnopqrstuvwxyz" * 4


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("bob@example.com is no address", "<traits.email> is no address"),
        ("not 'bob@example.com'!", "not '<traits.email>'!"),
        ("plan pro unknown", "plan <traits.plan> unknown"),
        ("a property is wrong", "a property is wrong"),  # holds `pro`
        ("identify needs a userId", "identify needs a userId"),
        ("41 is too old, status 400", "41 is too old, status 400"),  # too short to be sure
        ("m-1 came twice", "<messageId> came twice"),
        ("", ""),
    ],
)
def test_words_of_a_destination_do_not_quote_the_row(said: str, kept: str) -> None:
    assert words(letter(said)) == kept


def test_words_of_nested_long_and_numeric_values() -> None:
    payload = orjson.dumps(
        {
            "type": "track",
            "event": "Order",
            "properties": {"notes": [{"text": LONG}], "card": 4111111111111111, "name": "event"},
        }
    )
    whole, cut = f"got {LONG} there", f"got {LONG[:40]}... there"
    assert words(letter(whole, payload=payload)) == "got <properties.notes.text> there"
    assert words(letter(cut, payload=payload)) == "got <properties.notes.text>... there"
    said = words(letter("4111111111111111 for Order, no event", payload=payload))
    assert said == "<properties.card> for <event>, no event"  # the name of a member is no value


def test_a_value_inside_a_longer_one_does_not_spoil_it() -> None:
    payload = orjson.dumps({"traits": {"name": "Bob", "title": "Bob the builder"}})
    assert words(letter("Bob the builder, Bob", payload=payload)) == "<traits.title>, <traits.name>"


def test_values_that_look_like_patterns() -> None:
    payload = orjson.dumps({"traits": {"regex": r"\d+(.*)", "place": r"\g<0>"}})
    assert words(letter(r"bad \d+(.*) and \g<0>", payload=payload)) == (
        "bad <traits.regex> and <traits.place>"
    )


def test_our_own_words_and_payloads_that_are_no_json_stay() -> None:
    assert words(letter("pro", reason="missing_id")) == "pro"
    assert words(letter("pro", payload=b"{cut")) == "pro"
