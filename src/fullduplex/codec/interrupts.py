"""Pulls that were interrupted: a signal's handler raised something in the midst of one, and a message is lost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Pull = TypeVar("Pull", bound=Callable[..., Any])


def interrupted() -> ConnectionAbortedError:
    """Make the error that all further pulls raise."""
    return ConnectionAbortedError("receiving was interrupted in the midst of a message")


def final_if_interrupted(pull: Pull) -> Pull:
    """Make a pull that had something to do note in ``_error``, which is final, that Ctrl-C say interrupted it."""

    @functools.wraps(pull)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        idle = not self.pending and not self.mid_message
        try:
            return pull(self, *args, **kwargs)
        except BaseException as exc:
            # Of others the steps know which are final.
            if (not isinstance(exc, Exception) or from_handler(exc)) and not idle:
                self._error = self._error or interrupted()
            raise

    return cast(Pull, guarded)


def from_handler(exc: BaseException) -> bool:
    """Tell whether a time-out is no network's, but what a signal's handler raised to end the call."""
    return isinstance(exc, TimeoutError) and exc.errno is None
