"""Two DAGs for Airflow 3 and for Airflow 2.9 or later: `rawmart` and `rawmart_rebuild`.

    rawmart           every hour: `rawmart run`, then a task that fails if a mart failed
    rawmart_rebuild   by hand or as a backfill: `rawmart rebuild --from DATE --to DATE`

Copy this file into the folder of the DAGs. Three environment variables of the workers say where things are:

    RAWMART_CONFIG     the configuration file; required
    RAWMART_BINARY     the binary; the default is `rawmart` on the PATH
    RAWMART_TIMEZONE   the `timezone` of the configuration; the default is UTC

The exit code of rawmart decides what becomes of a task:

    0                  The task succeeds. Its counts go to XCom.
    3                  The events are published, and a mart failed. The task succeeds, and the task `marts` fails.
    5, 6, 130, 143     The task is tried again.
    1, 2, 4, 7         The task fails at once, because another attempt cannot help.

A repeated run changes nothing, so another attempt is always safe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.timetables.interval import CronDataIntervalTimetable

try:
    from airflow.sdk import Param, dag, get_current_context, task
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.models.param import Param
    from airflow.operators.python import get_current_context

BINARY = os.environ.get("RAWMART_BINARY", "rawmart")
TIMEZONE = os.environ.get("RAWMART_TIMEZONE", "UTC")

MART_FAILED = 3
TRIED_AGAIN = {5, 6, 130, 143}

COMMON = {
    "start_date": datetime(2024, 1, 1),
    "catchup": False,
    # A second run would only wait, or end with exit code 5.
    "max_active_runs": 1,
    # Six attempts within about an hour.
    "default_args": {
        "retries": 5,
        "retry_delay": timedelta(minutes=2),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
    },
}


def rawmart(*arguments):
    """Runs the binary, and prints its messages to the log of the task. Returns the counts for XCom."""
    command = [BINARY, "--output", "json", *arguments]
    print("$", *command, flush=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace") as process:
            try:
                for line in process.stderr:
                    print(line, end="", flush=True)
                code = process.wait()
            except BaseException:
                # Airflow ends the task: rawmart ends between two steps, and loses nothing.
                process.send_signal(signal.SIGTERM)
                raise
        output.seek(0)
        text = output.read()
    if code in TRIED_AGAIN:
        raise AirflowException(f"rawmart ended with exit code {code}; another attempt can help")
    if code not in (0, MART_FAILED):
        raise AirflowFailException(f"rawmart ended with exit code {code}: {text.strip()}")
    return counts(code, json.loads(text))


def counts(code, result):
    """What is worth an XCom: a few numbers for each source, and the marts by outcome."""
    sources = {
        name: {key: source[key] for key in ("added", "records", "events", "kept", "duplicates", "rejects")}
        for name, source in result["sources"].items()
    }
    marts = {}
    for mart in result["marts"]:
        marts.setdefault(mart["outcome"], []).append(mart["name"])
    return {"exit": code, "outcome": result["outcome"], "commit": result["commit"], "sources": sources, "marts": marts}


@task(retries=0)
def marts(result: dict):
    """Fails if a mart failed. The events are published all the same, and the log of the task before has the reasons."""
    if result["exit"] == MART_FAILED:
        raise AirflowFailException(f"marts that were not built: {json.dumps(result['marts'])}")


@dag(dag_id="rawmart", schedule="10 * * * *", doc_md=__doc__, **COMMON)
def hourly():
    @task
    def run():
        return rawmart("run")

    marts(run())


# The cron schedule of Airflow 3 makes the interval of a run empty: `@daily` then means the day that has just begun.
# This timetable has the interval of Airflow 2: the run that starts at the end of a day is for that day.
@dag(
    dag_id="rawmart_rebuild",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone=TIMEZONE),
    is_paused_upon_creation=True,
    params={
        "from": Param(None, type=["null", "string"], format="date", description="first event date, in the lake's zone"),
        "to": Param(None, type=["null", "string"], format="date", description="last event date, inclusive"),
        "raw": Param(False, type="boolean", description="read raw objects even where only rules changed"),
    },
    doc_md=__doc__,
    **COMMON,
)
def reprocessing():
    @task
    def rebuild():
        context = get_current_context()
        params = context["params"]
        first, last = dates(context.get("data_interval_start"), context.get("data_interval_end"))
        first, last = params["from"] or first, params["to"] or params["from"] or last
        if not first or not last:
            raise AirflowFailException("this run has no data interval: give the parameters `from` and `to`")
        return rawmart("rebuild", "--from", first, "--to", last, *(["--raw"] if params["raw"] else []))

    marts(rebuild())


def dates(start, end):
    """The first and the last event date of an interval, in the lake's zone. The end does not belong to the interval."""
    if start is None or end is None:
        return None, None
    zone = ZoneInfo(TIMEZONE)
    last = max(start, end - timedelta(microseconds=1))
    return start.astimezone(zone).date().isoformat(), last.astimezone(zone).date().isoformat()


hourly()
reprocessing()
