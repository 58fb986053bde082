"""Type by type, what each reader reads: every value of every column, against the values that plain Python knows.

    matrix.py BINARY [--write] [--spark PYTHON] [--duckdb2 PYTHON]

Makes a lake with every type, extreme values, NULLs and difficult partition values, and has each reader read it. The
table in docs/readers.md must be what was found; `--write` puts it there. Spark and DuckDB 2 are in venvs of their own,
whose Python is given.
"""

import argparse
import datetime
import decimal
import json
import subprocess
import tempfile
from decimal import Decimal
from pathlib import Path

PAGE = Path("docs/readers.md")
BEGIN, END = "<!-- types by reader: .ci/matrix.py --write -->", "<!-- end of types by reader -->"

# The types of a source: column, type, and values that a JSON record may have. NULL is added to each.
TYPES = {
    "c_string": ("string", ["", "a", "한국어 ✓", "line\nbreak", "quote\" \\ '", "x" * 70_000]),
    "c_boolean": ("boolean", [True, False]),
    "c_int": ("int", [0, 2**31 - 1, -(2**31)]),
    "c_bigint": ("bigint", [0, 2**63 - 1, -(2**63)]),
    "c_double": ("double", [0.1, -0.0, 1.7976931348623157e308, 5e-324]),
    "c_decimal9": ("decimal(9,2)", [Decimal("0.01"), Decimal("-9999999.99")]),
    "c_decimal18": ("decimal(18,4)", [Decimal("99999999999999.9999"), Decimal("-0.0001")]),
    "c_decimal38": ("decimal(38,10)", [Decimal("9" * 28 + "." + "9" * 10), Decimal("-0.0000000001")]),
    "c_date": ("date", ["1969-12-31", "2024-02-29", "2038-01-20"]),
    "c_timestamp": ("timestamp", ["2024-02-29T23:59:59.999Z", "1969-12-31T23:59:59.001Z", "2040-01-01T00:00:00Z"]),
    # In a source of its own, whose `timestamp_unit` is "us".
    "c_fine": ("timestamp", ["2024-02-29T23:59:59.999999Z", "1969-12-31T23:59:59.000001Z"]),
    "c_json": ("json", [{"a": [1, 2.5, None]}, [], "text"]),
    "c_array": ("array<int>", [[], [1], [2**31 - 1, None, -1]]),
    "c_texts": ("array<string>", [["", "한"], [None]]),
    "c_map": ("map<string,bigint>", [{}, {"a": 1, "한": 2**63 - 1}]),
    "c_struct": ("struct<a:int,b:string>", [{"a": 1, "b": "x"}, {"a": None, "b": None}]),
    "c_nested": ("array<struct<k:string,v:double>>", [[{"k": "a", "v": 0.5}, {"k": None, "v": None}], []]),
}
# What a reader cannot do, in words for the table. Everything else must be read with the right value.
LIMITS = {
    **{("chdb", name): "NULL is read as empty" for name in ("c_array", "c_texts", "c_map", "c_nested")},
    ("chdb", "c_struct"): "NULL is read as a struct of NULLs",
    ("chdb", "tag"): "escaped, as in the path",
    **{("Hive 2.3", name): "error" for name in ("c_decimal9", "c_decimal18", "c_timestamp", "c_fine")},
    ("Hive 2.3", "tag"): "NULL is `__HIVE_DEFAULT_PARTITION__`",
}
PARTITIONS = ["plain", "with space", "a/b=c", "100%", "%41", "x:y", "quote'", "한국", "#?&", "", None]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def table_of(name):
    return {"tag": "by_tag", "c_fine": "fine"}.get(name, "events")


def configuration(folder):
    columns = "\n".join(f'{name} = "{kind}"' for name, (kind, _) in TYPES.items() if table_of(name) == "events")
    (folder / "rawmart.toml").write_text(
        f"""lake = "lake"
timezone = "UTC"
[sources.events]
raw = "raw"
layout = false
event_time = "at"
accept = {{ from = "1960-01-01", ahead = "30000d" }}
[sources.events.columns]
id = "bigint"
at = "timestamp"
tag = "string"
{columns}
[sources.fine]
raw = "fine"
layout = false
event_time = "at"
timestamp_unit = "us"
accept = {{ from = "1960-01-01", ahead = "30000d" }}
[sources.fine.columns]
id = "bigint"
at = "timestamp"
c_fine = "timestamp"
[marts]
path = "sql"
"""
    )
    (folder / "sql").mkdir()
    (folder / "sql" / "by_tag.sql").write_text("-- partition: tag\nSELECT id, tag FROM events\n")


def rows():
    """Each value of each column once, in some row; the other columns of the row are NULL."""
    made, number = [], 0
    for name, (_, values) in TYPES.items():
        for value in [*values, None]:
            made.append({"id": number, "tag": "plain", name: value})
            number += 1
    for tag in PARTITIONS:
        made.append({"id": number, "tag": tag})
        number += 1
    return made


