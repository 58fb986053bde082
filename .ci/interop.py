"""Other programs' view of the demo lake, and the lake on two S3 servers.

    interop.py counts FIRST.json SECOND.json   what two runs of the demo said, against the recount
    interop.py raw FOLDER                      generated fixtures, against the committed ones
    interop.py readers LAKE                    DuckDB, pyarrow and polars, against the recount
    interop.py s3 BINARY LAKE                  the demo on moto and SeaweedFS, against the lake on disk
    interop.py documents BINARY                the JSON of every command, against its schema
    interop.py glue BINARY                     the demo with a catalog on moto: boto3 and awswrangler, against the recount
    interop.py conformance BINARY              what the lake relies on, on moto, SeaweedFS and nanio

Runs at the root of the repository. Every wait is bounded; the servers end with this program.
"""

import csv
import filecmp
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

EXPECTED = Path("fixtures/expected")
TABLES = ["events", "events_duplicates", "events_rejects"]
MARTS = {path.stem: path for path in sorted(Path("sql/marts").glob("*.sql"))}
RUN_SECONDS = 300
# Parts of the suite that do not hold. No lake has a key with a backslash; nanio accepts conditions and
# ignores them.
DOES_NOT_HOLD = {
    "moto": set(),
    "SeaweedFS": {"keeps_backslashes"},
    "nanio": {
        "creates_with_one_winner",
        "creates_the_same_content_again",
        "publishes_and_replaces",
        "publishes_once_among_many",
        "keeps_odd_keys",
    },
}
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_REGION": "us-east-1"}

NANIO_KEYS = {"NANIO_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "NANIO_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}


def must_equal(what, found, expected):
    if found != expected:
        raise SystemExit(f"FAILED {what}\n  found    {found}\n  expected {expected}")


def must_match(what, found, expected):
    """Compares two lists of rows, in any order."""
    found, expected = sorted(map(tuple, found)), sorted(map(tuple, expected))
    if found != expected:
        surplus = sorted(set(found) - set(expected))
        lacking = sorted(set(expected) - set(found))
        raise SystemExit(
            f"FAILED {what}: {len(found)} rows, expected {len(expected)}\n"
            f"  {len(surplus)} surplus, such as {surplus[:3]}\n  {len(lacking)} lacking, such as {lacking[:3]}"
        )
    print(f"  ok  {what}: {len(found)} rows")


def text(value):
    """A cell as the recount's CSV writes it."""
    return "" if value is None else str(value)


def golden(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def golden_table(table):
    """Rows of a recounted table as (dt, raw_object, raw_record, ...), all text."""
    key = {row["object"]: row["raw_object"] for row in golden(EXPECTED / "objects.csv")}
    rows = []
    for path in sorted((EXPECTED / table).glob("dt=*.csv")):
        for row in golden(path):
            own = [key[row.pop("object")], row.pop("raw_record")]
            if "kept_object" in row:
                row["kept_object"] = key[row["kept_object"]]
            rows.append((path.stem.removeprefix("dt="), *own, *row.values()))
    return rows


def counts(first, second):
    expected = json.loads((EXPECTED / "counts.json").read_text(encoding="utf-8"))
    first, second = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (first, second))
    must_equal("outcome of the first run", first["outcome"], "done")
    events = first["sources"]["events"]
    for name in ("objects", "records", "events", "kept"):
        must_equal(f"{name} of the run", events[name], expected[name])
    for name in ("duplicates", "rejects"):
        must_equal(f"{name} of the run", {k: v for k, v in events[name].items() if v}, expected[name])
    must_equal("marts of the run", {m["name"] for m in first["marts"]}, set(MARTS))
    for mart in first["marts"]:
        must_equal(f"rows of {mart['name']}", mart["rows"], len(golden(EXPECTED / "marts" / f"{mart['name']}.csv")))
    must_equal("outcome of the second run", second["outcome"], "nothing_new")
    print("  ok  both runs say what the recount says")


