"""Methods and the defaults that they have on a base model."""

from dataclasses import dataclass
from typing import Self

from detex_client.concept import BaseModel
from detex_client.hyperparameters import Hyperparameters, from_wire
from detex_client.wire_enum import Method
from detex_protos.v1 import trainer_pb2


@dataclass(frozen=True)
class MethodDescription:
    """A method.

    Attributes:
        method: Which.
        defaults: All hyperparameters of a job that sets none.
    """

    method: Method
    defaults: Hyperparameters


@dataclass(frozen=True)
class MethodDefaults:
    """Methods with their defaults on one base model.

    Attributes:
        base_model: The base model, with its family.
        methods: The method that a job has which names none comes first.
    """

    base_model: BaseModel
    methods: tuple[MethodDescription, ...]

    @classmethod
    def from_wire(cls, answer: trainer_pb2.ListMethodsResponse) -> Self:
        """From the message of the contract."""
        return cls(
            BaseModel.from_wire(answer.base_model),
            tuple(
                MethodDescription(Method.from_number(each.method), from_wire(each.defaults)) for each in answer.methods
            ),
        )
