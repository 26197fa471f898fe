"""What a Link of several communicators does so that nothing is lost when one of them breaks while the peer lives.

The rules. Each holds for one direction, from a writer to a reader; the other direction is another one, with its own
numbers.

1.  The writer keeps each message, with the member that it goes over, until the reader has acknowledged it (`kept`). It
    is kept before it is written, and a member that is given up is marked so before what it took is looked for. So
    whoever writes either finds the mark, or is found.
2.  The reader acknowledges all that has come by one note: up to which number, but for which. So when one is lost, the
    next one says as much. It does so for the first message, whenever enough has come, and when it is asked.
3.  A member has broken when a write to it fails or stalls, when the reader says that it can be read no more, and when
    the peer answers and what the member took does not come. The writer gives it nothing new then, and writes again what
    it has kept for it over the others, with the same number: what comes twice is dropped by the reader. Messages that
    went the same way did not need to name each other (see `ledger`); now each names the one before.
4.  If another one breaks meanwhile, what it took is kept for it, and is written again in its turn: nothing is done for
    one member that relies upon what was done for another.
5.  Then the writer says so (`vocabulary.BROKEN`), and names the numbers that it cannot write again. The reader waits
    for everything else. That nothing comes at the moment tells it nothing: what is missing may be in a member that has
    broken, and of which neither side knows yet.
6.  What the Links say to each other, the notes, is numbered and kept as everything else. A note waits for nothing and
    nobody relies on when it comes: it says what is so from then on, and to hear it late or twice does no harm.

What is kept is bounded: `write` waits for an acknowledgement before it returns when too much is kept, and when the
message lies in the caller's memory and is too large to be copied. It waits for `PATIENCE` at most, and only for a peer
that has ever given one. What is let go then is not kept any more, and is named as lost if its member breaks.

A Link that writes to one member only keeps nothing, and waits for nothing.

Only the thread that reads a Link hears acknowledgements, so it never waits for one; and it never writes again what was
lost, or two that do would wait for each other: it has another thread do so.

This module is part of the Task side.
"""

from __future__ import annotations

from _thread import RLock, get_ident, start_new_thread
from time import monotonic

from tasklink import vocabulary
from tasklink.errors import BrokenError, CommunicatorError, MessageTooLargeError
from tasklink.kept import KEPT_BYTES, Kept, is_borrowed
from tasklink.ledger import Ledger, numbers_in, spell
from tasklink.turn import rest_of, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasklink.ledger import Numbers
    from tasklink.member import Member
    from tasklink.message import Message

# Seconds for which a write, and the end, wait for an acknowledgement.
PATIENCE = 2.0
# After so many seconds, and a second for each so many bytes that it is at, a member that took nothing may have stalled.
STALLED_AFTER = 10.0
SLOWEST = 8 << 20
# Large enough to count there.
_LARGE = 1 << 20
# More of what is missing is not acknowledged at once.
_MOST_RANGES = 100
_LONGEST_REASON = 300
_LONGEST_COUNT = 20
_TO_BE_ANSWERED = frozenset({vocabulary.END, vocabulary.ACKNOWLEDGE})
# For notes of whoever reads: enough to come between the pieces of a large message.
_NOTE_SECONDS = 0.05


