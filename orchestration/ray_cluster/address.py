"""Addresses of Ray clusters, checked without Ray."""

import socket

from autodo.errors import ConfigError


def check_address(address: str) -> None:
    """Check that something listens at HOST:PORT; Ray itself would try for many minutes.

    Raises:
        ConfigError: if nothing listens, or the address is malformed.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not host or "/" in host:
        raise ConfigError(
            f"--address {address!r}: is not HOST:PORT of a cluster's head, such as '10.0.0.1:6379', or 'auto'"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address {address!r}: no Ray cluster answers: {error}") from None
