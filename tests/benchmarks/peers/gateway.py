"""execnet: a gateway and its channel. It carries plain values only: arrays go as bytes."""

import sys

from tasklink.bench.contender import Wire, serve


class Gateway(Wire):
    """A channel of a popen gateway."""

    requires = ("execnet",)

    def __init__(self, channel, gateway=None):
        self._channel, self._gateway = channel, gateway
        self.read = channel.receive

    read = None

    @classmethod
    def start(cls, variant, largest):
        """Have execnet start the child."""
        import execnet

        gateway = execnet.makegateway(f"popen//python={sys.executable}")
        code = f"import sys; sys.path[:] = {sys.path!r}; from tests.benchmarks.peers.gateway import obey; obey(channel)"
        return cls(gateway.remote_exec(code), gateway)

    @classmethod
    def listen(cls, variant, largest):
        """Nobody calls this."""
        raise NotImplementedError

    connect = listen

    def write(self, contents):
        """Send it; an array as bytes."""
        if isinstance(contents, (dict, list, str, int, float, type(None))):
            self._channel.send(contents)
        else:
            self._channel.send(memoryview(contents).tobytes())

    def close(self):
        """Let the child end."""
        if self._gateway is not None:
            self._gateway.exit()


def obey(channel):
    """Serve in the child."""
    serve(Gateway(channel))
