"""A task in a worker, and one in the triggerer; which job they run is told when they are triggered."""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_model_envelope.operators import EnvelopeBatchOperator

for name, deferrable in (("worker", False), ("triggerer", True)):
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
        EnvelopeBatchOperator(
            task_id="score",
            query="{{ dag_run.conf['query'] }}",
            input_table=f"{os.environ['TABLES']}/clients",
            output_table="{{ dag_run.conf['output'] }}",
            columns=["id"],
            mode="append",
            deferrable=deferrable,
            retries=2,
            retry_delay=timedelta(seconds=1),
        )
    globals()[name] = dag
