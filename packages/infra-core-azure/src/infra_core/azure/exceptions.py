"""Errors of the Azure slice.

The tree::

    RuntimeError
      ConfigurationError         a setting is missing, malformed or contradicts another
    Exception
      AzureServiceError          root of what can go wrong when talking to an Azure service
        AzureTableError          the job table refused, or its settings are unusable
          JobExistsError         `create` met a record that is there already
          JobConflictError       another worker changed the record since it was read
          JobRecordError         a record cannot be stored as it is (also a ValueError)
          JobStateError          a job cannot go from this state to that one (also a ValueError)
          TableRequestError, TableConnectionError    in `job_store`, also of azure.core's classes
        JobNotFoundError         no such job
        JobTimeoutError          a job did not end in time
        OrchestrationError       a durable function did not do as asked
          OrchestrationFailedError    it ended without success
          OrchestrationTimeoutError   (also JobTimeoutError) it did not end in time
        RunServiceError
          RunNotFound            no record of the batch and job
          ResumeSourceNotFound   the run to resume from does not exist
          ResumeSourceActive     the run to resume from is still at work
"""

__all__ = [
    "AzureServiceError",
    "AzureTableError",
    "ConfigurationError",
    "JobConflictError",
    "JobExistsError",
    "JobNotFoundError",
    "JobRecordError",
    "JobStateError",
    "JobTimeoutError",
    "OrchestrationError",
    "OrchestrationFailedError",
    "OrchestrationTimeoutError",
    "ResumeSourceActive",
    "ResumeSourceNotFound",
    "RunNotFound",
    "RunServiceError",
]


class ConfigurationError(RuntimeError):
    """A setting is missing, malformed, or contradicts another; the message names the remedy."""


# What the SDK's bases of some errors keep: an answer with its connection, and a traceback.
_NOT_PICKLED = frozenset(
    {"error", "exc_traceback", "exc_type", "exc_value", "inner_exception", "model", "response"}
)


class AzureServiceError(Exception):
    """Root of the errors met while talking to an Azure service; each can be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        # A subclass is made of other arguments than its message.
        state = {name: None if name in _NOT_PICKLED else v for name, v in vars(self).items()}
        return _again, (type(self), *self.args), state


def _again(kind: type[AzureServiceError], *args: object) -> AzureServiceError:
    error = kind.__new__(kind)
    error.args = args  # an OSError takes none from the line above
    return error


class AzureTableError(AzureServiceError):
    """The job table refused an operation, or its settings are unusable."""


class JobExistsError(AzureTableError):
    """`create` met a record that exists already.

    Attributes:
        batch_id: Batch of the record.
        job_id: Job of the record.
    """

    def __init__(self, batch_id: str, job_id: str) -> None:
        self.batch_id = batch_id
        self.job_id = job_id
        super().__init__(
            f"job {job_id!r} of batch {batch_id!r} exists already; create never overwrites: "
            "use save() to replace it or update() to change what you fetched"
        )


class JobConflictError(AzureTableError):
    """Another worker changed the record between the read and the write.

    Attributes:
        ours: The record that was to be written.
        theirs: The record as it is stored now, `None` when it was deleted.
    """

    def __init__(self, message: str, *, ours: object = None, theirs: object = None) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(message)


class JobRecordError(AzureTableError, ValueError):
    """A record, or its type, cannot be stored as it is.

    Attributes:
        field: The field or property at fault, `None` when it is the record as a whole.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class JobStateError(AzureTableError, ValueError):
    """A job cannot go from the state it is in to the one asked for.

    Attributes:
        job_id: The job.
        current: State it is in.
        wanted: State that was asked for.
    """

    def __init__(self, message: str, *, job_id: str, current: object, wanted: object) -> None:
        self.job_id = job_id
        self.current = current
        self.wanted = wanted
        super().__init__(message)


class JobNotFoundError(AzureServiceError):
    """No such job."""


class JobTimeoutError(AzureServiceError):
    """A job did not come to an end in the time allowed."""


class OrchestrationError(AzureServiceError):
    """A durable function could not be started, followed or ended as asked.

    Attributes:
        status_url: Where to ask for its state, with its access code: pass it to
            `wait_for_completion` to go on waiting. Not part of the message.
        last_status: The newest `DurableStatus`, `None` before the first answer.
    """

    def __init__(
        self, message: str, *, status_url: str | None = None, last_status: object = None
    ) -> None:
        self.status_url = status_url
        self.last_status = last_status
        super().__init__(message)


class OrchestrationFailedError(OrchestrationError):
    """The durable function ended as failed, terminated or cancelled; `last_status` has why."""


class OrchestrationTimeoutError(OrchestrationError, JobTimeoutError):
    """The durable function did not end in time.

    Attributes:
        terminated: Whether it was asked to terminate.
    """

    def __init__(
        self,
        message: str,
        *,
        status_url: str | None = None,
        last_status: object = None,
        terminated: bool = False,
    ) -> None:
        super().__init__(message, status_url=status_url, last_status=last_status)
        self.terminated = terminated


class RunServiceError(AzureServiceError):
    """Root of the errors of run services."""


class RunNotFound(RunServiceError):  # noqa: N818 - the name of 0.7
    """No record of this run.

    Attributes:
        batch_id: Batch asked for.
        job_id: Job asked for.
    """

    def __init__(self, batch_id: str, job_id: str) -> None:
        self.batch_id = batch_id
        self.job_id = job_id
        super().__init__(f"no run of job {job_id!r} in batch {batch_id!r}")


class ResumeSourceNotFound(RunServiceError):  # noqa: N818 - the name of 0.7
    """The run to resume from does not exist.

    Attributes:
        batch_id: Batch asked for.
        job_id: Job asked for.
    """

    def __init__(self, batch_id: str, job_id: str) -> None:
        self.batch_id = batch_id
        self.job_id = job_id
        super().__init__(
            f"nothing to resume: job {job_id!r} of batch {batch_id!r} has no earlier run; "
            "start it without resuming"
        )


class ResumeSourceActive(RunServiceError):  # noqa: N818 - the name of 0.7
    """The run to resume from is still at work.

    Attributes:
        job_id: The job that is active.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"job {job_id!r} is still running; wait until it ends or cancel it before resuming it"
        )
