"""The actor between the trial of a run and the workers that train it. It imports little, and so starts soon."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestration.trial import Message


class Told(NamedTuple):
    """What a worker says of its end."""

    error: Exception
    misses_another: bool
    """Whether it is only that another worker does not answer any more."""


class Desk:
    """Between the trial, whose own actor is busy with the present step, and who trains for it."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()
        self._errors: list[Told] = []

    async def tell(self, message: "Message") -> bool:
        """What is to be told to the trial. Returns, when the trial says so, whether to go on."""
        await self._told.put(message)
        return await self._answers.get()

    async def hear(self) -> "Message":
        return await self._told.get()

    async def answer(self, go_on: bool) -> None:
        await self._answers.put(go_on)

    async def failed(self, error: Told) -> None:
        """A worker ends with this error."""
        self._errors.append(error)

    async def errors(self) -> list[Told]:
        return self._errors
