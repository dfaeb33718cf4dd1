"""A task in a worker, one in the triggerer, and one for each half of a table.

Which job they run is told when they are triggered.
"""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_model_envelope.operators import EnvelopeBatchOperator

JOB = {
    "task_id": "score",
    "query": "{{ dag_run.conf['query'] }}",
    "input_table": f"{os.environ['TABLES']}/clients",
    "output_table": "{{ dag_run.conf['output'] }}",
    "columns": ["id"],
    "mode": "append",
    "local": 2,
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
}
DAGS = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}

with DAG("worker", **DAGS):
    EnvelopeBatchOperator(**JOB)

with DAG("triggerer", **DAGS):
    EnvelopeBatchOperator(**JOB, deferrable=True)

with DAG("mapped", **DAGS):
    EnvelopeBatchOperator.partial(**JOB).expand(where=["id < 200000", "id >= 200000"])
