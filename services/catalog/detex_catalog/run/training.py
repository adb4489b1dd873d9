"""Concepts that are missing: photos up, jobs submitted, many at once, found again after any kill.

The trainer's id of the photos is in the journal before a job is submitted on them, and the idempotency key follows
from what is trained. So the same submission gives the same job again, whether or not this process heard of the first.
"""

import time
from collections import deque
from queue import Queue
from threading import Event, Thread

import grpc

from detex_catalog.run.drawing import worth_another_try
from detex_catalog.run.news import News, NotTrained, ServiceAway, ServiceBack, ThreadFailed, Trained
from detex_catalog.run.recorder import Recorder
from detex_catalog.table.catalog import ConceptOrder
from detex_client import DetexClientError, Hyperparameters, Job, JobState, Method, TrainerClient

POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0


def idempotency_key(order: ConceptOrder, attempt: int, training_set_id: str) -> str:
    """The key of a job, the same for the same photos, settings and attempt; at most 128 characters."""
    return f"catalog-{order.fingerprint[:32]}-{attempt}-{training_set_id}"[:128]


class Training:
    """Trains orders from a thread of its own and tells what became of them.

    Args:
        trainer: The trainer.
        recorder: Where photos and jobs are noted before they are built upon.
        news: Where it tells.
        limit: Jobs that are submitted and have not ended, at most.
    """

    def __init__(self, trainer: TrainerClient, recorder: Recorder, news: "Queue[News]", *, limit: int) -> None:
        self._trainer = trainer
        self._recorder = recorder
        self._news = news
        self._limit = limit
        self._waiting: deque[ConceptOrder] = deque()
        self._jobs: dict[str, tuple[ConceptOrder, Job]] = {}
        self._not_before = 0.0
        self._ending = Event()
        self._thread = Thread(target=self._run, name="training", daemon=True)

    def start(self, orders: list[ConceptOrder]) -> None:
        """Begin with these, in this order."""
        self._waiting.extend(orders)
        if orders:
            self._thread.start()

    def end(self, seconds: float) -> bool:
        """Submit no more and look no more; jobs go on, and a later run finds them. Whether the thread has ended."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def progress(self) -> list[Job]:
        """The jobs under way as they were looked at last."""
        return [job for _, job in list(self._jobs.values())]

    def _run(self) -> None:
        pause = POLL_SECONDS
        away = False
        try:
            while not self._ending.is_set() and (self._waiting or self._jobs):
                try:
                    self._step()
                    pause = POLL_SECONDS
                    if away:
                        away = False
                        self._news.put(ServiceBack("trainer"))
                except DetexClientError as error:
                    if not worth_another_try(error):
                        raise
                    away = True
                    self._news.put(ServiceAway("trainer", error))
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                self._ending.wait(pause)
        except Exception as error:
            self._news.put(ThreadFailed(error))

    def _step(self) -> None:
        while self._waiting and len(self._jobs) < self._limit and time.monotonic() >= self._not_before:
            if self._ending.is_set():
                return
            order = self._waiting[0]
            try:
                job = self._submit(order)
            except DetexClientError as error:
                if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # the queue is full: not a service that is away
                    self._not_before = time.monotonic() + (error.retry_delay_seconds or 5.0)
                    break
                if worth_another_try(error):
                    raise
                self._waiting.popleft()
                self._fail(order, error.message)
                continue
            self._waiting.popleft()
            self._jobs[job.job_id] = (order, job)
        for job_id, (order, _) in list(self._jobs.items()):
            try:
                job = self._trainer.job(job_id)
            except DetexClientError as error:
                if error.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                del self._jobs[job_id]
                self._fail(order, error.message)
                continue
            self._jobs[job_id] = (order, job)
            if job.state.ended:
                del self._jobs[job_id]
                self._conclude(order, job)

    def _submit(self, order: ConceptOrder) -> Job:
        state = self._recorder.state.concept(order)
        # A job that failed, or whose concept is gone by now, is followed by another one, under a key of its own.
        if state.message or state.version or not state.training_set_id:
            self._upload(order, state.attempt + 1)
        try:
            return self._submit_once(order)
        except DetexClientError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
        # Nobody submitted a job on these photos in time, and the trainer has deleted them.
        self._upload(order, self._recorder.state.concept(order).attempt)
        return self._submit_once(order)

    def _upload(self, order: ConceptOrder, attempt: int) -> None:
        photos = [each.photo for each in order.photos]
        training_set = self._trainer.upload(photos, class_word=order.class_word)
        self._recorder.concept("training", order, attempt=attempt, training_set_id=training_set.training_set_id)

    def _submit_once(self, order: ConceptOrder) -> Job:
        state = self._recorder.state.concept(order)
        hyperparameters: Hyperparameters = {"steps": order.training_steps} if order.training_steps else {}
        job = self._trainer.submit(
            state.training_set_id,
            name=order.name,
            method=Method(order.method),
            attributes=order.attributes,
            base_model=order.base_model,
            idempotency_key=idempotency_key(order, state.attempt, state.training_set_id),
            **hyperparameters,
        )
        if state.job_id != job.job_id:
            self._recorder.concept("job", order, job_id=job.job_id)
        return job

    def _conclude(self, order: ConceptOrder, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED or job.concept is None:
            self._fail(order, job.failure.message if job.failure else f"its job was {job.state}")
            return
        seconds = (job.end_time - job.create_time).total_seconds() if job.end_time else 0.0
        steps = int(job.hyperparameters.get("steps", 0))
        version = job.concept.version
        self._recorder.concept("concept", order, version=version, seconds=seconds, steps=steps)
        self._news.put(Trained(order, version, seconds, steps))

    def _fail(self, order: ConceptOrder, message: str) -> None:
        self._recorder.concept("concept_failed", order, message=message or "no reason was given")
        self._news.put(NotTrained(order, message))