class FailOver:
    """What belongs to the members of one Link together.

    Attributes:
        keeps: what is written is kept.
        acknowledges: what has come is acknowledged.
        failing: members that are written no more, and took what is still to be written again.
        peer_gone: nothing is written again by the peer any more.
        reader: the thread that reads, and so hears acknowledgements.

    Args:
        members: of the Link; it adds to them.
        numbers: of what it writes.
        ledgers: of what it reads, by rank.
        rank: its own.
        candidates: gives the members that can carry a message of a signal and a size, or raises.
        forget_ways: is called when a member is not written any more.
        tell: is told of a member that broke, and why.
    """

    def __init__(
        self, members: list[Member], numbers: Numbers, ledgers: dict[int, Ledger], rank: int, *,
        candidates: Callable[[str | None, int], list[Member]],
        forget_ways: Callable[[], object],
        tell: Callable[[Member, CommunicatorError], object],
    ) -> None:  # fmt: skip
        self.kept = Kept()
        self.keeps = self.acknowledges = False
        self.failing: set[Member] = set()
        self.peer_gone = False
        self.reader = 0
        self._members = members
        self._numbers = numbers
        self._ledgers = ledgers
        self._rank = rank
        self._candidates = candidates
        self._forget_ways = forget_ways
        self._tell = tell
        self._resending = RLock()  # by whoever has this lock
        self._closed = False
        self.count_ways()

    def count_ways(self) -> None:
        """Take note of which members there are, and which of them are written."""
        self.keeps = sum(member.writable for member in self._members) > 1
        self.acknowledges = sum(member.carries_messages for member in self._members) > 1

    def close(self) -> None:
        """Wake who waits, and do no more."""
        self._closed = True
        self.kept.abandon()

    # As the writer

    def write(self, member: Member, message: Message, deadline: float | None) -> bool:
        """Keep a message, and write it to a member; True if its writer is to `wait_for_room` then.

        Raises:
            BrokenError: the member has broken; also when it does not take the message while the peer answers elsewhere.
            TimeoutError, CommunicatorError: as `Communicator.write`.
        """
        size = self.kept.add(message, member)
        try:
            times = 1
            if size < _LARGE and deadline is None and member.writable and not member.underway:
                try:  # as `_write_kept` would, only sooner: most messages go this way
                    member.communicator.write(message, STALLED_AFTER)
                except TimeoutError:
                    self._check_stalled(member, STALLED_AFTER)
                    times = 2
                else:
                    return self.kept.nbytes > KEPT_BYTES
            self._write_kept(member, message, deadline, times)
        except BaseException:
            self._forget(message)
            raise
        return self.kept.nbytes > KEPT_BYTES or is_borrowed(message)

    def wait_for_room(self, message: Message, deadline: float | None) -> None:
        """Wait for acknowledgements after a `write`; what there is no room for is let go then."""
        kept, number, borrowed = self.kept, message.sequence, is_borrowed(message)
        try:
            if message.signal not in vocabulary.URGENT:
                self._wait_for_answer(lambda: kept.nbytes <= KEPT_BYTES and not (borrowed and number in kept), deadline)
        finally:
            kept.let_go(number if borrowed else None)
            if borrowed:
                self._wait_until_unused()

    def give_up(self, member: Member, error: CommunicatorError, *, told: bool = True) -> None:
        """Write no more to a member. What it took is written again by `go_over`, which is still to be called.

        Args:
            member: which.
            error: why.
            told: whether that is told at once. The peer may just have gone: if it has not, it will say so.
        """
        member.writable = False
        if member.reason is None:
            member.reason = error
            if self.acknowledges:
                self.failing.add(member)
        self._forget_ways()
        self.count_ways()
        if told:
            self._tell(member, error)

    def go_over(self, deadline: float | None) -> None:
        """Write again what members have taken that are written no more, and tell the peer.

        Raises:
            TimeoutError: there was no time for all; another thread goes on.
            ClosedError: `close` was called.
        """
        try:
            take(self._resending, deadline)
            try:
                while self.failing:
                    for member in [member for member in self._members if member in self.failing]:
                        self._write_all_again(member, deadline)
            finally:
                self._resending.release()
        except TimeoutError:
            self.go_over_aside()
            raise

    def go_over_aside(self) -> None:
        """Have another thread do so, if there is anything to do."""
        if self.failing:
            try:
                start_new_thread(self._go_over_alone, ())
            except RuntimeError:
                pass  # the system has none to give: whoever writes next does it

    def confirm(self, deadline: float | None) -> None:
        """Wait until all was acknowledged, as long as the peer goes on acknowledging.

        Raises:
            TimeoutError: there was no time for it.
        """
        kept = self.kept
        if not kept.answers:
            return
        standstills = 0
        while kept and not self._closed:
            answers, oldest = kept.answers, kept.oldest  # before it is asked: the answer may come at once
            found = self._ask_everywhere(deadline)
            if self._wait_for_answer(lambda: not kept, deadline):
                return
            silent = kept.answers == answers
            standstills = standstills + 1 if kept.oldest == oldest and not silent else 0
            if standstills > 1:  # between two answers it has not come
                if not self._leave_stuck_one(oldest):
                    return
                standstills = 0
            elif silent and not found:
                return

    def _forget(self, message: Message) -> None:
        """Keep no longer a message that was not written."""
        self.kept.forget(message.sequence)
        if is_borrowed(message):
            self._wait_until_unused()

    def _wait_until_unused(self) -> None:
        """Wait while another thread may be writing again what has just been let go: its memory is the caller's."""
        with self._resending:
            pass

    def _write_kept(self, member: Member, message: Message, deadline: float | None, times: int = 1) -> None:
        """Write to a member, unless it has been given up; one that does not take the message may have stalled."""
        if not member.writable:
            raise BrokenError(f"it is written no more: {member.reason}")
        if message.nbytes < _LARGE:
            self._write_unless_stalled(member, message, deadline, times)
            return
        member.underway[get_ident()] = message.nbytes
        try:
            self._write_unless_stalled(member, message, deadline, times)
        finally:
            member.underway.pop(get_ident(), None)

    def _write_unless_stalled(self, member: Member, message: Message, deadline: float | None, times: int) -> None:
        while True:
            patience = times * (STALLED_AFTER + sum(list(member.underway.values())) / SLOWEST)
            rest = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                member.communicator.write(message, patience if rest is None else min(rest, patience))
            except TimeoutError:
                if rest is not None and rest <= patience:
                    raise
                self._check_stalled(member, patience)
                times *= 2  # it begins anew, and shall come to an end over a slow network, too
            else:
                return

    def _check_stalled(self, member: Member, patience: float) -> None:
        """See whether a member that has taken no message has broken, or the peer is slow.

        Raises:
            BrokenError: it has.
        """
        if self._answers_without(member):
            text = f"it has taken no message for {patience:.3g} s, while its peer answers over another one"
            raise BrokenError(text) from None

    def _answers_without(self, member: Member) -> bool:
        """Whether the peer reads what the other members bring."""
        before = self.kept.answers
        others = [other for other in self._members if other is not member]
        asked = self._note(vocabulary.record(vocabulary.ACKNOWLEDGE), others, monotonic() + PATIENCE)
        return asked and self._wait_for_answer(lambda: self.kept.answers > before, None)

    def _wait_for_answer(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for acknowledgements, unless the peer never gives any, or it is this thread that would hear them."""
        if get_ident() == self.reader or not self.kept.answers:
            return done()
        while True:
            rest = PATIENCE if deadline is None else min(max(0.0, deadline - monotonic()), PATIENCE)
            if self.kept.wait_for(done, rest):
                return True
            if not self.failing or rest < PATIENCE:
                return False
            try:
                self.go_over(deadline)  # or wait for who does
            except TimeoutError:
                return False

    def _write_all_again(self, member: Member, deadline: float | None) -> None:
        """Write again what one member has taken, also what it is still taking; then it fails no more."""
        count = before = 0
        for message in self.kept.of(member):
            if message.signal not in vocabulary.URGENT:
                message.after = max(message.after, before)  # they went the same way
                before = message.sequence
            count += self._write_again(message, member, deadline)
        self.failing.discard(member)
        lost = self.kept.let_go_of(member)[:_MOST_RANGES]
        texts = member.name, str(member.reason)[:_LONGEST_REASON], str(count), spell(lost)
        told = self._note_everywhere(vocabulary.BROKEN, texts, member.rank, deadline)
        if not told and deadline is not None and monotonic() >= deadline:
            self.failing.add(member)
            raise TimeoutError("the peer could not be told in time which communicator is written no more")

    def _write_again(self, message: Message, broken: Member, deadline: float | None) -> bool:
        try:
            candidates = self._candidates(message.signal, message.nbytes)
        except (BrokenError, MessageTooLargeError):
            candidates = []
        for member in self._of_rank(broken.rank, candidates):
            if not self.kept.move(message.sequence, member):
                return False  # it has come
            try:
                self._write_kept(member, message, deadline)
            except CommunicatorError as error:
                if self._closed:
                    raise
                if member.writable:
                    self.give_up(member, error, told=False)
            except BaseException:
                self.kept.move(message.sequence, broken)
                raise
            else:
                return True
        self.kept.let_go(message.sequence)
        return False

    def _go_over_alone(self) -> None:
        try:
            self.go_over(None)
        except CommunicatorError:
            pass  # closed meanwhile

    def _ask_everywhere(self, deadline: float | None) -> bool:
        """Have all acknowledged; over all members, so one is found out that has broken without a word: True then."""
        found = False
        while True:
            if self.failing:
                found = True
                self.go_over(deadline)
            for member in self._members:
                if member.writable:
                    note = vocabulary.record(vocabulary.ACKNOWLEDGE)
                    self._note(note, [member], monotonic() + _NOTE_SECONDS, self.give_up)
            if not self.failing:
                return found

    def _leave_stuck_one(self, number: int) -> bool:
        """Give up the member that took a message, which does not come; False if there is no other way for it."""
        way = self.kept.way_of(number)
        others = [member for member in self._members if member.writable and member is not way]
        for member in self._members:
            if member is way and others:
                text = "what it took does not come, while its peer answers over another one"
                self.give_up(member, BrokenError(text))
        return bool(others)

    # As the reader

    @property
    def all_comes(self) -> bool:
        """Whether the peer writes again what was lost, or says that it cannot: nothing else is to be believed then."""
        return self.acknowledges and self.kept.answers > 0 and not self.peer_gone

    def acknowledge(self, rank: int, ledger: Ledger, *, everywhere: bool = False) -> None:
        """Tell the peer what has come, and which members are not read any more."""
        highest, missing = ledger.came(_MOST_RANGES)
        ended = [member.name for member in self._of_rank(rank) if member.carries_messages and not member.readable]
        texts = str(highest), spell(missing), *ended
        deadline = monotonic() + _NOTE_SECONDS
        if everywhere:
            told = self._note_everywhere(vocabulary.ACKNOWLEDGED, texts, rank, deadline)
        else:
            told = self._note(vocabulary.record(vocabulary.ACKNOWLEDGED, *texts), self._of_rank(rank), deadline)
        if told:
            ledger.unacknowledged = 0

    def ask_for_rest(self, member: Member) -> None:
        """Have the peer write again what it wrote to a member that cannot be read any more, if it lives and can."""
        if not self.all_comes:
            return
        for rank, ledger in self._ledgers.items():
            # Its first message may be the one that is lost, so it need not have said whose it is.
            if member.rank in {rank, None} and member.carries_messages and ledger.last is None:
                # Over all of them: others may have broken that nobody knows of.
                self.acknowledge(rank, ledger, everywhere=True)

    def heed(self, note: Message) -> list[Message]:
        """Act on what the peer's Link says; gives the messages that wait no longer."""
        ledger = self._ledgers.get(note.rank)
        if note.signal == vocabulary.END and ledger is not None and note.sequence:
            ledger.last = note.sequence
        if note.signal in _TO_BE_ANSWERED:
            if ledger is not None and self.acknowledges:
                # Who asks may have reason to: of the ways back, too, one may have stalled.
                self.acknowledge(note.rank, ledger, everywhere=note.signal == vocabulary.ACKNOWLEDGE)
        elif note.signal == vocabulary.ACKNOWLEDGED:
            self._heed_answer(note.rank, vocabulary.texts(note))
        elif note.signal == vocabulary.BROKEN:
            return self._heed_broken(note, ledger)
        return []

    def _heed_answer(self, rank: int, texts: list[str]) -> None:
        try:
            (up_to,) = numbers_in(f"0-{texts[0]}", 1)
            missing = numbers_in("".join(texts[1:2]), _MOST_RANGES)
        except ValueError:
            return  # of no Link's making, and good for nothing
        self.kept.acknowledge(up_to[-1], missing)
        for member in self._of_rank(rank):
            if member.writable and member.name in texts[2:]:
                self.give_up(member, BrokenError("the peer cannot read it any more"))
        self.go_over_aside()

    def _heed_broken(self, note: Message, ledger: Ledger | None) -> list[Message]:
        name, reason, count, lost = vocabulary.texts(note, 4)
        for member in self._of_rank(note.rank):
            if member.name == name and member.carries_messages:
                if not member.left and count.isdecimal() and len(count) < _LONGEST_COUNT:
                    member.resent = int(count)  # said over each of the others
                member.left = True
                error = BrokenError(f"the peer writes to it no more: {reason[:_LONGEST_REASON]}")
                if member.writable:
                    self.give_up(member, error)  # where one direction has broken, the other one may have, too
                self._tell(member, member.reason or error)
        self.go_over_aside()
        try:
            return [] if ledger is None else ledger.give_up(numbers_in(lost, _MOST_RANGES))
        except ValueError:
            return []  # as above

    # Both

    def _note(
        self, note: Message, members: Iterable[Member], deadline: float | None,
        on_error: Callable[[Member, CommunicatorError], object] = lambda *_: None,
    ) -> bool:  # fmt: skip
        """Tell the peer's Link something, over the first of these members that takes it; False if none does.

        Only over those that are known to reach it, those first that bring something themselves. That one fails is
        mostly no news: the peer may just have ended, and whoever reads it will find out.
        """
        able = [member for member in members if member.writable and (member.known or member.messages)]
        if not able:
            return False
        note.rank = self._rank
        try:
            self._numbers.draw(note)
            for member in sorted(able, key=lambda member: not member.readable):
                if self.keeps:
                    self.kept.add(note, member)
                try:
                    if member.writable:  # also now that it is kept: see rule 1
                        member.communicator.write(note, rest_of(deadline))
                        self._numbers.written(note, member)
                        return True
                except TimeoutError:
                    pass
                except CommunicatorError as error:
                    on_error(member, error)
            return False
        finally:
            if self._numbers.under_way(note):
                self.kept.forget(note.sequence)
                self._numbers.give_up(note)

    def _note_everywhere(self, signal: str, texts: Iterable[str], rank: int | None, deadline: float | None) -> bool:
        """Tell the same over every member, since any of them may have broken; False if none takes it."""
        members = self._of_rank(rank)
        told = [self._note(vocabulary.record(signal, *texts), [member], deadline) for member in members]
        return any(told)

    def _of_rank(self, rank: int | None, members: Iterable[Member] | None = None) -> list[Member]:
        """Those that have the same peer, as far as is known."""
        every = self._members if members is None else members
        return [member for member in every if rank is None or member.rank in {rank, None}]
