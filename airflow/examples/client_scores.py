"""Every morning: yesterday's clients arrive, the model of the day scores them, somebody is told.

`sales.clients` and `sales.scores` are tables in the folder that `ENVELOPE_WAREHOUSE` names.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from airflow.sdk import dag, task

from airflow_provider_model_envelope.operators import EnvelopeBatchOperator


@dag(schedule="0 6 * * *", start_date=datetime(2026, 11, 1), catchup=False)
def client_scores():
    @task
    def extract(ds=None):
        """Stands for whatever brings the clients of a day; it may be run again, too."""
        folder = Path(os.environ["ENVELOPE_WAREHOUSE"], "sales.db", "clients", f"day={ds}")
        folder.mkdir(parents=True, exist_ok=True)
        clients = pa.table({"id": range(100), "x": [index + 0.25 for index in range(100)]})
        pq.write_table(clients, folder / "clients.parquet")

    score = EnvelopeBatchOperator(
        task_id="score",
        query="name=score,stage=prod",
        input_table="sales.clients",
        output_table="sales.scores",
        columns=["id", "day"],
        where="day = DATE '{{ ds }}'",
        mode="append",
        retries=3,
        retry_delay=timedelta(minutes=5),
    )

    @task
    def report(result):
        print(f"{result['rows']} clients by {result['digest']}, version {result['version']} of the table")

    extract() >> score
    report(score.output)


client_scores()
