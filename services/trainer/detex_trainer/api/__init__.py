"""The trainer over gRPC: translation between messages and the domain, nothing else."""

from detex_trainer.api.servicer import TrainerServicer

__all__ = ["TrainerServicer"]
