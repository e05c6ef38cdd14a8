"""Ports: taking them, and saying which one is in use."""

import socket

from trimgate.errors import InvalidInput


def bind(host: str, port: int, key: str) -> socket.socket:
    """A socket that holds a port without listening yet.

    Args:
        host: Address to listen on.
        port: 0 chooses a free one.
        key: The option that the port came from, for the message.

    Raises:
        InvalidInput: The address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise InvalidInput("must lie between 0 and 65535", key=key, value=port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidInput(f"is not an address ({error})", key="--host", value=host) from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise in_use(key, port, error) from error
    return sock


def in_use(key: str, port: int, error: Exception) -> InvalidInput:
    """What to say of a port that cannot be had."""
    reason = error.strerror if isinstance(error, OSError) else error
    return InvalidInput(
        f"cannot listen there ({reason})",
        key=key,
        value=port,
        mend="stop what listens there, or give another port (0 chooses a free one)",
    )


def listening_at(sock: socket.socket) -> str:
    """The `host:port` that a socket is bound to."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def reached_at(sock: socket.socket) -> str:
    """The `host:port` by which this machine reaches the socket."""
    address = listening_at(sock)
    for wildcard, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(wildcard):
            return loopback + address.removeprefix(wildcard)
    return address
