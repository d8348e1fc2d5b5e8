"""Addresses of Ray clusters, checked without Ray."""

import socket

from autodo.errors import ConfigError


def check_address(address: str) -> None:
    """Asks whether anything listens at HOST:PORT; Ray itself would go on asking for many minutes.

    Raises:
        ConfigError: if nothing does, or it is no such address.
    """
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not port.isdigit() or not host or "/" in host:
        raise ConfigError(
            f"--address {address!r}: is not HOST:PORT of a cluster's head, such as '10.0.0.1:6379', or 'auto'"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address {address!r}: no Ray cluster answers: {error}") from None
