"""The DAGs in a real Airflow, with the demo.

    airflow.py BINARY     with the Python of a venv that has Airflow; runs at the root of the repository

The scheduler is not started: `airflow dags test` runs every task of a DAG in this process.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

DAGS = Path("deploy/airflow").resolve()
LOADED = "import sys; sys.path.insert(0, sys.argv[1]); import rawmart_dags as dags\n"

# What each exit code of rawmart becomes, by the binary that ends with that code.
CODES = LOADED + """
AirflowException, AirflowFailException = dags.AirflowException, dags.AirflowFailException
for code in (0, 3):
    assert dags.rawmart(str(code))["exit"] == code
for code in (5, 6, 130, 143):
    try:
        dags.rawmart(str(code))
    except AirflowFailException:
        raise SystemExit(f"exit code {code} is not tried again")
    except AirflowException:
        continue
    raise SystemExit(f"exit code {code} is no failure")
for code in (1, 2, 4, 7):
    try:
        dags.rawmart(str(code))
    except AirflowFailException as error:
        assert str(code) in str(error)
        continue
    raise SystemExit(f"exit code {code} does not fail at once")
"""

# The interval of a day in Seoul, as Airflow gives it in UTC; and an interval of an hour across midnight.
DATES = LOADED + """
from datetime import datetime, timezone
utc = lambda *parts: datetime(*parts, tzinfo=timezone.utc)
assert dags.dates(utc(2019, 4, 1, 15), utc(2019, 4, 2, 15)) == ("2019-04-02", "2019-04-02")
assert dags.dates(utc(2019, 4, 1, 14, 30), utc(2019, 4, 1, 15, 30)) == ("2019-04-01", "2019-04-02")
assert dags.dates(utc(2019, 4, 1, 15), utc(2019, 4, 1, 15)) == ("2019-04-02", "2019-04-02")
assert dags.dates(None, None) == (None, None)
"""


def main():
    binary = Path(sys.argv[1]).resolve()
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in ("rawmart.toml", "sql", "fixtures"):
            source = Path(name)
            shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
        environment = {
            **os.environ,
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "RAWMART_BINARY": str(binary),
            "RAWMART_CONFIG": str(folder / "rawmart.toml"),
            "RAWMART_TIMEZONE": "Asia/Seoul",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

        def call(what, *command, exit=0, **more):
            done = subprocess.run(
                list(map(str, command)),
                env={**environment, **more},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
            if done.returncode != exit:
                raise SystemExit(f"FAILED {what}: exit {done.returncode}, expected {exit}\n{done.stdout[-6000:]}")
            print(f"  ok  {what}")
            return done.stdout

        call("airflow makes its database", "airflow", "db", "migrate")
        errors = call("airflow imports the DAGs", "airflow", "dags", "list-import-errors")
        if "No data found" not in errors:
            raise SystemExit(errors)

        fake = folder / "fake"
        result = json.dumps({"outcome": "done", "commit": 1, "sources": {}, "marts": []})
        fake.write_text(f"#!/bin/sh\necho '{result}'\nexit $3\n")
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        call("each exit code has its answer", sys.executable, "-c", CODES, DAGS, RAWMART_BINARY=str(fake))
        call("an interval becomes dates of the lake's zone", sys.executable, "-c", DATES, DAGS)

        def task_test(what, dag, *more, exit=0):
            return call(what, "airflow", "dags", "test", dag, *more, exit=exit)

        task_test("`rawmart` absorbs the demo", "rawmart", "2024-04-04T01:10:00")
        said = json.loads(call("the lake is there", binary, "--config", folder / "rawmart.toml", "--output", "json", "tables"))
        rows = {table["name"]: table["rows"] for table in said["tables"]}
        expected = json.loads(Path("fixtures/expected/counts.json").read_text(encoding="utf-8"))
        if rows.get("events") != expected["kept"]:
            raise SystemExit(f"FAILED rows of events: {rows}, expected {expected}")

        dates = json.dumps({"from": "2019-04-02", "to": "2019-04-02", "raw": True})
        said = task_test("`rawmart_rebuild` makes a day anew", "rawmart_rebuild", "--conf", dates)
        if "--from 2019-04-02 --to 2019-04-02 --raw" not in said:
            raise SystemExit(f"FAILED the command of a rebuild\n{said[-6000:]}")

        # A mart that fails on its rows: the events are published, `run` is well, `marts` fails.
        (folder / "sql" / "marts" / "broken.sql").write_text("SELECT 1 / (raw_record - raw_record) AS n FROM events\n")
        said = task_test("a mart that failed fails the task `marts` alone", "rawmart", "2024-04-04T02:10:00", exit=1)
        if "marts that were not built" not in said or "broken" not in said:
            raise SystemExit(f"FAILED the reason is not told\n{said[-6000:]}")


main()
