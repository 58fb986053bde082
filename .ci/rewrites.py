"""Readers query a table while runs rewrite it: an answer is right, or it is a loud error.

    rewrites.py BINARY              publish = "directory" on disk: DuckDB, pyarrow and Polars
    rewrites.py BINARY directory    the same in a bucket of moto, with a catalog; awswrangler too
    rewrites.py BINARY catalog      publish = "catalog" there: no query may fail

30 runs bring one late event to each of two dates, so both data files are replaced. An answer must have, for each
date, the rows of one version: every event once, and never fewer than an earlier answer had.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interop import KEYS, client_of, free_ports, server, wait_for_buckets

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


SQL = "SELECT dt, count(*), count(DISTINCT id) FROM read_parquet({}, hive_types_autocast = false) GROUP BY dt"


def duckdb_answer(table):
    import duckdb

    return duckdb.sql(SQL.format(f"'{table}/*/*.parquet'")).fetchall()


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


def partitions(endpoint):
    """The date and the location of each partition, as the catalog has them now."""
    import boto3

    glue = boto3.client("glue", endpoint_url=endpoint, **session_keys())
    found = glue.get_paginator("get_partitions").paginate(DatabaseName="rawmart", TableName="events")
    return [(p["Values"][0], p["StorageDescriptor"]["Location"]) for page in found for p in page["Partitions"]]


def session_keys():
    names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    return {name: KEYS[key] for name, key in names.items()} | {"region_name": KEYS["AWS_REGION"]}


def bucket_of(endpoint):
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        access_key=KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region=KEYS["AWS_REGION"],
        endpoint_override=endpoint,
        allow_bucket_creation=False,
    )


def duckdb_of_catalog(endpoint):
    import duckdb
    from fsspec.implementations.arrow import ArrowFSWrapper

    class Bucket(ArrowFSWrapper):
        protocol = "bucket"

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("bucket://").rstrip("/")

    connection = duckdb.connect()
    connection.register_filesystem(Bucket(bucket_of(endpoint), skip_instance_cache=True, use_listings_cache=False))
    files = [f"{location.replace('s3://', 'bucket://')}*.parquet" for _, location in partitions(endpoint)]
    return connection.sql(SQL.format(files)).fetchall()


def pyarrow_of_catalog(endpoint):
    import pyarrow.compute
    import pyarrow.dataset

    rows = []
    for date, location in partitions(endpoint):
        folder = location.removeprefix("s3://").rstrip("/")
        found = pyarrow.dataset.dataset(folder, format="parquet", filesystem=bucket_of(endpoint)).to_table(columns=["id"])
        rows.append((date, len(found), pyarrow.compute.count_distinct(found["id"]).as_py()))
    return rows


def polars_of_catalog(endpoint):
    import polars

    options = session_keys() | {"endpoint_url": endpoint, "aws_allow_http": "true", "aws_virtual_hosted_style_request": "false"}
    rows = []
    for date, location in partitions(endpoint):
        frame = polars.scan_parquet(f"{location}*.parquet", storage_options=options, hive_partitioning=False)
        found = frame.select(polars.len().alias("n"), polars.col("id").n_unique().alias("d")).collect()
        rows.append((date, *found.row(0)))
    return rows


def awswrangler_of_catalog(endpoint):
    import awswrangler as wr
    import boto3

    wr.config.s3_endpoint_url = wr.config.glue_endpoint_url = endpoint
    session = boto3.Session(**session_keys())
    rows = []
    for location, [date] in wr.catalog.get_partitions(database="rawmart", table="events", boto3_session=session).items():
        frame = wr.s3.read_parquet(location, columns=["id"], boto3_session=session)
        rows.append((date, len(frame), frame["id"].nunique()))
    return rows


ON_DISK = {"DuckDB": duckdb_answer, "pyarrow": pyarrow_answer, "Polars": polars_answer}
IN_A_BUCKET = {
    "DuckDB": duckdb_of_catalog,
    "pyarrow": pyarrow_of_catalog,
    "Polars": polars_of_catalog,
    "awswrangler": awswrangler_of_catalog,
}


def query(readers, reader, place, stop, results):
    """Asks until it is told to stop. Counts answers and errors, and keeps what is wrong."""
    answers, errors, wrong, least = 0, [], [], dict.fromkeys(DATES, EVENTS)
    while not stop.is_set():
        try:
            found = globals()[readers][reader](place)
        except Exception as error:  # loud
            errors.append(f"{type(error).__name__}: {error}".splitlines()[0][:160])
            continue
        answers += 1
        for date, count, distinct in found:
            if count != distinct or count < least[date] or count > EVENTS + REWRITES:
                wrong.append(f"{date}: {count} rows, {distinct} events, after an answer of {least[date]}")
            least[date] = count
        if len(found) != len(DATES):
            wrong.append(f"dates {sorted(row[0] for row in found)}")
    results.put((reader, answers, errors, wrong))


def objects(first, count):
    """The text of a raw object: so many events of each date."""
    lines = []
    for date in DATES:
        for i in range(first, first + count):
            at = f"{date}T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}Z"
            lines.append(json.dumps({"id": i + 1_000_000 * DATES.index(date), "at": at}) + "\n")
    return "".join(lines)


def ask(readers, place, write, run, least, faultless):
    """Each reader must give so many answers at least, and no error where it is to be faultless."""
    write("first.json", objects(0, EVENTS))
    run()
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    names = globals()[readers]
    processes = [context.Process(target=query, args=(readers, name, place, stop, results)) for name in names]
    for process in processes:
        process.start()
    time.sleep(2)
    for n in range(REWRITES):
        write(f"late-{n:02}.json", objects(EVENTS + n, 1))
        run()
    stop.set()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    for reader, answers, errors, wrong in sorted(told):
        if wrong:
            raise SystemExit(f"FAILED {reader}: {len(wrong)} wrong answers of {answers}: {wrong[:3]}")
        if answers < least:
            raise SystemExit(f"FAILED {reader}: {answers} answers during {REWRITES} rewrites, and the errors {errors[:3]}")
        if faultless and errors:
            raise SystemExit(f"FAILED {reader}: {len(errors)} errors, such as: {errors[0]}")
        said = f", such as: {errors[0]}" if errors else ""
        print(f"  ok  {reader}: {answers} right answers, {len(errors)} errors{said}")


def on_disk(binary, folder):
    (folder / "raw").mkdir()
    (folder / "rawmart.toml").write_text(CONFIGURATION, encoding="utf-8")
    command = [binary, "--config", folder / "rawmart.toml", "--threads", "1", "run"]

    def run():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def write(name, text):
        (folder / "raw" / name).write_text(text, encoding="utf-8")

    ask("ON_DISK", str(folder / "lake" / "events"), write, run, REWRITES, False)


def in_a_bucket(binary, folder, publish):
    [port] = free_ports(1)
    moto = [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with server("moto", moto, port, folder) as endpoint:
        client = client_of(endpoint)
        wait_for_buckets(client)
        places = CONFIGURATION.replace('"lake"', '"s3://lake/it"').replace('"raw"', '"s3://raw/it"')
        catalog = f'[catalog]\ntype = "glue"\nendpoint = "{endpoint}"\n'
        (folder / "rawmart.toml").write_text(f'publish = "{publish}"\n{places}{catalog}', encoding="utf-8")
        command = [binary, "--config", folder / "rawmart.toml", "--threads", "1", "run"]
        environment = os.environ | KEYS | {"AWS_ENDPOINT_URL": endpoint}

        def run():
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, env=environment)

        def write(name, text):
            client.put_object(Bucket="raw", Key=f"it/{name}", Body=text.encode())

        # The server of Python answers all readers and the runs.
        ask("IN_A_BUCKET", endpoint, write, run, REWRITES // 3, publish == "catalog")


def main():
    binary, publish = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        match publish:
            case []:
                on_disk(binary, Path(folder))
            case ["directory" | "catalog"]:
                in_a_bucket(binary, Path(folder), publish[0])
            case _:
                raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
