"""
linearize.py -- whether a history of concurrent calls can be told as one after the other.

Each call has the instants between which it took effect, and its result. A history is linearizable
if there is an order of its calls that keeps to the instants (who returned before another began comes
first) and in which each result is right (Herlihy and Wing 1990). The search is that of Wing and Gong
(1993), event by event: of each state that the store may be in, and the calls under way that have
taken effect in it, one copy is kept (Lowe 2017); and a call takes effect no earlier than some call
needs it to have. So a history may be of any length: what counts is how many calls are under way at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeAlias


class Call(NamedTuple):
    """One call: what was asked, what came back, and the instants of both, of one clock."""

    begin: int
    end: int
    name: str
    arguments: Hashable
    result: Hashable


class ImpossibleError(Exception):
    """No state of the store gives this call its result."""


Apply: TypeAlias = Callable[[Hashable, Call], Hashable]  # the state after; raises ImpossibleError


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
                after = (apply(state, call), done | {other})
            except ImpossibleError:
                continue
            if after not in seen:
                seen.add(after)
                left.append(after)
    return found


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
