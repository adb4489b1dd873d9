"""The metrics of the services as documents show them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from detex_core.grpc_server.call_metrics import CallMetrics
from detex_core.grpc_server.readiness import readiness_gauge
from detex_core.metrics import new_registry
from detex_generator.metrics import GeneratorMetrics
from detex_trainer.dependencies import DependencyMetrics
from detex_trainer.metrics import JobsCollector, JobTable, TrainerMetrics

HEADS = ["metric", "type", "labels", "meaning"]
# Names as they are scraped; families of these types carry them without the suffix.
SUFFIXES = {"counter": "_total", "info": "_info"}


def shared_metrics() -> list[list[str]]:
    """Rows of the metrics of both services but for the usual ones of the process."""
    registry = new_registry("trainer")
    calls = CallMetrics(registry)
    ready = readiness_gauge(registry)
    return [row for row in _rows(registry, calls, ready) if row[0].startswith(("`detex_", "`grpc_"))]


def trainer_metrics() -> list[list[str]]:
    """Rows of the trainer's own metrics."""
    registry = CollectorRegistry()
    metrics = TrainerMetrics(registry)
    registry.register(JobsCollector(JobTable))
    dependencies = DependencyMetrics(registry)
    return list(_rows(registry, metrics, dependencies))


def generator_metrics() -> list[list[str]]:
    """Rows of the generator's own metrics."""
    registry = CollectorRegistry()
    return list(_rows(registry, GeneratorMetrics(registry)))


def _rows(registry: Collector, *owners: object) -> Iterator[list[str]]:
    """(name, type, labels, meaning) of each family; `owners` hold the metrics, or are one, which know their labels."""
    labels = {
        family.name: tuple(metric._labelnames)
        for owner in owners
        for metric in (owner, *vars(owner).values())
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    }
    for family in registry.collect():
        if family.name.endswith("_created"):
            continue
        names = labels.get(family.name) or _labels_of(family)
        listed = ", ".join(f"`{name}`" for name in names)
        yield [f"`{family.name}{SUFFIXES.get(family.type, '')}`", family.type, listed, family.documentation]


def _labels_of(family: Metric) -> list[str]:
    return sorted({label for sample in family.samples for label in sample.labels} - {"le"})
