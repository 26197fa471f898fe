"""The Executor's side until the Task has come: the directory with its two pipes."""

from __future__ import annotations

import os
import select
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from tasklink.communicator import Address, Listener
from tasklink.doorbell import Doorbell
from tasklink.errors import ClosedError
from tasklink.rendezvous.directory import PrivateDirectory
from tasklink.rendezvous.hold import Hold
from tasklink_maildrop.communicator import BELL, RECORD_BYTES, TO_EXECUTOR, TO_TASK, MaildropCommunicator

if TYPE_CHECKING:
    from tasklink_maildrop.settings import MaildropSettings


class MaildropListener(Listener):
    """Makes the directory, and waits for the Task to say that it has opened both pipes.

    Args:
        settings: of the maildrop communicator.

    Raises:
        ConfigError: the directory cannot be used.
        OSError: there is no descriptor left.
    """

    def __init__(self, settings: MaildropSettings) -> None:
        with ExitStack() as opened:
            self._directory = opened.enter_context(PrivateDirectory(settings.directory, table="communicators.maildrop"))
            self._incoming, self._outgoing = (self._directory.path / name for name in (TO_EXECUTOR, TO_TASK))
            for directory in (self._incoming, self._outgoing):
                directory.mkdir(mode=0o700)
                os.mkfifo(directory / BELL, mode=0o600)
            self._bell = opened.enter_context(closing(Doorbell()))
            self._reader = os.open(self._incoming / BELL, os.O_RDONLY | os.O_NONBLOCK)
            opened.pop_all()
        self._closed = False
        self.directories = (self._directory.path,)
        self.address = Address({"directory": str(self._directory.path)})

    def accept(self, timeout: float | None = None) -> MaildropCommunicator:
        """Wait for the Task; see `Listener.accept`."""
        self._check_open()
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("the Task has not come in time")
        self._check_open()
        os.read(self._reader, RECORD_BYTES)
        # A Task may have said all that it had to say, and be gone: without a reader of it a pipe cannot be opened.
        reader = os.open(self._outgoing / BELL, os.O_RDONLY | os.O_NONBLOCK)
        try:
            writer = os.open(self._outgoing / BELL, os.O_WRONLY | os.O_NONBLOCK)
        finally:
            os.close(reader)
        hold = Hold(str(self._directory.path))
        incoming, outgoing = str(self._incoming), str(self._outgoing)
        return MaildropCommunicator(incoming, outgoing, reader=os.dup(self._reader), writer=writer, hold=hold)

    def fileno(self) -> int:
        """Readable when the Task has come; see `Listener.fileno`."""
        return self._reader

    def close(self) -> None:
        """Stop waiting; the directory goes with the last who has a hold on it."""
        if not self._closed:
            self._closed = True
            self._bell.ring()
            self._bell.close()
            os.close(self._reader)
            self._directory.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this MaildropListener was closed")
