"""Readers query a table while runs rewrite it: an answer is right, or it is a loud error.

    rewrites.py BINARY     DuckDB, pyarrow and Polars, 30 rewrites of two dates

Each run brings one late event to each of two dates, so both data files are replaced. An answer must have, for each
date, the rows of one version: every event once, and never fewer than an earlier answer had.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REWRITES, EVENTS = 30, 20_000
DATES = ["2024-01-01", "2024-01-02"]
CONFIGURATION = """lake = "lake"
timezone = "UTC"
[sources.events]
raw = "raw"
layout = false
event_time = "at"
[sources.events.columns]
id = "bigint"
at = "timestamp"
[[sources.events.dedup]]
name = "redelivery"
key = ["id"]
within = "1h"
"""


def duckdb_answer(table):
    import duckdb

    return duckdb.sql(
        f"SELECT dt, count(*), count(DISTINCT id) FROM read_parquet('{table}/*/*.parquet', hive_types_autocast = false) GROUP BY dt"
    ).fetchall()


def pyarrow_answer(table):
    import pyarrow
    import pyarrow.dataset

    hive = pyarrow.dataset.partitioning(pyarrow.schema([("dt", pyarrow.string())]), flavor="hive")
    rows = pyarrow.dataset.dataset(table, format="parquet", partitioning=hive).to_table(columns=["dt", "id"])
    found = rows.group_by("dt").aggregate([("id", "count"), ("id", "count_distinct")]).to_pydict()
    return list(zip(found["dt"], found["id_count"], found["id_count_distinct"]))


def polars_answer(table):
    import polars

    frame = polars.scan_parquet(f"{table}/*/*.parquet", hive_partitioning=True, hive_schema={"dt": polars.String})
    grouped = frame.group_by("dt").agg(polars.len().alias("n"), polars.col("id").n_unique().alias("d")).collect()
    return grouped.rows()


READERS = {"DuckDB": duckdb_answer, "pyarrow": pyarrow_answer, "Polars": polars_answer}


def query(reader, table, stop, results):
    """Asks until it is told to stop. Counts answers and errors, and keeps what is wrong."""
    answers, errors, wrong, least = 0, [], [], dict.fromkeys(DATES, EVENTS)
    while not stop.is_set():
        try:
            found = READERS[reader](table)
        except Exception as error:  # loud, which is allowed
            errors.append(str(error).splitlines()[0][:160])
            continue
        answers += 1
        for date, count, distinct in found:
            if count != distinct or count < least[date] or count > EVENTS + REWRITES:
                wrong.append(f"{date}: {count} rows, {distinct} events, after an answer of {least[date]}")
            least[date] = count
        if len(found) != len(DATES):
            wrong.append(f"dates {sorted(row[0] for row in found)}")
    results.put((reader, answers, errors, wrong))


def write(folder, name, first, count):
    with open(folder / "raw" / name, "w", encoding="utf-8") as file:
        for date in DATES:
            for i in range(first, first + count):
                at = f"{date}T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}Z"
                file.write(json.dumps({"id": i + 1_000_000 * DATES.index(date), "at": at}) + "\n")


def main():
    binary = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "raw").mkdir()
        (folder / "rawmart.toml").write_text(CONFIGURATION, encoding="utf-8")

        def run():
            command = [binary, "--config", folder / "rawmart.toml", "--threads", "1", "run"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)

        write(folder, "first.json", 0, EVENTS)
        run()
        context = multiprocessing.get_context("spawn")
        stop, results = context.Event(), context.Queue()
        table = str(folder / "lake" / "events")
        processes = [context.Process(target=query, args=(name, table, stop, results)) for name in READERS]
        for process in processes:
            process.start()
        time.sleep(2)
        for n in range(REWRITES):
            write(folder, f"late-{n:02}.json", EVENTS + n, 1)
            run()
        stop.set()
        told = [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
    for reader, answers, errors, wrong in sorted(told):
        if wrong:
            raise SystemExit(f"FAILED {reader}: {len(wrong)} wrong answers of {answers}: {wrong[:3]}")
        if answers < REWRITES:
            raise SystemExit(f"FAILED {reader}: {answers} answers during {REWRITES} rewrites, and the errors {errors[:3]}")
        said = f", such as: {errors[0]}" if errors else ""
        print(f"  ok  {reader}: {answers} right answers, {len(errors)} errors{said}")


if __name__ == "__main__":
    main()
