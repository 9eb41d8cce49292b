"""
linearize.py -- whether a history of concurrent calls can be told as one after the other.

Each call has the instants between which it took effect, and its result. A history is linearizable
if there is an order of its calls that keeps to the instants (who returned before another began comes
first) and in which each result is right (Herlihy and Wing 1990).

Where the order is not known it is searched for, as Wing and Gong did (1993), event by event: of each
state that the store may be in, and the calls under way that have taken effect in it, one copy is kept
(Lowe 2017). A call takes effect no earlier than some call needs it to have, but for one that changes
nothing and whose result is right, which takes effect at once: to wait gains it nothing. So a history
may be of any length; but the search grows exponentially with the calls that are under way at once.

Where the store tells the order, by the versions of what was written and read, it is enough to check
it: one order that holds is all that is asked for, and the versions promise to be it.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable
from itertools import accumulate
from typing import NamedTuple, TypeAlias


class Call(NamedTuple):
    """One call: what was asked, what came back, and the instants of both, of one clock."""

    begin: int
    end: int
    name: str
    arguments: Hashable
    result: Hashable
    version: int | None = None  # that it wrote, or at which it read; None: not known


class ImpossibleError(Exception):
    """No state of the store gives this call its result."""


Apply: TypeAlias = Callable[[Hashable, Call], Hashable]  # the state after; raises ImpossibleError


# ---- An order that is searched for ----


def first_impossible(calls: Iterable[Call], state: Hashable, apply: Apply) -> Call | None:
    """Return the first call that no order explains, or None: the history is linearizable."""
    numbered = list(enumerate(calls))
    events = [(call.begin, 0, number, call) for number, call in numbered]
    events += [(call.end, 1, number, call) for number, call in numbered]
    events.sort(key=lambda event: event[:3])  # of one instant, beginnings first: they overlap
    under_way: dict[int, Call] = {}
    states: set[tuple[Hashable, frozenset[int]]] = {(state, frozenset())}
    for _instant, ending, number, call in events:
        if not ending:
            under_way[number] = call
            states = {_settled(state, done, under_way, apply) for state, done in states}
            continue
        states = _after(states, number, under_way, apply)
        del under_way[number]
        if not states:
            return call
    return None


def _after(
    states: set[tuple[Hashable, frozenset[int]]],
    number: int,
    under_way: dict[int, Call],
    apply: Apply,
) -> set[tuple[Hashable, frozenset[int]]]:
    """Return the states in which call *number* has taken effect, after any others under way."""
    found, seen, left = set(), set(states), list(states)
    while left:
        state, done = left.pop()
        if number in done:
            found.add((state, done - {number}))
            continue
        for other, call in under_way.items():
            if other in done:
                continue
            try:
                after = _settled(apply(state, call), done | {other}, under_way, apply)
            except ImpossibleError:
                continue
            if after not in seen:
                seen.add(after)
                left.append(after)
    return found


def _settled(
    state: Hashable, done: frozenset[int], under_way: dict[int, Call], apply: Apply
) -> tuple[Hashable, frozenset[int]]:
    """Let all calls take effect that change nothing, in whatever state, and are right in this one."""
    for number, call in under_way.items():
        if number not in done and (call.name == "get" or call.result is False):
            with contextlib.suppress(ImpossibleError):
                apply(state, call)
                done |= {number}
    return state, done


# ---- An order that is told ----


def first_out_of_order(calls: Iterable[Call], state: Hashable, apply: Apply) -> Call | None:
    """Return the first call that the order of the versions does not explain, or None."""
    calls = list(calls)
    told = [
        (call.version, call.name == "read", call.begin, call)
        for call in calls
        if call.version is not None
    ]
    told.sort(key=lambda row: row[:3])
    states, versions, begun = [state], [0], 0
    for version, reads, begin, call in told:
        if call.end < begun:  # a call that comes before it in the order began after its end
            return call
        begun = max(begun, begin)
        try:
            state = apply(state, call)
        except ImpossibleError:
            return call
        if not reads:
            states.append(state)
            versions.append(version)

    # What changed nothing and has no version fits if it is right at some version between those of the
    # calls that were over before it began, and those of the calls that began after it was over.
    ends = sorted((call.end, version) for version, _reads, _begin, call in told)
    begins = sorted((begin, version) for version, _reads, begin, _call in told)
    newest = [0, *accumulate((version for _end, version in ends), max)]
    oldest = [*accumulate((version for _begin, version in reversed(begins)), min)][::-1]

    def fits(call: Call) -> bool:
        least = newest[bisect_left(ends, (call.begin, 0))]
        after = bisect_right(begins, (call.end, 1 << 62))
        most = oldest[after] if after < len(oldest) else versions[-1]
        for at in range(bisect_right(versions, least) - 1, bisect_right(versions, most)):
            with contextlib.suppress(ImpossibleError):
                apply(states[at], call)
                return True
        return False

    untold = [call for call in calls if call.version is None]
    return next((call for call in untold if not fits(call)), None)


# ---- What calls do ----


def apply_to_key(state: Hashable, call: Call) -> Hashable:
    """The calls of one key, whose state is its value; None: absent."""
    match call.name, call.arguments:
        case "get", ():
            right, after = state, state
        case "put", (value,):
            right, after = None, value
        case "delete", ():
            right, after = state is not None, None
        case "put_if_absent", (value,):
            right, after = state is None, value if state is None else state
        case "compare_and_set", (expected, new):
            right, after = state == expected, new if state == expected else state
        case "incr", (by,):
            right = after = (0 if state is None else state) + by  # type: ignore[operator]
        case _:
            raise AssertionError(call)
    if call.result != right:
        raise ImpossibleError
    return after


def apply_to_all(state: Hashable, call: Call) -> Hashable:
    """The calls of all keys at once, whose state is the tuple of their values."""
    assert isinstance(state, tuple)
    match call.name, call.arguments:
        case "read", ():
            right, after = state, state
        case "write", tuple(changes):
            right, after = None, _changed(state, changes)
        case "write_if", (at, expected, changes):
            right = state[at] == expected
            after = _changed(state, changes) if right else state
        case "move", (source, target, by):
            right = None
            after = _changed(state, ((source, state[source] - by), (target, state[target] + by)))
        case _:
            raise AssertionError(call)
    if call.result != right:
        raise ImpossibleError
    return after


def _changed(state: tuple[Hashable, ...], changes: Iterable[tuple[int, Hashable]]) -> Hashable:
    after = list(state)
    for at, value in changes:
        after[at] = value
    return tuple(after)
