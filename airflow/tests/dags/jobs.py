"""A task in a worker, one in the triggerer, one for each half of a table, and two with more options.

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

with DAG("options", **DAGS):
    EnvelopeBatchOperator(
        **JOB
        | {
            "task_id": "both",
            "query": {"old": JOB["query"], "new": "score:2"},
            "output_table": "{{ dag_run.conf['output'] }}/both",
            "columns": ["id", "part"],
            "mode": None,
            "merge_on": ["id"],
            "partition_by": "part",
        },
        deferrable=True,
    )
    EnvelopeBatchOperator(
        **JOB
        | {
            "task_id": "groups",
            "query": "total",
            "output_table": "{{ dag_run.conf['output'] }}/groups",
            "columns": None,
            "group_by": ["part"],
            "format": "parquet",
        }
    )
