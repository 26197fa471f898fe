"""What libzmq tells about the connections of a socket, over tcp: there a connection may be lost while its peer lives.

Part of the Task side: standard library and pyzmq, Python 3.9.
"""

from __future__ import annotations

from struct import Struct

import zmq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from tasklink_zmq.exchange import Exchange

_ADDRESS = "inproc://monitor"
_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_LOST = int(zmq.EVENT_DISCONNECTED)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_EVENT = Struct("=HI")
_EVENTS, _POLLIN, _NOBLOCK = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)


class Monitor:
    """Reads the events of an exchange's socket; `look` is for its `look_around`."""

    def __init__(self, exchange: Exchange) -> None:
        exchange.socket.monitor(_ADDRESS, _CONNECTED | _LOST | _REFUSED)
        self._socket = exchange.open(zmq.PAIR)
        self._socket.connect(_ADDRESS)
        exchange.watch(self._socket)

    def look(
        self, connected: Callable[[int], object], lost: Callable[[int], object], refused: Callable[[], object]
    ) -> None:
        """Tell what has happened: of which descriptor the connection is made, or lost."""
        while self._socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            event, value = _EVENT.unpack(self._socket.recv(_NOBLOCK))
            self._socket.recv(_NOBLOCK)  # the address
            if event == _CONNECTED:
                connected(value)
            elif event == _LOST:
                lost(value)
            elif event & _REFUSED:
                refused()