def raw(folder):
    """Compares the content of gzip files, because builds of zlib compress differently."""

    def files(root):
        return {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}

    for part in ("raw", "reference"):
        made, committed = files(Path(folder) / part), files(Path("fixtures") / part)
        must_equal(f"names under {part}", sorted(made), sorted(committed))
        for key, path in made.items():
            same = filecmp.cmp(path, committed[key], shallow=False)
            if not same and path.read_bytes()[:2] == b"\x1f\x8b":
                same = gzip.decompress(path.read_bytes()) == gzip.decompress(committed[key].read_bytes())
            must_equal(f"{part}/{key} is what the generator makes", same, True)
    print("  ok  fixtures are what the generator makes")


def parquet(lake, table):
    """A DuckDB table function over one table of a lake."""
    root = Path(lake) / table
    if not any(root.glob("dt=*")):
        return f"read_parquet('{root}/*.parquet')"
    return f"read_parquet('{root}/**/*.parquet', hive_partitioning = true, hive_types = {{'dt': 'VARCHAR'}})"


def readers(lake):
    import duckdb
    import polars
    import pyarrow
    import pyarrow.dataset
    import pyarrow.parquet

    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for table in TABLES:
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM {parquet(lake, table)}")
    db.execute("CREATE VIEW danji_master AS SELECT * FROM read_csv('fixtures/reference/danji_master.csv', header = true)")

    own = "dt, raw_object, raw_record"
    columns = {
        "events": f"{own}, event_id, epoch_ms(event_time)",
        "events_duplicates": f"{own}, event_id, epoch_ms(event_time), rule, kept_object, kept_record",
        "events_rejects": f"{own}, reason",
    }
    recount = {table: golden_table(table) for table in TABLES}
    for table, wanted in columns.items():
        rows = db.execute(f"SELECT {wanted} FROM {table}").fetchall()
        must_match(f"DuckDB reads {table}", [tuple(map(text, row)) for row in rows], recount[table])

    # What no column names is in `extra`, under its path.
    expected = json.loads((EXPECTED / "counts.json").read_text(encoding="utf-8"))
    extras = [json.loads(row[0]) for row in db.execute("SELECT extra FROM events WHERE extra IS NOT NULL").fetchall()]
    for name, count in expected["kept_with_unnamed_member"].items():
        must_equal(f"events with {name} in extra", sum(name in extra for extra in extras), count)
    must_equal("members of extra", set().union(*extras), {"device", *expected["kept_with_unnamed_member"]})
    print(f"  ok  DuckDB reads extra: {len(extras)} rows")

    for name in MARTS:
        rows = db.execute(f"SELECT * FROM {parquet(lake, name)}").fetchall()
        header = [column[0] for column in db.description]
        wanted = golden(EXPECTED / "marts" / f"{name}.csv")
        must_equal(f"columns of {name}", header, list(wanted[0]))
        must_match(f"published mart {name}", [tuple(map(text, row)) for row in rows], [tuple(r.values()) for r in wanted])

    # The marts' own SQL, unchanged. A mart that reads another waits until that one is there.
    waiting, built = dict(MARTS), []
    while waiting:
        for name, path in list(waiting.items()):
            try:
                db.execute(f"CREATE TABLE {name} AS {path.read_text(encoding='utf-8')}")
            except duckdb.CatalogException:
                continue
            built.append(name)
            del waiting[name]
            break
        else:
            raise SystemExit(f"FAILED marts that read unknown tables: {sorted(waiting)}")
    for name in built:
        repeated = db.execute(f"SELECT * FROM {name}").fetchall()
        published = db.execute(f"SELECT * FROM {parquet(lake, name)}").fetchall()
        must_match(f"DuckDB repeats {name}", [tuple(map(text, row)) for row in repeated], [tuple(map(text, row)) for row in published])

    hive = pyarrow.dataset.partitioning(pyarrow.schema([("dt", pyarrow.string())]), flavor="hive")
    for table in TABLES:
        data = pyarrow.dataset.dataset(f"{lake}/{table}", format="parquet", partitioning=hive)
        found = data.to_table(columns=["dt", "raw_object", "raw_record"]).to_pylist()
        must_match(f"pyarrow reads {table}", [tuple(map(text, row.values())) for row in found], [r[:3] for r in recount[table]])
    for name in ("events", "events_duplicates"):
        file = next(Path(lake, name).glob("dt=*/*.parquet"))
        schema = pyarrow.parquet.read_schema(file)
        must_equal(f"type of {name}.event_time", str(schema.field("event_time").type), "timestamp[ms, tz=UTC]")
        must_equal(f"{name} has dt only as a folder", "dt" in schema.names, False)
    for table in TABLES:
        frame = polars.scan_parquet(f"{lake}/{table}/**/*.parquet", hive_partitioning=True, hive_schema={"dt": polars.String})
        found = frame.select("dt", "raw_object", "raw_record").collect().rows()
        must_match(f"polars reads {table}", [tuple(map(text, row)) for row in found], [r[:3] for r in recount[table]])


