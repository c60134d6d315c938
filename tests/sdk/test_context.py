"""The place of the running code."""

import contextvars

from workledger.sdk.context import current, placed


def test_a_place_that_is_left_from_another_context_makes_no_noise():
    """A coroutine of a loop that was closed is ended by the garbage collector, wherever that runs."""
    place = placed(None)
    contextvars.copy_context().run(place.__enter__)
    place.__exit__(None, None, None)
    assert current() is None
