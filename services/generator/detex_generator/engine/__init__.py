"""Continuous batching: requests of any mixture of concepts, steps and solvers share the passes of one UNet."""

from detex_generator.engine.active_request import ActiveRequest
from detex_generator.engine.engine import Engine
from detex_generator.engine.events import Event, FinishedImage, Preview, Progress, Queued
from detex_generator.engine.intake.admission import Admission

__all__ = ["ActiveRequest", "Admission", "Engine", "Event", "FinishedImage", "Preview", "Progress", "Queued"]