def statements(binary, lake, dialect, *arguments):
    """The statements of `rawmart ddl`, without those that `parses` has no grammar for."""
    command = [binary, "--lake", lake, "--output", "json", "ddl", "--dialect", dialect, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["statements"]


def parses(dialect, grammar, sql):
    """Fails where sqlfluff cannot parse the SQL. Its grammar of Athena knows PARQUETFILE in the place of PARQUET."""
    from sqlfluff.core import Linter

    sql = sql.replace("STORED AS PARQUET\n", "STORED AS PARQUETFILE\n") if dialect == "athena" else sql
    parsed = Linter(dialect=grammar).parse_string(sql + "\n")
    must_equal(f"what sqlfluff says of {dialect}", [str(v) for v in parsed.violations], [])


def ddl(binary, lake):
    """DuckDB runs its DDL twice and must count the rows of the log. The other dialects are parsed."""
    import duckdb

    command = [binary, "--lake", lake, "--output", "json", "tables"]
    tables = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["tables"]
    must_equal("tables of the demo", sorted(t["name"] for t in tables), sorted([*TABLES, *MARTS]))
    db = duckdb.connect()
    for _ in range(2):
        for statement in statements(binary, lake, "duckdb"):
            db.execute(statement)
    for table in tables:
        name = table["name"]
        must_equal(f"rows of {name}", db.execute(f"SELECT count(*) FROM rawmart.{name}").fetchone()[0], table["rows"])
        header = [column[0] for column in db.execute(f"SELECT * FROM rawmart.{name} LIMIT 0").description]
        described = [column["name"] for column in [*table["columns"], *table["partition_columns"]]]
        must_equal(f"columns of {name}", header, described)
    for dialect, grammar, flags in [
        ("athena", "athena", ()),
        ("athena", "athena", ("--partitions",)),
        ("hive", "athena", ()),
        ("spark", "sparksql", ()),
        ("spectrum", "redshift", ()),
        ("redshift", "redshift", ()),
        ("trino", "trino", ()),
    ]:
        found = statements(binary, lake, dialect, *flags)
        # Statements that the grammar of sqlfluff lacks: several partitions of Spark, any of Spectrum, procedures of Trino.
        lacks = {"spark": "ALTER TABLE", "spectrum": "ALTER TABLE", "trino": "CALL"}.get(dialect)
        known = [sql for sql in found if lacks is None or not sql.startswith(lacks)]
        parses("athena" if dialect == "hive" else dialect, grammar, "\n\n".join(known))
        print(f"  ok  sqlfluff parses {len(known)} of {len(found)} statements of {dialect} {' '.join(flags)}")


def free_ports(count):
    """Ports that are free now, and free 10,000 above too, where SeaweedFS puts its gRPC."""
    ports, start = [], 20_000 + os.getpid() % 5_000
    for port in range(start, start + 5_000):
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise SystemExit("FAILED: no free ports")


@contextmanager
def server(name, command, port, folder):
    """A server that answers on its port; stopped, then killed, at the end."""
    log = Path(folder) / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | KEYS | NANIO_KEYS, cwd=folder)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
                break
            except urllib.error.HTTPError:
                break  # it speaks HTTP: that is enough
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    tail = log.read_text(errors="replace")[-3000:]
                    raise SystemExit(f"FAILED: {name} does not answer\n{tail}") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def nanio(folder):
    """A server that accepts If-None-Match and ignores it."""
    [port] = free_ports(1)
    return "nanio", [
        *(Path(sys.executable).parent / "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)),
        *("--data-dir", str(Path(folder) / "nanio"), "--no-access-log"),
    ], port


def servers(folder):
    tools = Path(sys.executable).parent
    moto, s3, master, filer, volume, admin = free_ports(6)
    data = Path(folder) / "seaweedfs"
    data.mkdir()
    yield "moto", [tools / "moto_server", "-H", "127.0.0.1", "-p", str(moto)], moto
    yield "SeaweedFS", [
        *(tools / "weed", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-s3.port={s3}", f"-master.port={master}", f"-filer.port={filer}"),
        *(f"-volume.port={volume}", f"-admin.port={admin}"),
    ], s3


def client_of(endpoint):
    import boto3
    import botocore.config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_REGION"],
        config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
    )


def wait_for_buckets(client):
    """A server may answer before it can store."""
    import botocore.exceptions

    end = time.monotonic() + 60
    while True:
        try:
            for bucket in ("raw", "lake"):
                client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="probe", Body=b"x")
                client.delete_object(Bucket=bucket, Key="probe")
            return
        except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            for bucket in ("raw", "lake"):
                client.delete_bucket(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            if time.monotonic() > end:
                raise SystemExit(f"FAILED: the server cannot store: {error}") from None
            time.sleep(0.5)


def run(binary, config, endpoint, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAWMART_"))}
    environment |= KEYS | {"AWS_ENDPOINT_URL": endpoint}
    command = [str(Path(binary).resolve()), "--config", str(config), "--output", "json", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def rawmart(binary, config, endpoint, *arguments):
    done = run(binary, config, endpoint, *arguments)
    if done.returncode:
        raise SystemExit(f"FAILED rawmart {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
    return json.loads(done.stdout)


def s3(binary, lake):
    import duckdb

    with tempfile.TemporaryDirectory() as work:
        for name, command, port in servers(work):
            folder = Path(work) / f"for-{name}"
            folder.mkdir()
            with server(name, command, port, folder) as endpoint:
                client = client_of(endpoint)
                wait_for_buckets(client)
                put_raw(client)
                config = folder / "rawmart.toml"
                config.write_text(elsewhere(), encoding="utf-8")

                must_equal(f"first run on {name}", rawmart(binary, config, endpoint, "run")["outcome"], "done")
                must_equal(f"second run on {name}", rawmart(binary, config, endpoint, "run")["outcome"], "nothing_new")
                rawmart(binary, config, endpoint, "verify")

                copy = folder / "lake"
                for page in client.get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix="demo/"):
                    for item in page.get("Contents", []):
                        path = copy / item["Key"].removeprefix("demo/")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        client.download_file("lake", item["Key"], str(path))

            db = duckdb.connect()
            for table in [*TABLES, *MARTS]:
                here, there = parquet(lake, table), parquet(copy, table)
                rows = db.execute(f"SELECT count(*) FROM {here}").fetchone()[0]
                for one, other in ((here, there), (there, here)):
                    differ = db.execute(f"SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other} LIMIT 3").fetchall()
                    must_equal(f"{table} on {name} and on disk: rows of only one", differ, [])
                print(f"  ok  {table} is the same on {name}: {rows} rows")


def put_raw(client):
    root = Path("fixtures/raw")
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        client.put_object(Bucket="raw", Key=path.relative_to(root).as_posix(), Body=path.read_bytes())


def elsewhere():
    """The configuration of the demo with raw and lake in buckets."""
    places = Path("rawmart.toml").read_text(encoding="utf-8")
    places = places.replace('"lake"', '"s3://lake/demo"').replace('"fixtures/raw/', '"s3://raw/')
    return re.sub(r'"((?:fixtures|sql)/[^"]*)"', lambda m: f'"{Path(m[1]).resolve()}"', places)


def signature(request, headers, body):
    """The signature of botocore for a request whose headers are these."""
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    scope, signed = re.search(r"Credential=([^,]*), SignedHeaders=([^,]*)", headers["authorization"]).groups()
    _, _, region, service, _ = scope.split("/")
    names = signed.split(";")
    known = {name: headers[name] for name in names}
    url = f"http://{headers['host']}{request}"
    made = botocore.awsrequest.AWSRequest(method="POST", url=url, headers=known, data=body)
    made.context["timestamp"] = headers["x-amz-date"]
    keys = botocore.credentials.Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    auth = botocore.auth.SigV4Auth(keys, service, region)
    return auth.signature(auth.string_to_sign(made, auth.canonical_request(made)), made)


@contextmanager
def signed(endpoint):
    """A door to a service that compares each signature with botocore's. Gives its URL, and what differs."""
    import hashlib
    import http.server
    import threading

    seen, differ = [], []

    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen.append(headers["x-amz-target"])
            told = headers["authorization"].rsplit("Signature=")[-1]
            if told != signature(self.path, headers, body) or headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
                differ.append(headers["x-amz-target"])
            passed = urllib.request.Request(endpoint + self.path, data=body, headers=dict(self.headers), method="POST")
            try:
                answer = urllib.request.urlopen(passed, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.server_port}", seen, differ
    finally:
        door.shutdown()


def glue(binary):
    """Two runs with a catalog: what moto's Glue holds is what the log says, and awswrangler reads what the recount says."""
    import awswrangler as wr
    import boto3

    with tempfile.TemporaryDirectory() as work:
        [(name, command, port), _] = servers(work)
        with server(name, command, port, work) as endpoint, signed(endpoint) as (door, seen, differ):
            client = client_of(endpoint)
            wait_for_buckets(client)
            put_raw(client)
            config = Path(work) / "rawmart.toml"
            config.write_text(f'{elsewhere()}\n[catalog]\ntype = "glue"\nendpoint = "{door}"\n', encoding="utf-8")
            first = rawmart(binary, config, endpoint, "run")
            must_equal("problems of the catalog", first["catalog"].get("problems", []), [])
            must_equal("tables told", first["catalog"]["tables"], len(TABLES) + len(MARTS))
            requests = len(seen)
            must_equal("tables told by the second run", rawmart(binary, config, endpoint, "run")["catalog"]["tables"], 0)
            must_equal("tables that are behind", rawmart(binary, config, endpoint, "plan")["catalog"]["behind"], [])
            must_equal("signatures that are not botocore's", differ, [])
            print(f"  ok  {requests} requests of the first run are signed as botocore signs them, {len(seen) - requests} after it")

            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "testtest", "region_name": KEYS["AWS_REGION"]}
            catalog = boto3.client("glue", endpoint_url=endpoint, **keys)
            wr.config.s3_endpoint_url = wr.config.glue_endpoint_url = endpoint
            session = boto3.Session(**keys)
            for table in rawmart(binary, config, endpoint, "tables")["tables"]:
                found = catalog.get_table(DatabaseName="rawmart", Name=table["name"])["Table"]
                columns = [(c["Name"], c["Type"], c.get("Comment")) for c in found["StorageDescriptor"]["Columns"]]
                described = [(c["name"], "string" if c["type"] == "json" else c["type"], c.get("comment")) for c in table["columns"]]
                must_equal(f"columns of {table['name']}", columns, described)
                pages = catalog.get_paginator("get_partitions").paginate(DatabaseName="rawmart", TableName=table["name"])
                told = {tuple(p["Values"]): p["StorageDescriptor"]["Location"] for page in pages for p in page["Partitions"]}
                known = {tuple(p["values"]): p["location"] for p in table["partitions"] if p["values"]}
                must_equal(f"partitions of {table['name']}", told, known)

                frame = wr.s3.read_parquet_table(database="rawmart", table=table["name"], boto3_session=session)
                must_equal(f"rows of {table['name']} that awswrangler reads", len(frame), table["rows"])
                if table["name"] in MARTS:
                    wanted = golden(EXPECTED / "marts" / f"{table['name']}.csv")
                    rows = frame[list(wanted[0])].astype(object).where(frame.notna(), None).itertuples(index=False)
                    must_match(f"awswrangler reads {table['name']}", [tuple(map(text, r)) for r in rows], [tuple(r.values()) for r in wanted])
                else:
                    rows = frame[["dt", "raw_object", "raw_record"]].itertuples(index=False)
                    must_match(f"awswrangler reads {table['name']}", [tuple(map(text, r)) for r in rows], [r[:3] for r in golden_table(table["name"])])


def documents(binary):
    """Every command with --output json, as it should end and as it should not."""
    from jsonschema import Draft202012Validator

    schema = json.loads(Path("docs/output.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    with tempfile.TemporaryDirectory() as work:
        lake = ["--lake", f"{work}/lake"]
        commands = [
            (0, ["plan"]),
            (0, ["run"]),
            (0, ["run"]),
            (0, ["plan"]),
            (0, ["rebuild"]),
            (0, ["history"]),
            (0, ["history", "1"]),
            (0, ["verify"]),
            (0, ["tables"]),
            (0, ["ddl", "--dialect", "athena"]),
            (0, ["query", "SELECT count(*) AS n, max(event_time) AS last FROM events"]),
            (2, ["query", "SELECT count(*) FROM event"]),
            (0, ["test"]),
            (0, ["test", "--reach"]),
            (0, ["config"]),
            (0, ["--version"]),
            (2, ["rnu"]),
            (2, ["run", "--threads", "many"]),
            (2, ["run", "--source", "none"]),
            (2, ["run", "--spill-dir", f"{work}/none"]),
            (2, ["history", "99"]),
        ]
        for exit_code, command in commands:
            line = [binary, *lake, *command, "--output", "json"]
            done = subprocess.run(line, capture_output=True, encoding="utf-8", timeout=RUN_SECONDS)
            must_equal(f"exit of {command}", done.returncode, exit_code)
            must_equal(f"lines of {command}", done.stdout.count("\n"), 1)
            document = json.loads(done.stdout)
            must_equal(f"exit in the document of {command}", document["exit"], exit_code)
            for error in validator.iter_errors(document):
                raise SystemExit(f"FAILED {command}: {error.message} at {error.json_path}")
    print(f"  ok  {len(commands)} documents are as docs/output.schema.json says")


def does_not_hold(endpoint):
    """The parts of the suite that fail on a server, which the test names in its last words."""
    wait_for_buckets(client_of(endpoint))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAWMART_"))}
    environment |= KEYS | {"AWS_ENDPOINT_URL": endpoint, "CONFORMANCE_BUCKET": "lake"}
    test = "store::conformance_of_an_external_server"
    command = ["cargo", "test", "--release", "--test", "all", "--", "--exact", test, "--ignored"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if "1 passed" in done.stdout:
        return set()
    failed = re.search(r"does not hold: (.*)", done.stdout + done.stderr)
    if not failed:
        raise SystemExit(f"FAILED {test}: exit {done.returncode}\n{done.stderr[-3000:]}{done.stdout[-3000:]}")
    return set(failed[1].split(", "))


def is_refused(binary, endpoint, work):
    """The probe finds out what a server does with If-None-Match, and no lake is begun there."""
    config = Path(work) / "refused.toml"
    places = Path("rawmart.toml").read_text(encoding="utf-8").replace('"lake"', '"s3://lake/demo"')
    places = re.sub(r'"((?:fixtures|sql)/[^"]*)"', lambda m: f'"{Path(m[1]).resolve()}"', places)
    config.write_text(places, encoding="utf-8")
    done = run(binary, config, endpoint, "run")
    must_equal("exit of a run on a store that is not fit", done.returncode, 2)
    if "accepts If-None-Match" not in done.stderr:
        raise SystemExit(f"FAILED: it says {done.stderr}")
    keys = [item["Key"] for item in client_of(endpoint).list_objects_v2(Bucket="lake", Prefix="demo/").get("Contents", [])]
    must_equal("what it left", [key for key in keys if "/staging/" not in key], ["demo/_rawmart/probe"])


def conformance(binary):
    with tempfile.TemporaryDirectory() as work:
        for name, command, port in [*servers(work), nanio(work)]:
            with server(name, command, port, work) as endpoint:
                must_equal(f"parts that fail on {name}", does_not_hold(endpoint), DOES_NOT_HOLD[name])
                if name == "nanio":
                    is_refused(binary, endpoint, work)
            print(f"  ok  {name}: {len(DOES_NOT_HOLD[name])} parts fail, as known")


if __name__ == "__main__":
    verbs = {"counts": counts, "raw": raw, "readers": readers, "ddl": ddl, "s3": s3, "glue": glue, "documents": documents, "conformance": conformance}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end too
    verbs[sys.argv[1]](*sys.argv[2:])
