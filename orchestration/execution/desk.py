"""The actor between the trial of a run and the workers that train it. It imports little, and so starts soon."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestration.execution.trial import Message


class WorkerError(NamedTuple):
    """The error that ended a worker."""

    error: Exception
    misses_another: bool
    """Whether it is only that another worker does not answer any more."""


class Desk:
    """Between the trial, whose own actor is busy with the present step, and who trains for it."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()
        self._errors: list[WorkerError] = []

    async def tell(self, message: "Message") -> bool:
        """Sends a message to the trial. Returns whether to go on, as soon as the trial answers."""
        await self._told.put(message)
        return await self._answers.get()

    async def hear(self) -> "Message":
        return await self._told.get()

    async def answer(self, go_on: bool) -> None:
        await self._answers.put(go_on)

    async def failed(self, error: WorkerError) -> None:
        """A worker ends with this error."""
        self._errors.append(error)

    async def errors(self) -> list[WorkerError]:
        return self._errors
