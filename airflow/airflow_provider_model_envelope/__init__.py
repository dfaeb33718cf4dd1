"""Model Envelope in Airflow: the operator is in `operators`, what it defers to in `triggers`."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """What Airflow lists about this package."""
    integration = "Model Envelope"
    return {
        "package-name": "airflow-provider-model-envelope",
        "name": integration,
        "description": "Maps functions of Model Envelopes over tables, each run once.",
        "integrations": [{"integration-name": integration, "tags": ["software"]}],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_provider_model_envelope.operators"],
            }
        ],
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_provider_model_envelope.triggers"],
            }
        ],
    }
