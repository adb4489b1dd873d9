"""The metrics of the services as documents show them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from detex_core.grpc_server.call_metrics import CallMetrics
from detex_core.metrics import new_registry
from detex_generator.metrics import GeneratorMetrics
from detex_trainer.metrics import JobsCollector, TrainerMetrics

HEADS = ["metric", "type", "labels", "meaning"]
# Names as they are scraped; families of these types carry them without the suffix.
SUFFIXES = {"counter": "_total", "info": "_info"}


def shared_metrics() -> list[list[str]]:
    """Rows of the metrics of both services but for the usual ones of the process."""
    registry = new_registry("trainer")
    calls = CallMetrics(registry)
    return [row for row in _rows(registry, calls) if row[0].startswith(("`detex_", "`grpc_"))]


def trainer_metrics() -> list[list[str]]:
    """Rows of the trainer's own metrics."""
    registry = CollectorRegistry()
    metrics = TrainerMetrics(registry)
    jobs = JobsCollector(dict)
    registry.register(jobs)
    return list(_rows(registry, metrics))


def generator_metrics() -> list[list[str]]:
    """Rows of the generator's own metrics."""
    registry = CollectorRegistry()
    return list(_rows(registry, GeneratorMetrics(registry)))


def _rows(registry: Collector, owner: object) -> Iterator[list[str]]:
    """(name, type, labels, meaning) of each family; `owner` holds the metrics, which know their labels."""
    labels = {
        family.name: tuple(metric._labelnames)
        for metric in vars(owner).values()
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
