"""What other programs read of a lake whose columns and partitions change.

    changes.py BINARY      DuckDB, pyarrow, Polars and fastparquet, after each change

Runs at the root of the repository. The recipes for a column that came later are those of docs/readers.md.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

EVENTS = 40_000  # more ids than one dictionary of a Parquet file holds
CONFIG = """
lake = "lake"
[sources.events]
raw = "raw"
event_time = "at"
{partitions}

[sources.events.columns]
id = "string"
at = "timestamp"
{columns}

[marts]
path = "sql"
"""


def must_equal(what, found, expected):
    if found != expected:
        raise SystemExit(f"FAILED {what}\n  found    {found}\n  expected {expected}")
    print(f"  ok  {what}")


class Project:
    """A folder with a configuration, raw objects and marts."""

    def __init__(self, binary, folder):
        self.binary, self.folder = Path(binary).resolve(), Path(folder)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def configure(self, columns="", partitions=""):
        self.write("rawmart.toml", CONFIG.format(columns=columns, partitions=partitions))

    def rawmart(self, *arguments):
        command = [self.binary, *arguments]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300)
        if ran.returncode != 0:
            raise SystemExit(f"FAILED {' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
        return ran.stdout


def raw(day, numbers, **more):
    lines = [{"id": f"{number:032x}", "at": f"2024-03-{day:02}T{number % 24:02}:00:00Z"} | more for number in numbers]
    return "".join(json.dumps(line) + "\n" for line in lines)


def recipes():
    """The Python of docs/readers.md that reads a column that came later, by reader."""
    page = Path("docs/readers.md").read_text(encoding="utf-8")
    section = page.split("## A column that came later\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n# (\w+)\n(.*?)```", section, re.S)
    must_equal("readers with a recipe", [reader for reader, _ in blocks], ["DuckDB", "pyarrow", "Polars"])
    return blocks


def reads_a_later_column(project):
    expected = {(f"{n:032x}", None) for n in range(EVENTS)} | {(f"{n:032x}", "ios") for n in range(EVENTS, EVENTS + 10)}
    for reader, block in recipes():
        scope = {}
        program = "import os; os.chdir(" + repr(str(project.folder)) + ")\n" + block
        exec(compile(program, reader, "exec"), scope)  # noqa: S102
        found = {(row["id"], row["os"]) for row in scope["rows"]}
        must_equal(f"{reader} reads a column that came later: {len(found)} rows", found == expected, True)


def ids_are_read_by_fastparquet(project):
    import fastparquet

    for path in sorted(project.folder.glob("lake/events/dt=*/*.parquet")):
        frame = fastparquet.ParquetFile(str(path)).to_pandas(columns=["id"])
        must_equal(f"ids that fastparquet reads as NULL in {path.parent.name}", int(frame["id"].isna().sum()), 0)


def each_reader_counts(project, when, expected):
    import duckdb
    import polars
    import pyarrow.dataset

    for table, rows in expected.items():
        root = project.folder / "lake" / table
        files = f"{root}/**/*.parquet"
        hive = any(root.glob("*=*"))
        options = f"hive_partitioning = {str(hive).lower()}, union_by_name = true"
        counts = {
            "DuckDB": duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}', {options})").fetchone()[0],
            "pyarrow": pyarrow.dataset.dataset(root, format="parquet", partitioning="hive").count_rows(),
            "Polars": polars.scan_parquet(files, hive_partitioning=hive, extra_columns="ignore", missing_columns="insert")
            .select(polars.len())
            .collect()
            .item(),
        }
        must_equal(f"rows of {table} {when}", counts, dict.fromkeys(counts, rows))


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        project = Project(binary, folder)
        project.configure()
        project.write("sql/daily.sql", "SELECT dt AS day, count(*) AS events FROM events GROUP BY dt\n")
        project.write("raw/2024/03/02/00/a.json", raw(2, range(EVENTS)))
        project.rawmart("run")
        project.configure(columns='os = "string"')
        project.write("raw/2024/03/03/00/b.json", raw(3, range(EVENTS, EVENTS + 10), os="ios"))
        project.rawmart("run")
        reads_a_later_column(project)
        ids_are_read_by_fastparquet(project)
        expected = {"events": EVENTS + 10, "daily": 2}
        each_reader_counts(project, "before its partitions change", expected)
        project.write("sql/daily.sql", "-- partition: dt\nSELECT count(*) AS events, dt FROM events GROUP BY dt\n")
        project.configure(columns='os = "string"', partitions='partition_by = "hour"')
        project.rawmart("rebuild", "--raw")
        each_reader_counts(project, "by hour", expected)
        project.configure(columns='os = "string"', partitions='slice = "6h"')
        project.rawmart("rebuild", "--raw")
        each_reader_counts(project, "by day, in slices of 6 hours", expected)
        project.configure(columns='os = "string"')
        project.rawmart("rebuild", "--raw")
        each_reader_counts(project, "by day", expected)
        names = {path.name for path in project.folder.glob("lake/events/dt=*/*.parquet")}
        must_equal("names of data files in one slice a day", names, {"part-00000.parquet"})
        project.rawmart("verify")


if __name__ == "__main__":
    main(*sys.argv[1:])
