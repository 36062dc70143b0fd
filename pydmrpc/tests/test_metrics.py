"""`util.metrics`: what all processes count is in one place."""

import socket
import urllib.error
import urllib.request

import pydmrpc
import pytest
from conftest import until
from prometheus_client.parser import text_string_to_metric_families
from pydmrpc.util import metrics


@pytest.fixture
def session():
    pydmrpc.shutdown()
    yield pydmrpc.init(num_cpus=2, pool="128MiB")
    pydmrpc.shutdown()


def samples(text):
    """Samples of a text as Prometheus parses it: values by name and tags."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shows(expected, text=metrics.text):
    until(lambda: expected.items() <= samples(text()).items(), f"the metrics show {expected}")


def test_a_counter_is_the_sum_over_all_processes(session):
    counter = metrics.Counter("answered", "requests", tag_keys=("route",))

    @pydmrpc.remote
    class Server:
        def answer(self, counter):
            counter.inc(2, tags={"route": "/"})

    servers = [Server.remote() for _ in range(2)]
    pydmrpc.get([server.answer.remote(counter) for server in servers])
    counter.inc(tags={"route": "/"})
    counter.inc(tags={"route": "/other"})
    shows({("answered_total", ("route", "/")): 5, ("answered_total", ("route", "/other")): 1})
    assert "# HELP answered_total requests" in metrics.text()


def test_a_gauge_is_what_was_set_last(session):
    gauge = metrics.Gauge("level")
    for value in (1, float("inf"), -3):
        gauge.set(value)
        assert samples(metrics.text())[("level",)] == value


def test_a_histogram_counts_buckets(session):
    @pydmrpc.remote
    def measure(value):
        metrics.Histogram("seconds", boundaries=[1, 10]).observe(value)

    pydmrpc.get([measure.remote(value) for value in (0.5, 1, 5, 100)])
    shows(
        {
            ("seconds_bucket", ("le", "1.0")): 2,
            ("seconds_bucket", ("le", "10.0")): 3,
            ("seconds_bucket", ("le", "+Inf")): 4,
            ("seconds_sum",): 106.5,
            ("seconds_count",): 4,
        }
    )


def test_what_a_worker_counted_that_ended_is_there(session):
    @pydmrpc.remote(max_calls=1)
    def count():
        metrics.Counter("ended").inc()

    @pydmrpc.remote
    class Leaver:
        def leave(self):
            metrics.Counter("ended").inc()
            pydmrpc.actor.exit_actor()

    pydmrpc.get([count.remote() for _ in range(3)])
    with pytest.raises(pydmrpc.exceptions.RayActorError):
        pydmrpc.get(Leaver.remote().leave.remote())
    shows({("ended_total",): 4})


def test_a_session_begins_with_none(session):
    metrics.Counter("earlier").inc()
    pydmrpc.shutdown()
    assert metrics.text() == ""
    pydmrpc.init(num_cpus=1)
    assert not any(name.startswith("earlier") for name, *_ in samples(metrics.text()))


def test_names_that_prometheus_does_not_know(session):
    metrics.Counter("1 odd-name", 'a "description"\nof two lines', tag_keys=("a key",)).inc(tags={"a key": 'a "value"\n'})
    assert samples(metrics.text()) == {("_1_odd_name_total", ("a_key", 'a "value"\n')): 1}


def test_two_descriptions_of_one_counter(session):
    metrics.Counter("described", "one way").inc()
    metrics.Counter("described", "another way").inc()
    assert samples(metrics.text()) == {("described_total",): 2}


def init_at_a_free_port():
    """A session that serves its metrics; the port. One that was free may be somebody else's a moment later."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        try:
            pydmrpc.init(num_cpus=1, _metrics_export_port=port)
        except OSError:
            continue
        return port
    raise OSError("no free port")


def test_a_port_that_is_taken():
    pydmrpc.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError):
            pydmrpc.init(_metrics_export_port=taken.getsockname()[1])
        assert not pydmrpc.is_initialized()


def test_prometheus_finds_them_at_a_port():
    pydmrpc.shutdown()
    port = init_at_a_free_port()

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            return answer.read().decode()

    @pydmrpc.remote
    def count():
        metrics.Counter("scraped").inc()

    pydmrpc.get(count.remote())
    shows({("scraped_total",): 1}, scrape)
    pydmrpc.shutdown()
    with pytest.raises(urllib.error.URLError):
        scrape()
