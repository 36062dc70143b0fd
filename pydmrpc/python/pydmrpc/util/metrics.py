"""Counters, gauges and histograms of a user's program."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from typing import Any

#: Different values of tags that one metric keeps: later ones are dropped, so that a mistake in tags does not fill the memory.
MAX_SERIES = 10_000


class _Records:
    """What was recorded of all metrics of a name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.lock = threading.Lock()
        self.series: dict[tuple[tuple[str, str], ...], Any] = {}


_registry: dict[str, _Records] = {}
_registry_lock = threading.Lock()


class Metric:
    """What the three kinds have in common: a name, keys of tags, default tags. Metrics of one name in a process are one.

    Args:
        name: letters, digits and ``_``.
        description: for people.
        tag_keys: which tags a record has.

    Raises:
        ValueError: if the name is empty.
        TypeError: if the name is no string, or `tag_keys` no tuple of strings.
    """

    kind = "untyped"

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError("a metric's name must be a str")
        if not name:
            raise ValueError("a metric must have a name")
        keys = () if tag_keys is None else tag_keys
        if not isinstance(keys, tuple):
            raise TypeError("tag_keys must be a tuple of strings")
        if not all(isinstance(key, str) for key in keys):
            raise TypeError("tag_keys must be strings")
        self._name = name
        self._description = description
        self._tag_keys = keys
        self._default_tags: dict[str, str] = {}
        with _registry_lock:
            self._records = _registry.setdefault(name, _Records(self.kind))
        if self._records.kind != self.kind:
            raise ValueError(f"{name} is a {self._records.kind} already")

    def set_default_tags(self, default_tags: dict[str, str]) -> Metric:
        """Sets tags that records have which name no others; gives the metric itself.

        Raises:
            ValueError: for tags that `tag_keys` does not have.
            TypeError: for values that are not strings.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"{key} is none of the tags of {self._name}")
            if not isinstance(value, str):
                raise TypeError("values of tags must be strings")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, keys of tags and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _tags(self, tags: dict[str, str] | None) -> tuple[tuple[str, str], ...]:
        given = tags or {}
        for key, value in given.items():
            if not isinstance(value, str):
                raise TypeError("values of tags must be strings")
            if key not in self._tag_keys:
                raise ValueError(f"{key} is none of the tags of {self._name}")
        whole = self._default_tags | given
        missing = [key for key in self._tag_keys if key not in whole]
        if missing:
            raise ValueError(f"{self._name} needs values of its tags {', '.join(missing)}")
        return tuple(sorted(whole.items()))

    def _record(self, tags: dict[str, str] | None, change: Any) -> None:
        key = self._tags(tags)
        with self._records.lock:
            series = self._records.series
            if key in series or len(series) < MAX_SERIES:
                series[key] = change(series.get(key))

    def __reduce__(self) -> Any:
        return _again, (type(self), self._arguments(), self._default_tags)

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self._tag_keys


def _again(kind: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    return kind(*arguments).set_default_tags(default_tags)


class Counter(Metric):
    """A sum that only grows."""

    kind = "counter"

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Adds to it.

        Raises:
            ValueError: if `value` is not positive, or a tag is missing or unknown.
            TypeError: if it is no number.
        """
        if not isinstance(value, (int, float)):
            raise TypeError("value must be a number")
        if value <= 0:
            raise ValueError("value must be greater than 0")
        self._record(tags, lambda old: (old or 0.0) + value)


class Gauge(Metric):
    """A value that goes up and down."""

    kind = "gauge"

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Sets it; None leaves it.

        Raises:
            ValueError: if a tag is missing or unknown.
            TypeError: if `value` is no number.
        """
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError("value must be a number")
        self._record(tags, lambda old: float(value))


class Histogram(Metric):
    """How many values fall between which boundaries.

    Args:
        boundaries: upper ends of the buckets, positive and growing.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError("a histogram needs boundaries")
        if any(boundary <= 0 for boundary in boundaries):
            raise ValueError("boundaries must be greater than 0")
        self.boundaries = list(boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Counts a value.

        Raises:
            ValueError: if a tag is missing or unknown.
            TypeError: if `value` is no number.
        """
        if not isinstance(value, (int, float)):
            raise TypeError("value must be a number")

        def count(old: Any) -> Any:
            counts, total = old or ([0] * (len(self.boundaries) + 1), 0.0)
            counts[bisect.bisect_left(self.boundaries, value)] += 1
            return counts, total + value

        self._record(tags, count)

    @property
    def info(self) -> dict[str, Any]:
        """As of any metric, and the boundaries."""
        return super().info | {"boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys


def snapshot() -> dict[str, dict[tuple[tuple[str, str], ...], Any]]:
    """All that was recorded in this process: by metric, by tags. A histogram's is counts of its buckets and their sum."""
    with _registry_lock:
        registered = dict(_registry)
    taken: dict[str, dict[tuple[tuple[str, str], ...], Any]] = {}
    for name, records in registered.items():
        with records.lock:
            taken[name] = dict(records.series)
    return taken
