"""The messages of a run, for its result and for those who follow it."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.errors import LimitExceededError
from tasklink.inbox import MESSAGE_BYTES, Inbox
from tasklink.message import Message

PATIENCE = 20


class TestInbox:
    """What is kept, and who gets what."""

    @given(st.integers(0, 5), st.integers(0, 5), st.booleans())
    def test_follow(self, before: int, after: int, keep: bool) -> None:
        """A follower gets what was kept, then what comes, and then knows that it is over."""
        inbox = Inbox(keep=keep)
        messages = [Message(number) for number in range(before + after)]
        for message in messages[:before]:
            inbox.put(message)
        follower = inbox.follow()
        for message in messages[before:]:
            inbox.put(message)
        inbox.close()
        assert list(follower) == (messages if keep else messages[before:])
        assert list(inbox.follow()) == list(inbox.messages) == (messages if keep else [])
        assert inbox.count == len(messages)
        assert list(follower) == []

    def test_messages_are_given_one_by_one(self) -> None:
        """A message can be had before the next one has come."""
        inbox = Inbox(keep=False)
        follower = inbox.follow()
        for number in range(3):
            inbox.put(Message(number))
            assert next(follower).contents == number

    def test_messages_that_say_nothing(self) -> None:
        """A message is no end, whatever is in it."""
        inbox = Inbox(keep=True)
        inbox.put(Message(None))
        inbox.close()
        assert [message.contents for message in inbox.follow()] == [None]

    def test_threads(self) -> None:
        """Those who follow at any time, in any number of threads, get everything once and in order."""
        inbox = Inbox(keep=True)
        gathered: list[list[object]] = [[] for _ in range(8)]

        def follow(place: list[object]) -> None:
            place.extend(message.contents for message in inbox.follow())

        threads = [threading.Thread(target=follow, args=(place,)) for place in gathered]
        for number in range(400):
            if number % 50 == 0:
                threads[number // 50].start()
            inbox.put(Message(number))
        inbox.close()
        for thread in threads:
            thread.join(timeout=PATIENCE)
        assert gathered == [list(range(400))] * 8

    def test_close_wakes_those_who_wait(self) -> None:
        """A follower that waits for the next message learns that there is none."""
        inbox = Inbox(keep=True)
        follower = inbox.follow()
        thread = threading.Thread(target=list, args=(follower,))
        thread.start()
        inbox.close()
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()

    def test_who_follows_no_more(self) -> None:
        """Nothing is put aside for a follower that was let go."""
        inbox = Inbox(keep=False)
        follower = inbox.follow()
        inbox.put(Message(1))
        assert next(follower).contents == 1
        del follower
        gc.collect()
        assert not any(reference() for reference in inbox._followers)
        others = [inbox.follow() for _ in range(2)]
        assert len(inbox._followers) == 2
        inbox.close()
        assert [list(other) for other in others] == [[], []]

    @given(st.lists(st.integers(0, 2000), max_size=20), st.integers(0, 8000))
    def test_what_is_kept_is_bounded(self, sizes: list[int], most: int) -> None:
        """A message is taken in while less than the limit is kept, so memory is the limit and one message at most."""
        inbox, kept = Inbox(keep=True, most=most), 0
        for size in sizes:
            message = Message.encoded(0, [bytes(size)])
            if kept < most:
                inbox.put(message)
                kept += size + MESSAGE_BYTES
            else:
                with pytest.raises(LimitExceededError, match=f"of which {kept} bytes are kept; the limit is {most}, "):
                    inbox.put(message)
        assert sum(message.nbytes + MESSAGE_BYTES for message in inbox.messages) == kept

    def test_what_was_taken_counts_no_more(self) -> None:
        """A follower who takes what comes may go on for ever; one who does not has a limit, and so has each of them."""
        inbox = Inbox(keep=False, most=2 * MESSAGE_BYTES)
        first, second = inbox.follow(), inbox.follow()
        for number in range(100):
            inbox.put(Message(number))
            assert (next(first)._contents, next(second)._contents) == (number, number)
        inbox.put(Message("a"))
        inbox.put(Message("b"))
        assert [next(first)._contents for _ in range(2)] == ["a", "b"]
        with pytest.raises(LimitExceededError):
            inbox.put(Message("c"))
        del second  # whom nobody asks any more, nothing is kept for
        gc.collect()
        inbox.put(Message("c"))
        assert next(first)._contents == "c"