def raw(folder, made):
    for table in ("raw", "fine"):
        (folder / table).mkdir()
        with open(folder / table / "all.json", "w", encoding="utf-8") as file:
            for row in made:
                if ("c_fine" in row) == (table == "fine"):
                    shown = {k: str(v) if isinstance(v, Decimal) else v for k, v in row.items()}
                    file.write(json.dumps({**shown, "at": "2024-01-02T03:04:05Z"}, ensure_ascii=False) + "\n")


def expected(name, value):
    """A value as `told` writes it."""
    if value is None:
        return None
    kind = TYPES[name][0]
    if kind == "timestamp":
        return told(datetime.datetime.fromisoformat(value.replace("Z", "+00:00")))
    if kind == "date":
        return told(datetime.date.fromisoformat(value))
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    return told(value)


def told(value):
    """A value of a reader, as JSON has it: equal values are equal texts, whatever types the reader has."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return None if value != value else repr(value)
    if isinstance(value, Decimal):
        return format(value.normalize(decimal.Context(prec=60)), "f")
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return f"time {(value - EPOCH) // datetime.timedelta(microseconds=1)}"
    if isinstance(value, datetime.date):
        return f"date {value.isoformat()}"
    if hasattr(value, "asDict"):
        value = value.asDict()
    if isinstance(value, dict):
        return {str(k): told(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(v) for v in value]
    if hasattr(value, "tolist"):
        return told(value.tolist())
    return str(value)


def glob(lake, table):
    return f"{lake}/{table}/**/*.parquet"


def duckdb_column(lake, table, column):
    import duckdb

    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    time = TYPES.get(column, ("",))[0] == "timestamp"
    shown = f"epoch_us({column})" if time else column
    found = db.execute(
        f"SELECT id, {shown} FROM read_parquet('{glob(lake, table)}', hive_partitioning = true, hive_types_autocast = false)"
    ).fetchall()
    return [(i, f"time {v}" if time and v is not None else v) for i, v in found]


def pyarrow_column(lake, table, column):
    import pyarrow
    import pyarrow.dataset

    names = ["tag"] if table == "by_tag" else ["dt"]
    hive = pyarrow.dataset.partitioning(pyarrow.schema([(n, pyarrow.string()) for n in names]), flavor="hive")
    data = pyarrow.dataset.dataset(f"{lake}/{table}", format="parquet", partitioning=hive).to_table(columns=["id", column])
    values = data.column(column).to_pylist(maps_as_pydicts="strict") if column == "c_map" else data.column(column).to_pylist()
    return list(zip(data.column("id").to_pylist(), values))


def polars_column(lake, table, column):
    import polars

    names = ["tag"] if table == "by_tag" else ["dt"]
    frame = polars.scan_parquet(
        glob(lake, table), hive_partitioning=True, hive_schema={n: polars.String for n in names}
    ).select("id", column).collect()
    values = frame[column].to_list()
    return list(zip(frame["id"].to_list(), values))


def chdb_column(lake, table, column):
    import chdb

    kind = TYPES.get(column, ("string",))[0]
    shown = {"timestamp": f"toUnixTimestamp64Micro(toDateTime64({column}, 6, 'UTC'))", "boolean": column}.get(kind, column)
    said = chdb.query(
        f"SELECT id, {shown} AS v FROM file('{glob(lake, table)}', Parquet) SETTINGS use_hive_partitioning = 1, "
        "output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 1, "
        "output_format_json_quote_denormals = 1",
        "JSONCompactEachRow",
    )
    found = [json.loads(line, parse_int=float if kind == "double" else int) for line in said.bytes().decode().splitlines()]

    def cell(value):
        if value is None:
            return None
        if kind == "timestamp":
            return f"time {value}"
        if kind == "date":
            return datetime.date.fromisoformat(value)
        if kind.startswith("decimal"):
            return Decimal(value)
        return value

    return [(i, cell(v)) for i, v in found]


READERS = {
    "DuckDB 1.5": duckdb_column,
    "pyarrow": pyarrow_column,
    "Polars": polars_column,
    "chdb": chdb_column,
}


def spark_readers(lake, ddl):
    """All columns by Spark's own reader, through a Hive metastore, and by the Parquet reader of Hive 2.3."""
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory() as home:
        spark = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.memory", "1g")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.sql.warehouse.dir", f"{home}/warehouse")
            .config("spark.hadoop.javax.jdo.option.ConnectionURL", f"jdbc:derby:;databaseName={home}/metastore;create=true")
            .enableHiveSupport()
            .getOrCreate()
        )
        spark.sparkContext.setLogLevel("OFF")
        found = {}
        try:
            # Twice: every statement may run again.
            for statement in 2 * [s for s in Path(ddl).read_text(encoding="utf-8").split(";\n") if s.strip(" \n;")]:
                if any(line.strip() and not line.startswith("--") for line in statement.splitlines()):
                    spark.sql(statement.strip().removesuffix(";"))

            def column(reader, name, table):
                try:
                    kind = TYPES.get(name, ("string",))[0]
                    shown = f"unix_micros({name})" if kind == "timestamp" else name
                    cells = [(r[0], r[1]) for r in spark.table(table).selectExpr("id", shown).collect()]
                    cells = [(i, f"time {v}" if kind == "timestamp" and v is not None else v) for i, v in cells]
                    found[f"{reader}/{name}"] = [(i, told(v)) for i, v in cells]
                except Exception as error:  # whatever the reader says is the cell of the table
                    found[f"{reader}/{name}"] = str(error).strip().splitlines()[0][:300]

            for reader, own in (("Spark", "true"), ("Hive 2.3", "false")):
                spark.sql(f"SET spark.sql.hive.convertMetastoreParquet={own}")
                for name in [*TYPES, "tag"]:
                    column(reader, name, f"rawmart.{table_of(name)}")
            spark.sql("SET spark.sql.hive.convertMetastoreParquet=true")
            # The partitions once more, found by the metastore itself.
            spark.sql(f"CREATE EXTERNAL TABLE rawmart.found (id bigint) PARTITIONED BY (tag string) STORED AS PARQUET LOCATION '{lake}/by_tag'")
            spark.sql("MSCK REPAIR TABLE rawmart.found")
            column("Spark, MSCK REPAIR", "tag", "rawmart.found")
        finally:
            spark.stop()
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--spark", required=True)
    parser.add_argument("--duckdb2", required=True)
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        reader, lake, ddl = args.read
        if reader == "spark":
            found = spark_readers(lake, ddl)
        else:
            found = one_reader("DuckDB 2", duckdb_column, lake)
        print(json.dumps(found))
        return

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = rows()
        configuration(folder)
        raw(folder, made)
        call = lambda *more: subprocess.run(
            [args.binary, "--config", folder / "rawmart.toml", *more], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        call("run")
        lake = str(folder / "lake")
        ddl = folder / "hive.sql"
        ddl.write_text(call("ddl", "--dialect", "spark"), encoding="utf-8")
        found = {}
        for reader, column in READERS.items():
            found.update(one_reader(reader, column, lake))
        for python, name in ((args.duckdb2, "duckdb2"), (args.spark, "spark")):
            said = subprocess.run(
                [python, Path(__file__).resolve(), args.binary, "--spark", "", "--duckdb2", "", "--read", name, lake, str(ddl)],
                check=True,
                cwd=folder,  # Derby writes its log there
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=600,
            ).stdout
            found.update(json.loads(said.splitlines()[-1]))
        wanted = {name: [(r["id"], expected(name, r[name])) for r in made if name in r] for name in TYPES}
        wanted["tag"] = [(r["id"], r["tag"] or None) for r in made if "c_fine" not in r]
    cells, wrong = judge(found, wanted)
    if wrong:
        raise SystemExit("FAILED\n  " + "\n  ".join(wrong))
    page(cells, args.write)


def one_reader(reader, column, lake):
    """`{reader/column: rows of (id, value)}`, or in place of the rows the error."""
    found = {}
    for name in [*TYPES, "tag"]:
        try:
            found[f"{reader}/{name}"] = [(i, told(v)) for i, v in column(lake, table_of(name), name)]
        except Exception as error:  # whatever the reader says is the cell of the table
            found[f"{reader}/{name}"] = str(error).strip().splitlines()[0][:300]
    return found


def judge(found, wanted):
    """The cells of the table, and a line for each cell that is not as LIMITS and the values say."""
    cells, wrong = {}, []
    for key, values in found.items():
        reader, name = key.split("/", 1)
        limit = LIMITS.get((reader, name))
        if isinstance(values, str):
            differences = [values]
        else:
            have = dict(map(tuple, values))
            pairs = [(i, v, have.get(i, "no row")) for i, v in wanted[name]]
            differences = [f"row {i}: found {str(h)[:80]!r}, expected {str(v)[:80]!r}" for i, v, h in pairs if h != v]
        cells[reader, name] = limit or "yes"
        if bool(differences) != bool(limit):
            wrong.append(f"{reader}, {name}: {differences[0] if differences else 'reads all values: take it off LIMITS'}")
    return cells, wrong


def page(cells, write):
    """Compares the table of the page with the cells, or writes it."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    readers = list(dict.fromkeys(reader for reader, _ in cells))
    lines = ["| type | " + " | ".join(readers) + " |", "|---|" + "---|" * len(readers)]
    for name in [*TYPES, "tag"]:
        kind = f"`{TYPES[name][0]}`" if name != "tag" else "partition values"
        kind += ", microseconds" if name == "c_fine" else ""
        # A reader that knows the same partitions in another way has no other cells.
        lines.append(f"| {kind} | " + " | ".join(cells.get((r, name), "") for r in readers) + " |")
    new = "\n" + "\n".join(lines) + "\n"
    if write:
        PAGE.write_text(before + BEGIN + new + END + after, encoding="utf-8")
    elif old != new:
        raise SystemExit(f"FAILED the table of {PAGE} is not what the readers read:{new}")
    print(f"  ok  {len(cells)} columns of {len(readers)} readers have the values that they must have")


main()
