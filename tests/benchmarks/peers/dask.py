"""distributed.comm over TCP, as Dask's workers talk; each call drives its event loop until it is done."""

import asyncio

from tasklink.bench.contender import Wire


class Comm(Wire):
    """One comm."""

    requires = ("distributed", "numpy")

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._comm = None
        import numpy as np
        from distributed.protocol import deserialize, serialize

        deserialize(*serialize(np.zeros(1)))  # it imports what it needs with the first array

    def _do(self, coroutine):
        return self._loop.run_until_complete(coroutine)

    @classmethod
    def listen(cls, variant, largest):
        """Listen on a port of the loopback."""
        from distributed.comm import listen

        wire = cls()
        wire._came = wire._loop.create_future()

        async def take(comm):
            wire._came.set_result(comm)

        async def begin():
            return await listen("tcp://127.0.0.1:0", take)

        wire._listener = wire._do(begin())
        return wire, wire._listener.contact_address, []

    @classmethod
    def connect(cls, told):
        """Connect to it."""
        from distributed.comm import connect

        wire = cls()
        wire._comm = wire._do(connect(told))
        return wire

    def accept(self):
        """Wait for the child."""
        self._comm = self._do(self._come())

    async def _come(self):
        return await self._came

    def write(self, contents):
        """Write it; an array as Dask does."""
        import numpy as np
        from distributed.protocol import to_serialize

        if isinstance(contents, np.ndarray):
            contents = to_serialize(contents)
        self._do(self._comm.write({"x": contents}))

    def read(self):
        """Read it."""
        return self._do(self._comm.read())["x"]

    def close(self):
        """Close the comm and what listened."""
        self._do(self._comm.close())
        if hasattr(self, "_listener"):
            self._listener.stop()
