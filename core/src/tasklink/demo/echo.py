"""A Task that listens: it answers, changes its ways when told to, rests when paused, and ends when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklink import Task

if TYPE_CHECKING:
    from tasklink import Message


class Echo(Task):
    """Answers every `ping` with a `pong`, until it gets `stop` or is cancelled."""

    def run(self, voice: str = "calm") -> dict[str, int]:
        """Listen and answer.

        Args:
            voice: how it answers, until a signal `voice` says otherwise.

        Returns:
            by voice, how many pings it has answered.
        """
        self.voice = voice
        self.on("voice", self.change_voice)  # called at once, in another thread, whatever this one is doing
        answered: dict[str, int] = {}
        while True:
            message = self.received()
            if message.signal == "stop":
                return answered
            answered[self.voice] = answered.get(self.voice, 0) + 1
            self.signal("pong", (self.voice, message.contents))

    def change_voice(self, message: Message) -> None:
        """Do as the signal says, and say so."""
        self.voice = str(message.contents)
        self.signal("changed", self.voice)
