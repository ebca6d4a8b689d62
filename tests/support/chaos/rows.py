"""The rows that are moved: their SQL, and what each must become, by arithmetic on its number.

A row is known by its number alone, which its payload repeats (`n`), so that whatever arrives, or
is kept as a dead letter, can be told by it. Some are bad on purpose: invalid to the engine, or
valid to it and refused by Customer.io. Nothing of the engine is used here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from value_oracle import message_id

SYNC = "moved"
USERS = 89
"""Of a track sync: so many users, whose rows follow each other."""

SCHEMA = ("CREATE SCHEMA app", "CREATE TABLE app.rows (id INT64, changed TIMESTAMP)")

# Primes, so that every kind meets every other. None of them is common: where all of five rows
# of a batch are refused, a run halts, as it should.
_NO_ID, _LONG_ID, _REFUSED = (401, 7), (503, 13), (607, 11)
_LONGEST_ID = 150
# So many bytes at most that a few thousand rows make dozens of requests.
_PAD = 8_000

# Text that has to be escaped in JSON, and more than one byte of UTF-8.
_NAME_SQL = r"""CONCAT('Zoë "', CAST(id AS STRING), '"\t\\ ≠\n')"""
_COLUMNS = f"""
  id AS n,
  CASE
    WHEN MOD(id, {_NO_ID[0]}) = {_NO_ID[1]} THEN NULL
    WHEN MOD(id, {_LONG_ID[0]}) = {_LONG_ID[1]} THEN REPEAT('u', {_LONGEST_ID + 1})
    ELSE CONCAT('user ', CAST({{user}} AS STRING))
  END AS userId,
  IF(MOD(id, {_REFUSED[0]}) = {_REFUSED[1]}, 'soon', '2026-11-24T06:00:00Z') AS timestamp,
  {_NAME_SQL} AS name,
  IF(MOD(id, 3) = 0, NULL, MOD(id, 1000) + 0.25) AS score,
  MOD(id, 2) = 0 AS active,
  TIMESTAMP_SECONDS(id * 977 - 500000) AS seen,
  REPEAT(CAST(MOD(id, 10) AS STRING), MOD(id * 7919, {_PAD})) AS pad"""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a sync. call: identify, or track: events of a few users, one after another."""

    call: str

    def query(self, *, ordered: bool) -> str:
        """What the sync asks BigQuery. ordered: by the rows' numbers."""
        user = f"MOD(id, {USERS})" if self.call == "track" else "id"
        event = ",\n  'Order Paid' AS event" if self.call == "track" else ""
        order = "\nORDER BY n" if ordered else ""
        return (
            f"SELECT{_COLUMNS.format(user=user)}{event}\nFROM app.rows\n"
            f"WHERE UNIX_SECONDS(changed) >= {{{{last_sync_time}}}}{order}\n"
        )

    def user(self, row: int) -> int:
        """Whose row it is."""
        return row % USERS if self.call == "track" else row

    def line(self, row: int, start: int, sequence: int) -> bytes:
        """The payload of a row in a window, to the byte."""
        fields = {
            "type": self.call,
            "userId": f"user {self.user(row)}",
            **({"event": "Order Paid"} if self.call == "track" else {}),
            "timestamp": "soon" if refused(row) else "2026-11-24T06:00:00Z",
            "traits" if self.call == "identify" else "properties": {
                "n": row,
                "name": f'Zoë "{row}"\t\\ ≠\n',
                "score": None if row % 3 == 0 else row % 1000 + 0.25,
                "active": row % 2 == 0,
                "seen": row * 977 - 500_000,
                "pad": str(row % 10) * (row * 7919 % _PAD),
            },
        }
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[:-1]
        event = self.call == "track"
        found = message_id(text, sync=SYNC, start=start, sequence=sequence, event=event)
        return f'{text},"messageId":"{found}"}}'.encode()


def insert(rows: range) -> str:
    """Issue these rows, as changed just now."""
    return (
        "INSERT INTO app.rows (id, changed) SELECT id, CURRENT_TIMESTAMP() "
        f"FROM UNNEST(GENERATE_ARRAY({rows.start}, {rows.stop - 1})) AS id"
    )


def refused(row: int) -> bool:
    """Whether Customer.io refuses its time; the engine passes text on as it is."""
    return row % _REFUSED[0] == _REFUSED[1]


def reason(row: int) -> str | None:
    """Why it becomes a dead letter; None: it is delivered."""
    if row % _NO_ID[0] == _NO_ID[1]:
        return "missing_id"
    if row % _LONG_ID[0] == _LONG_ID[1]:
        return "id_too_long"
    return "rejected_400" if refused(row) else None


def number(payload: bytes) -> int:
    """Which row a payload is of."""
    found = json.loads(payload)
    return int((found.get("traits") or found["properties"])["n"])


def good(rows: Iterable[int]) -> set[int]:
    """Those to be delivered."""
    return {row for row in rows if reason(row) is None}
