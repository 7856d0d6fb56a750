from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.launchers.rank_process import FrameReader, encoded, receive

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(st.text(), PLAIN, max_size=3), max_size=5)


@given(messages=MESSAGES, size=st.integers(1, 40))
def test_messages_survive_any_cutting_of_the_stream(messages: list[dict[str, Any]], size: int) -> None:
    stream = b"".join(encoded(message) for message in messages)
    reader = FrameReader()
    found = [m for start in range(0, len(stream), size) for m in reader.feed(stream[start : start + size])]
    assert found == messages


@given(missing=st.integers(1, 20))
def test_a_message_cut_off_is_not_given_out(missing: int) -> None:
    reader = FrameReader()
    assert list(reader.feed((encoded({"whole": 1}) + encoded({"cut": "x" * 20}))[:-missing])) == [
        {"whole": 1}
    ]


def test_a_sender_that_goes_away_is_distinguished_from_a_message() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(encoded({"a": [1, None]}) + encoded({"b": 2})[:-1])
        assert receive(ours) == {"a": [1, None]}
        assert receive(ours) is None


def test_only_plain_data_pass() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        encoded({"socket": object()})
