"""Counters with labels are there, at 0, before anything happens: `increase()` misses what a series is born with."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter

from detex_core.grpc_server.call_metrics import CallMetrics
from detex_generator.metrics import GeneratorMetrics
from detex_protos.v1 import trainer_pb2
from detex_trainer.metrics import TrainerMetrics

# Base models are those of the settings; see GeneratorMetrics.serves.
_OF_SETTINGS = {"detex_generator_images"}


@pytest.mark.parametrize("make", [GeneratorMetrics, TrainerMetrics], ids=["generator", "trainer"])
def test_labelled_counters_begin_at_zero(make: Callable[[CollectorRegistry], object]) -> None:
    counters = [metric for metric in vars(make(CollectorRegistry())).values() if isinstance(metric, Counter)]
    assert len(counters) > 5
    for (family,) in (counter.collect() for counter in counters):
        values = [sample.value for sample in family.samples if sample.name.endswith("_total")]
        assert family.name in _OF_SETTINGS or (values and set(values) == {0}), family.name


def test_images_of_the_configured_base_models_begin_at_zero() -> None:
    registry = CollectorRegistry()
    GeneratorMetrics(registry).serves(["tiny"])
    assert registry.get_sample_value("detex_generator_images_total", {"base_model": "tiny"}) == 0


def test_calls_of_every_method_begin_at_zero() -> None:
    registry = CollectorRegistry()
    service = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"]
    CallMetrics(registry).serves([service.full_name])
    kinds = {"GetJob": "UNARY", "UploadTrainingSet": "CLIENT_STREAM", "WatchJob": "SERVER_STREAM"}
    for method, kind in kinds.items():
        labels = {"grpc_type": kind, "grpc_service": service.full_name, "grpc_method": method}
        assert registry.get_sample_value("grpc_server_started_total", labels) == 0
        for code in ("OK", "INTERNAL", "UNAVAILABLE"):
            assert registry.get_sample_value("grpc_server_handled_total", labels | {"grpc_code": code}) == 0
