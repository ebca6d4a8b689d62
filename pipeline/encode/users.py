"""Whom each row is about, as a hash: what `ordering: per_user` tells rows apart by.

By the ids as they are sent, so that the number 7 and the text "7" are one user. Two users of one
hash would only wait for each other. Eight bytes of all rows at a time, so the cost is that of a few
numpy calls however many rows there are. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.calls import EMAIL_TRAIT
from pipeline.encode.escape import text_offsets
from pipeline.encode.layout import Layout
from pipeline.model import Call

# Whom a row is about: the first of these that it has. An alias is about two users, and those that
# follow it may name either, so that all of them are kept in order.
_IDS = ("userId", "anonymousId", "groupId")
# Odd, and with bits all over: those of xxHash (https://github.com/Cyan4973/xxHash, XXH64).
_LENGTHS, _WORDS = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_HALF = np.uint64(32)
_WORD = 8  # bytes
# What of a word, read where a text has so many bytes left, belongs to the text.
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_WORD + 1)], dtype=np.uint64)


def user_hashes(
    layout: Layout, batch: pa.RecordBatch, fields: Mapping[str, pa.StringArray]
) -> npt.NDArray[np.uint64]:
    """Of each row, the hash of whom it is about; the same for all where no column says.

    fields: the texts of the top-level fields. A person without an id goes by the email.
    """
    ids: list[pa.StringArray] = []
    for name in _IDS if layout.call is not Call.ALIAS else ():
        if name in layout.literals:  # the same for all rows that have none before it
            break
        if name in fields:
            ids.append(_empty_to_null(fields[name]))
    traits = layout.objects.get("traits") if layout.call is Call.IDENTIFY else None
    email = traits.member(EMAIL_TRAIT) if traits else None
    if email is not None and all(text.null_count for text in ids):
        ids.append(email.converter.convert(batch.column(email.column)))
    if not ids:
        return np.zeros(batch.num_rows, dtype=np.uint64)
    return text_hashes(pc.coalesce(*ids) if len(ids) > 1 else ids[0])


def _empty_to_null(text: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.equal(pc.binary_length(text), 0), pa.scalar(None, pa.string()), text)


def text_hashes(text: pa.StringArray) -> npt.NDArray[np.uint64]:
    """A hash of each value; null is as empty text."""
    offsets = text_offsets(text).astype(np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    if text.null_count:  # whose slots may hold bytes
        lengths *= text.is_valid().to_numpy(zero_copy_only=False)
    found = lengths.astype(np.uint64) * _LENGTHS
    longest = int(lengths.max(initial=0))
    if not longest:
        return found
    first = int(offsets[0])
    # Words are read beyond the end of a text, so there is something after the last one.
    data = bytes(memoryview(text.buffers()[2])[first : int(offsets[-1])]) + bytes(_WORD)
    words = np.ndarray(len(data) - _WORD + 1, dtype="<u8", buffer=data, strides=(1,))
    places, shortest = starts - first, int(lengths.min())
    for done in range(0, longest, _WORD):
        if done < shortest:
            found = _mixed(found, words[places + done], lengths - done)
        else:
            live = np.flatnonzero(lengths > done)
            found[live] = _mixed(found[live], words[places[live] + done], lengths[live] - done)
    return found


def _mixed(
    found: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64], left: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """With the next word of each text, of which `left` bytes belong to it."""
    mixed = (found ^ (words & _MASKS[np.minimum(left, _WORD)])) * _WORDS
    mixed ^= mixed >> _HALF
    return mixed
