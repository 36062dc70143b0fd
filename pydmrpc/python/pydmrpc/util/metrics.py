"""Counters, gauges and histograms of a user's program, for Prometheus and for people.

All processes of a session count together: a counter's value is the sum over them, a gauge's is what one of them set last. They are
shown by ``dmrpc metrics``, by :func:`text`, and at the port that ``dmrpc start --metrics-export-port`` or
``init(_metrics_export_port=…)`` names, about a second after they were recorded.

Example::

    requests = Counter("requests", description="answered", tag_keys=("route",))
    requests.inc(tags={"route": "/"})
"""

from __future__ import annotations

import bisect
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import prometheus_client
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pydmrpc import _tallies

#: Boundaries that a histogram has at most.
MAX_BOUNDARIES = 500

#: What each name is in this process.
_kinds: dict[str, str] = {}
_kinds_lock = threading.Lock()


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
    _boundaries: tuple[float, ...] = ()

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
        with _kinds_lock:
            kind = _kinds.setdefault(name, self.kind)
        if kind != self.kind:
            raise ValueError(f"{name} is a {kind} already")

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

    def _series(self, tags: dict[str, str] | None) -> _tallies.Name:
        """What the hub knows the numbers of these tags by: all that is needed to show them."""
        return self.kind, self._name, self._description, self._boundaries, self._tags(tags)

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
        _tallies.add(self._series(tags), 1, [(0, float(value))])


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
        _tallies.set(self._series(tags), float(value))


class Histogram(Metric):
    """How many values fall between which boundaries.

    Args:
        boundaries: upper ends of the buckets, positive and growing, not more than :data:`MAX_BOUNDARIES`.

    Raises:
        ValueError: if they are not.
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
        if len(boundaries) > MAX_BOUNDARIES:
            raise ValueError(f"a histogram has not more than {MAX_BOUNDARIES} boundaries")
        self.boundaries = list(boundaries)
        self._boundaries = tuple(map(float, boundaries))

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Counts a value.

        Raises:
            ValueError: if a tag is missing or unknown.
            TypeError: if `value` is no number.
        """
        if not isinstance(value, (int, float)):
            raise TypeError("value must be a number")
        # A count for each bucket, one for what is above all, and the sum.
        buckets = len(self._boundaries) + 1
        bucket = bisect.bisect_left(self._boundaries, value)
        _tallies.add(self._series(tags), buckets + 1, [(bucket, 1.0), (buckets, float(value))])

    @property
    def info(self) -> dict[str, Any]:
        """As of any metric, and the boundaries."""
        return super().info | {"boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys


class _Collector:
    """The session's metrics as Prometheus's client library takes them."""

    def collect(self) -> Iterator[prometheus_client.Metric]:
        series: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
        forms: dict[str, tuple[str, list[float]]] = {}
        descriptions: dict[str, str] = {}
        for (kind, name, description, boundaries, tags), numbers in _tallies.totals():
            if forms.setdefault(name, (kind, boundaries)) != (kind, boundaries):
                # Of two programs that mean different things by a name, one is shown.
                continue
            descriptions.setdefault(name, description)
            labels = tuple((key, value) for key, value in tags)
            known = series.setdefault(name, {}).get(labels)
            if known is not None and kind != "gauge":
                # They describe it differently.
                numbers = [a + b for a, b in zip(known, numbers)]
            series[name][labels] = numbers
        for name, (kind, boundaries) in forms.items():
            yield _family(kind, name, descriptions[name], boundaries, series[name])


def _family(
    kind: str,
    name: str,
    description: str,
    boundaries: list[float],
    series: dict[tuple[tuple[str, str], ...], list[float]],
) -> Any:
    keys = sorted({key for labels in series for key, _ in labels})
    family = _FAMILIES[kind](_allowed(name), description, labels=[_allowed(key) for key in keys])
    for labels, numbers in series.items():
        values = [dict(labels).get(key, "") for key in keys]
        if kind == "histogram":
            *counts, total = numbers
            ends = [*map(str, boundaries), "+Inf"]
            family.add_metric(values, list(zip(ends, itertools.accumulate(counts))), total)
        else:
            family.add_metric(values, numbers[0])
    return family


_FAMILIES: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _allowed(name: str) -> str:
    """A name as all of Prometheus's tools take it."""
    return re.sub(r"[^a-zA-Z0-9_]|^(?=[0-9])", "_", name)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Collector())
    return registry


def text() -> str:
    """All metrics of the session in Prometheus's text format; none if there is no session.

    Counters have ``_total`` behind their names, as Prometheus wants it.
    """
    return prometheus_client.generate_latest(_registry()).decode()


def serve(port: int) -> Callable[[], None]:
    """Serves them by HTTP at a port of this host's loopback interface, until what it gives is called.

    Raises:
        OSError: if the port is taken.
    """
    server, thread = prometheus_client.start_http_server(port, "127.0.0.1", _registry())

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
