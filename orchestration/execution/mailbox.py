"""Mailbox between the trial of a run and the processes that train it. Imports little, so that its actor starts fast."""

import asyncio
from typing import Any, Literal, NamedTuple

Message = dict[str, Any] | Literal["waiting", "starting"]
"""Row of an epoch that has ended, or the state of an attempt before its first epoch."""


class WorkerError(NamedTuple):
    """The error that ended a worker."""

    error: Exception
    lost_connection: bool
    """Whether the error only says that another worker does not answer any more."""


class Mailbox:
    """Ray actor for messages to a trial, whose own actor is busy with a step."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._replies: asyncio.Queue[bool] = asyncio.Queue()
        self._errors: list[WorkerError] = []

    async def send(self, message: Message) -> bool:
        """Send a message to the trial. Returns whether to go on, as soon as the trial replies."""
        await self._messages.put(message)
        return await self._replies.get()

    async def receive(self) -> Message:
        """The next message, for the trial."""
        return await self._messages.get()

    async def reply(self, go_on: bool) -> None:
        """Reply to the last message, by the trial."""
        await self._replies.put(go_on)

    async def report_error(self, error: WorkerError) -> None:
        """Report the error that ends a worker."""
        self._errors.append(error)

    async def errors(self) -> list[WorkerError]:
        """Errors that workers have reported."""
        return self._errors
