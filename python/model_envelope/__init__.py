"""Put a Python function in an envelope, and get the rest for free.

>>> import model_envelope as me
>>> envelope = me.save_model(query_function=predict_ltv, name="client_ltv_model",
...                          tags={"region": "US"}, api_input=training_data)   # doctest: +SKIP
>>> me.get("client_ltv_model").predict(training_data)                          # doctest: +SKIP

Loading an envelope runs its author's code: get envelopes only from people you trust.
"""

from ._batch import BatchJob, BatchProgress, BatchResult, batch
from ._envelope import Envelope, EnvelopeList, find, get
from ._errors import (
    BadEnvelope,
    Conflict,
    EnvelopeError,
    EnvironmentMismatch,
    InvalidInput,
    JobCancelled,
    NotAllowed,
    NotFound,
    NotServable,
    PredictionFailed,
    Unreachable,
)
from ._save import save_model

__all__ = [
    "BadEnvelope",
    "BatchJob",
    "BatchProgress",
    "BatchResult",
    "Conflict",
    "Envelope",
    "EnvelopeError",
    "EnvelopeList",
    "EnvironmentMismatch",
    "InvalidInput",
    "JobCancelled",
    "NotAllowed",
    "NotFound",
    "NotServable",
    "PredictionFailed",
    "Unreachable",
    "batch",
    "find",
    "get",
    "save_model",
]
__version__ = "0.1.0"

for _name in __all__:
    globals()[_name].__module__ = __name__  # where users import them from, and what they see in messages
