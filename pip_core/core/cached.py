"""A property that is computed once per object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from typing_extensions import Self  # in typing from Python 3.11 on

Value = TypeVar("Value")


class cached_property(Generic[Value]):  # noqa: N801 - named as the one in functools
    """As `functools.cached_property` of Python 3.12 and later, on every version.

    Before, that one holds a lock while it computes, one for all objects of a class: two threads whose
    properties use each other in another order then wait for each other for ever. Here two threads that ask at
    the same moment both compute, which only takes time.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Value: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | Value:
        if instance is None:
            return self
        # Found there before this descriptor from now on.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
