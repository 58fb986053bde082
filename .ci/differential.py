"""Marts against DuckDB: the same queries over the same random rows.

    differential.py BINARY

Writes a project with random events and one mart for each query, runs it with little and much memory and with one and
two threads, and compares each published table with DuckDB's answer over the lake's own tables. Tables are compared as
multisets of rows: integers, decimals, text, dates and times exactly, doubles to a relative 1e-9. Rows, queries and
their order follow from fixed seeds. Runs at the root of the repository.

A query may hold places where the two programs need different words: `[[name: ours | DuckDB's]]`. Each name is on the
closed list DIFFERENCES with its reason. What rawmart refuses is on the closed list REFUSALS. Whatever else differs
fails, and a name that no query uses fails too.
"""

import csv
import datetime
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Memory, threads, and of how many queries one is built with them.
CONFIGURATIONS = [("256MiB", 1, 1), ("1GiB", 2, 1), ("256MiB", 2, 3), ("1GiB", 1, 3)]
RUN_SECONDS = 120
ROWS = 9_000  # more than one batch of the engine, so that windows go on over the border of two
TOLERANCE = 1e-9
SHOWN = 40  # differences that a failure shows

# Where the two programs need different words for one meaning, or mean different things by one word.
DIFFERENCES = {
    "integer_division": "`/` of two integers is integer division, as in Athena; DuckDB spells it `//`",
    "ignore_nulls": "Athena writes IGNORE NULLS behind the parentheses, DuckDB inside them",
    "half_away": "a double becomes the integer next to it, a half away from zero, as in Athena; DuckDB takes the even one",
    "decimal_literal": "a number with a point beside an integer is a double; the value is the same",
    "correlation": "what has no correlation has NULL, as in Athena; DuckDB says NaN",
    "null_wins": "greatest and least are NULL if one value is NULL, as in Athena; DuckDB leaves NULLs out",
    "split_part": "behind the last part is NULL, as in Athena; DuckDB gives an empty text",
    "every_match": "regexp_replace replaces every match, as in Athena; DuckDB the first, unless its flag is 'g'",
    "sunday": "extract(dow) of a Sunday is 7, as in Athena; DuckDB says 0, and its isodow 7",
    "decimal_mean": "the mean of decimals is a decimal of the same digits, as in Athena; DuckDB's is a double",
}

PROJECT = """
lake = "lake"
[sources.events]
raw = "raw/events/"
layout = false
event_time = "ts"
[sources.events.columns]
id = "bigint"
user_id = "string"
kind = "string"
page = "string"
n = "int"
qty = "bigint"
big = "bigint"
amount = "decimal(12,2)"
price = "double"
ratio = "double"
wild = "double"
flag = "boolean"
day = "date"
ts = "timestamp"

[sources.orders]
raw = "raw/orders/"
layout = false
event_time = "ts"
[sources.orders.columns]
order_id = "bigint"
user_id = "string"
total = "decimal(10,2)"
units = "int"
ts = "timestamp"

[references.users]
path = "users.csv"
columns = { user_id = "string", plan = "string", age = "int", since = "date" }

[marts]
path = "sql"
"""


# ---------------------------------------------------------------------------------------------------------------
# Rows


def write_data(folder):
    """Random rows with NULLs, ties, empty text, letters of several bytes, and extremes."""
    chance = random.Random(1)

    def maybe(value, share=0.1):
        return None if chance.random() < share else value

    def moment(minutes):
        at = 1_709_078_400_000 + chance.randrange(minutes) * 60_000  # from 2024-02-28, over a leap day
        if chance.random() < 0.5:
            at += chance.randrange(60_000)
        day, rest = divmod(at, 86_400_000)
        date = time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
        return f"{date}T{rest // 3_600_000:02}:{rest // 60_000 % 60:02}:{rest // 1000 % 60:02}.{rest % 1000:03}Z"

    users = [f"u{i:02}" for i in range(60)]
    pages = ["/", "/home", "/home ", "/Home", "/buy?x=1", "", " ", "/단지/래미안", "/é", "a_b", "a%b", "'", "0", "/list/2"]
    bigs = [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 0, 1, -1]
    amounts = ["9999999999.99", "-9999999999.99", "0.00", "0.01", "-0.01", "0.10", "12.50"]
    days = ["1970-01-01", "1969-12-31", "2024-02-29", "2023-02-28", "9999-12-31", "1900-03-01"]
    events = []
    for i in range(1, ROWS + 1):
        events.append(
            {
                "id": i,
                "user_id": maybe(users[int(chance.random() ** 2 * 45)], 0.05),
                "kind": maybe(chance.choices(["view", "click", "buy", "search", "rare"], [50, 30, 10, 9, 1])[0], 0.03),
                "page": maybe(chance.choice(pages)),
                "n": maybe(chance.randint(-5, 20)),
                "qty": maybe(chance.randint(0, 9)),
                "big": maybe(chance.choice(bigs) if chance.random() < 0.3 else chance.randint(-(2**61), 2**61)),
                "amount": maybe(chance.choice(amounts) if chance.random() < 0.2 else f"{chance.randint(-50_000, 500_000) / 100:.2f}"),
                # Eighths: their sum is exact whatever the order.
                "price": maybe(chance.randint(-4_000, 80_000) / 8),
                "ratio": maybe(chance.random()),
                # Next to the largest the others vanish: what has left a frame must leave no trace.
                "wild": maybe(chance.choice([1e18, 1500.5, 0.25, 2e-7])),
                "flag": maybe(chance.random() < 0.4, 0.2),
                "day": maybe(chance.choice(days) if chance.random() < 0.2 else f"2024-0{chance.randint(1, 3)}-{chance.randint(1, 28):02}"),
                "ts": moment(6 * 1440),
            }
        )
    orders = [
        {
            "order_id": i,
            "user_id": maybe(chance.choice(users[20:])),
            "total": maybe(f"{chance.randint(0, 100_000) / 100:.2f}"),
            "units": maybe(chance.randint(1, 5), 0.2),
            "ts": moment(6 * 1440),
        }
        for i in range(1, 401)
    ]
    for name, rows in (("events", events), ("orders", orders)):
        raw = folder / "raw" / name
        raw.mkdir(parents=True)
        for part in range(3):
            lines = (json.dumps(row, ensure_ascii=False) for row in rows[part::3])
            (raw / f"{part}.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "users.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user_id", "plan", "age", "since"])
        for user in users[10:50]:
            out.writerow([user, chance.choice(["free", "pro", "team", ""]), chance.choice(["", *map(str, range(18, 40))]), "2024-01-15"])


def write_marts(folder, names):
    """A configuration of its own for some queries."""
    folder.mkdir()
    (folder / "rawmart.toml").write_text(PROJECT, encoding="utf-8")
    for name in ("raw", "users.csv"):
        (folder / name).symlink_to(folder.parent / "data" / name)
    (folder / "sql").mkdir()
    for name, query in names.items():
        (folder / "sql" / f"{name}.sql").write_text(f"\n{spelt(query, 0)}\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------
# Queries by hand

NUMBERS = ["n", "qty", "amount", "price"]
TRUNCATED = ["week", "month", "quarter", "year"]
KEYS = ["kind", "user_id", "flag", "dt", "page"]
WINDOWED = "SELECT id, {} AS w FROM events"


def dashboards():
    yield from [
        "SELECT count(*) AS c FROM events",
        "SELECT count(*) AS c, count(n) AS c2, count(DISTINCT user_id) AS u FROM events",
        "SELECT dt, count(*) AS c, count(DISTINCT user_id) AS u FROM events GROUP BY dt",
        "SELECT dt, kind, count(*) AS c FROM events GROUP BY 1, 2",
        "SELECT kind, sum(CASE WHEN flag THEN 1 ELSE 0 END) AS yes, count(*) AS c FROM events GROUP BY kind",
        "SELECT kind, sum(CASE WHEN kind = 'buy' THEN amount ELSE 0 END) AS revenue FROM events GROUP BY kind",
        "SELECT kind, sum(CASE WHEN kind = 'buy' THEN price ELSE 0 END) AS revenue FROM events GROUP BY kind",
        "SELECT dt, CASE WHEN count(*) = 0 THEN 0 ELSE sum(price) / count(*) END AS mean FROM events GROUP BY dt",
        "SELECT dt, CAST(count(DISTINCT CASE WHEN kind = 'buy' THEN user_id END) AS double) / nullif(count(DISTINCT user_id), 0) AS rate FROM events GROUP BY dt",
        "SELECT kind, sum(qty) [[integer_division: / | //]] count(*) AS r FROM events GROUP BY kind",
        "SELECT id, n [[integer_division: / | //]] 3 AS a, n % 3 AS b, -n [[integer_division: / | //]] 2 AS c FROM events",
        "SELECT id, n [[integer_division: / | //]] nullif(qty, 0) AS a, qty % nullif(n, 0) AS b FROM events",
        "SELECT kind, count(*) FILTER (WHERE flag) AS a, count(*) FILTER (WHERE NOT flag) AS b, count(*) FILTER (WHERE flag IS NULL) AS c FROM events GROUP BY kind",
        "SELECT kind, sum(n) FILTER (WHERE n > 100) AS none, count(n) FILTER (WHERE n > 100) AS zero FROM events GROUP BY kind",
        "SELECT kind, sum(DISTINCT n) AS s, count(DISTINCT n) AS c, count(DISTINCT amount) AS d FROM events GROUP BY kind",
        "SELECT kind, count(DISTINCT n) FILTER (WHERE flag) AS c, sum(DISTINCT qty) FILTER (WHERE n > 0) AS d FROM events GROUP BY kind",
        "SELECT kind, count(DISTINCT user_id) AS a, count(DISTINCT page) AS b, sum(qty) AS c, count(*) AS d FROM events GROUP BY kind",
        "SELECT count(DISTINCT user_id) AS a, count(DISTINCT page) AS b, count(DISTINCT flag) AS c, count(DISTINCT big) AS d, count(DISTINCT price) AS e, count(DISTINCT day) AS f FROM events",
        "SELECT min(big) AS a, max(big) AS b, min(amount) AS c, max(amount) AS d, min(price) AS e, max(price) AS f, min(page) AS g, max(page) AS h, min(day) AS i, max(day) AS j, min(ts) AS k, max(ts) AS l, bool_and(flag) AS m, bool_or(flag) AS o FROM events",
        "SELECT kind, min(page) AS a, max(page) AS b, min(day) AS c, max(ts) AS d, bool_and(flag) AS e, bool_or(flag) AS f FROM events GROUP BY kind",
        "SELECT sum(n) AS a, avg(n) AS b, min(n) AS c, max(page) AS d, count(*) AS e, bool_or(flag) AS f FROM events WHERE false",
        "SELECT kind, sum(n) AS a FROM events WHERE false GROUP BY kind",
        "SELECT kind, count(*) AS c FROM events GROUP BY kind HAVING count(*) > 500",
        "SELECT kind, sum(n) AS s FROM events GROUP BY kind HAVING sum(n) > 0 AND kind IS NOT NULL",
        "SELECT user_id, count(*) AS c FROM events GROUP BY user_id HAVING count(DISTINCT kind) >= 4",
        "SELECT user_id, max(amount) - min(amount) AS spread FROM events GROUP BY user_id HAVING min(amount) < 0",
        "SELECT count(*) AS c FROM events HAVING count(*) > 1000000000",
        "SELECT DISTINCT kind FROM events",
        "SELECT DISTINCT kind, flag FROM events",
        "SELECT DISTINCT user_id, n, flag FROM events",
        "SELECT DISTINCT price FROM events",
        "SELECT count(*) AS c FROM (SELECT DISTINCT user_id, page FROM events) t",
        "SELECT kind, n FROM events UNION SELECT kind, qty FROM events",
        "SELECT kind, n FROM events UNION ALL SELECT kind, qty FROM events",
        "SELECT user_id FROM events INTERSECT SELECT user_id FROM orders",
        "SELECT user_id FROM events EXCEPT SELECT user_id FROM orders",
        "SELECT user_id FROM orders EXCEPT SELECT user_id FROM users",
        "SELECT n, flag FROM events INTERSECT SELECT units, true FROM orders",
        "SELECT kind AS k, count(*) AS c FROM events GROUP BY kind UNION ALL SELECT 'all', count(*) FROM events",
        "SELECT kind AS k, sum(amount) AS c FROM events GROUP BY kind UNION ALL SELECT NULL, sum(total) FROM orders",
        "SELECT n AS v FROM events UNION ALL SELECT price FROM events",
        "SELECT amount AS v FROM events UNION ALL SELECT n FROM events",
        "SELECT NULL AS v UNION ALL SELECT price FROM events",
        "SELECT NULL AS v, 1 AS w UNION ALL SELECT page, big FROM events",
        "SELECT kind, flag, count(*) AS c FROM events GROUP BY GROUPING SETS ((kind), (flag), ())",
        "SELECT kind, flag, count(*) AS c, sum(n) AS s FROM events GROUP BY ROLLUP (kind, flag)",
        "SELECT kind, flag, count(*) AS c FROM events GROUP BY CUBE (kind, flag)",
        "SELECT dt, kind, grouping(kind) AS g, count(*) AS c FROM events GROUP BY ROLLUP (dt, kind)",
        "SELECT dt, kind, count(DISTINCT user_id) AS u FROM events GROUP BY GROUPING SETS ((dt, kind), (dt))",
        "SELECT kind, dt, count(*) AS c FROM events GROUP BY ROLLUP (kind), dt",
        "SELECT coalesce(kind, 'all') AS k, sum(price) AS s FROM events WHERE kind IS NOT NULL GROUP BY ROLLUP (kind)",
        "SELECT e.kind, u.plan, count(*) AS c FROM events e JOIN users u ON u.user_id = e.user_id GROUP BY 1, 2",
        "SELECT e.kind, u.plan, count(*) AS c FROM events e LEFT JOIN users u ON u.user_id = e.user_id GROUP BY 1, 2",
        "SELECT u.user_id, count(e.id) AS c FROM events e RIGHT JOIN users u ON u.user_id = e.user_id GROUP BY 1",
        "SELECT coalesce(o.user_id, u.user_id) AS k, count(o.order_id) AS c, count(u.plan) AS p FROM orders o FULL JOIN users u ON u.user_id = o.user_id GROUP BY 1",
        "SELECT u.user_id, o.order_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.total > 500",
        "SELECT u.user_id, o.order_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id WHERE o.total > 500",
        "SELECT u.user_id, o.order_id FROM users u FULL JOIN orders o ON o.user_id = u.user_id AND u.age > 30 AND o.units > 2",
        "SELECT user_id, u.plan, o.total FROM orders o JOIN users u USING (user_id)",
        "SELECT user_id, plan, total FROM orders NATURAL JOIN users",
        "SELECT o.order_id, u.user_id FROM orders o CROSS JOIN users u WHERE o.units = u.age - 20",
        "SELECT o.order_id, u.user_id FROM orders o JOIN users u ON o.units < u.age - 30",
        "SELECT o.order_id, u.user_id FROM orders o LEFT JOIN users u ON o.units > u.age - 17 AND o.user_id <> u.user_id",
        "SELECT a.order_id, count(b.order_id) AS earlier FROM orders a LEFT JOIN orders b ON b.user_id = a.user_id AND b.ts < a.ts GROUP BY a.order_id",
        "SELECT a.user_id, count(*) AS c FROM events a JOIN events b ON a.user_id = b.user_id AND a.n = b.qty WHERE a.kind = 'rare' GROUP BY 1",
        "SELECT count(*) AS c FROM orders a, orders b, users u WHERE a.user_id = b.user_id AND b.user_id = u.user_id AND a.order_id <> b.order_id",
        "SELECT e.id, o.order_id FROM events e JOIN orders o ON e.user_id IS NOT DISTINCT FROM o.user_id WHERE e.kind = 'rare'",
        "WITH d AS (SELECT dt, count(*) AS c FROM events GROUP BY dt) SELECT dt, c, c - (SELECT min(c) FROM d) AS above FROM d",
        "WITH a AS (SELECT user_id, count(*) AS c FROM events GROUP BY 1), b AS (SELECT user_id, sum(total) AS t FROM orders GROUP BY 1) SELECT a.user_id, c, t FROM a LEFT JOIN b ON a.user_id = b.user_id",
        "WITH first_day AS (SELECT user_id, min(dt) AS d FROM events GROUP BY 1) SELECT d, count(*) AS new_users FROM first_day GROUP BY d",
        "WITH f AS (SELECT user_id, min(CAST(ts AS date)) AS d FROM events GROUP BY 1) SELECT f.d, CAST(e.ts AS date) AS seen, count(DISTINCT e.user_id) AS u FROM f JOIN events e ON e.user_id = f.user_id GROUP BY 1, 2",
        "WITH RECURSIVE s AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM s WHERE i < 40) SELECT s.i, count(o.order_id) AS c FROM s LEFT JOIN orders o ON o.units = s.i GROUP BY s.i",
        "WITH a AS (SELECT * FROM orders WHERE units > 2) SELECT x.order_id FROM a x JOIN a y ON x.order_id = y.order_id - 1",
        "SELECT id FROM events WHERE user_id IN (SELECT user_id FROM users WHERE plan = 'pro')",
        "SELECT id FROM events WHERE kind = 'rare' AND user_id NOT IN (SELECT user_id FROM users WHERE plan = 'pro')",
        "SELECT id FROM events WHERE kind = 'rare' AND user_id NOT IN (SELECT user_id FROM orders)",
        "SELECT id FROM events WHERE n IN (1, 2, NULL)",
        "SELECT id FROM events WHERE n NOT IN (1, 2, 3)",
        "SELECT id FROM events WHERE n NOT IN (1, 2, NULL)",
        "SELECT u.user_id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.total > 900)",
        "SELECT u.user_id FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id)",
        "SELECT u.user_id, (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) AS c FROM users u",
        "SELECT u.user_id, (SELECT sum(total) FROM orders o WHERE o.user_id = u.user_id) AS t FROM users u",
        "SELECT u.user_id, (SELECT max(o.ts) FROM orders o WHERE o.user_id = u.user_id AND o.units > 3) AS t FROM users u",
        "SELECT order_id, total FROM orders WHERE total > (SELECT avg(CAST(total AS double)) FROM orders)",
        "SELECT o.order_id FROM orders o WHERE o.total > (SELECT avg(CAST(i.total AS double)) FROM orders i WHERE i.user_id = o.user_id)",
        "SELECT o.order_id FROM orders o WHERE o.total = (SELECT max(i.total) FROM orders i WHERE i.user_id = o.user_id)",
        "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM orders) AS o",
        "SELECT kind, c FROM (SELECT kind, count(*) AS c, row_number() OVER (ORDER BY count(*) DESC, kind) AS r FROM events GROUP BY kind) t WHERE r <= 3",
        "SELECT id, kind FROM events ORDER BY id LIMIT 7",
        "SELECT id, n FROM events ORDER BY n DESC, id LIMIT 20",
        "SELECT id, n FROM events ORDER BY n, id LIMIT 20",
        "SELECT id, n FROM events ORDER BY n NULLS FIRST, id LIMIT 20",
        "SELECT id, n FROM events ORDER BY n DESC NULLS FIRST, id LIMIT 20",
        "SELECT id, page FROM events ORDER BY page DESC, id DESC LIMIT 15 OFFSET 5",
        "SELECT id, flag FROM events WHERE n IS NULL ORDER BY flag DESC, ts, id LIMIT 25",
        "SELECT user_id, sum(qty) AS s FROM events GROUP BY user_id ORDER BY s DESC, user_id LIMIT 5",
        "SELECT user_id, n FROM (SELECT user_id, n, row_number() OVER (PARTITION BY user_id ORDER BY n DESC, id) AS r FROM events) t WHERE r = 1",
        "SELECT user_id, page FROM events QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY ts DESC, id) = 1",
        "SELECT DISTINCT ON (user_id) user_id, page, id FROM events ORDER BY user_id, ts DESC, id",
        "SELECT kind, percent FROM (SELECT kind, 100 * CAST(count(*) AS double) / sum(count(*)) OVER () AS percent FROM events GROUP BY kind) t",
        "SELECT dt, c, sum(c) OVER (ORDER BY dt) AS running, c - lag(c) OVER (ORDER BY dt) AS change FROM (SELECT dt, count(*) AS c FROM events GROUP BY dt) t",
        "SELECT kind, dt, count(*) AS c, rank() OVER (PARTITION BY dt ORDER BY count(*) DESC) AS r FROM events GROUP BY kind, dt",
        "SELECT user_id, count(*) AS visits FROM (SELECT user_id, id, CASE WHEN ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts, id) > INTERVAL '30 minutes' THEN 1 ELSE 0 END AS fresh FROM events) t WHERE fresh = 1 GROUP BY user_id",
        "SELECT user_id, visit, count(*) AS c FROM (SELECT user_id, sum(fresh) OVER (PARTITION BY user_id ORDER BY ts, id) AS visit FROM (SELECT user_id, ts, id, CASE WHEN ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts, id) <= INTERVAL '30 minutes' THEN 0 ELSE 1 END AS fresh FROM events) a) b GROUP BY 1, 2",
        "SELECT count(DISTINCT CASE WHEN kind = 'view' THEN user_id END) AS v, count(DISTINCT CASE WHEN kind = 'buy' THEN user_id END) AS b FROM events",
        "SELECT user_id, min(CASE WHEN kind = 'view' THEN ts END) AS v, min(CASE WHEN kind = 'buy' THEN ts END) AS b FROM events GROUP BY 1",
        "SELECT flag, avg(n) AS a, avg(qty) AS b, avg(price) AS c, avg(CAST(amount AS double)) AS d FROM events GROUP BY flag",
        "SELECT kind, stddev(n) AS a, var_samp(qty) AS b, stddev_pop(price) AS c, var_pop(ratio) AS d FROM events GROUP BY kind",
        "SELECT corr(n, qty) AS a, covar_pop(n, price) AS b, covar_samp(qty, ratio) AS c FROM events",
        "SELECT kind, median(ratio) AS m FROM events GROUP BY kind",
        "SELECT kind, sum(ratio) AS s, avg(ratio) AS a, sum(price * qty) AS t FROM events GROUP BY kind",
        "SELECT kind, percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS m, percentile_cont(0.9) WITHIN GROUP (ORDER BY price DESC) AS d FROM events GROUP BY kind",
        "SELECT kind, string_agg(user_id, ',' ORDER BY id) AS s FROM events WHERE n = 20 GROUP BY kind",
        "SELECT kind, string_agg(page, '|' ORDER BY page DESC, id) AS s FROM events WHERE n = 19 GROUP BY kind",
        "SELECT kind, string_agg(CAST(n AS varchar), '' ORDER BY ts DESC, id) AS s FROM events WHERE qty = 3 GROUP BY kind",
        "SELECT kind, array_agg(n ORDER BY id) AS a FROM events WHERE qty = 9 GROUP BY kind",
        "SELECT kind, array_agg(n ORDER BY n DESC, id) AS a FROM events WHERE qty = 9 GROUP BY kind",
        "SELECT kind, array_agg(DISTINCT n ORDER BY n) AS a FROM events GROUP BY kind",
        "SELECT kind, string_agg(DISTINCT page, ',' ORDER BY page) AS a FROM events GROUP BY kind",
        "SELECT kind, array_agg(page ORDER BY id) FILTER (WHERE flag) AS a FROM events WHERE n = 5 GROUP BY kind",
        "SELECT sum(x.c) AS s FROM (SELECT count(*) AS c FROM events GROUP BY user_id) x",
        "SELECT avg(c) AS a FROM (SELECT user_id, count(*) AS c FROM events GROUP BY user_id) t",
        "SELECT kind || '-' || coalesce(page, '?') AS k, count(*) AS c FROM events GROUP BY 1",
        "SELECT date_trunc('hour', ts) AS h, count(*) AS c FROM events GROUP BY 1",
        "SELECT CAST(ts AS date) AS d, date_part('hour', ts) AS h, count(*) AS c FROM events GROUP BY 1, 2",
        "SELECT kind, [[decimal_mean: avg(amount) | CAST(avg(amount) AS decimal(12,2))]] AS a FROM events GROUP BY kind",
        "SELECT id, [[half_away: CAST(price AS bigint) | CAST(round(price) AS bigint)]] AS a, CAST(n + 0.5 AS bigint) AS b FROM events",
        "SELECT extract(hour FROM ts) AS h, count(*) AS c FROM events GROUP BY 1",
        "SELECT CASE WHEN n < 0 THEN 'low' WHEN n < 10 THEN 'middle' WHEN n >= 10 THEN 'high' END AS b, count(*) AS c FROM events GROUP BY 1",
        "SELECT width, count(*) AS c FROM (SELECT CAST(floor(price / 100) AS bigint) AS width FROM events) t GROUP BY width",
        "SELECT n, count(*) AS c FROM events GROUP BY n ORDER BY c DESC, n",
        "SELECT a.kind, b.kind AS other FROM (VALUES ('x', 1), (NULL, 2), ('y', NULL)) AS a (kind, i) JOIN (VALUES ('p', 1), ('q', 2)) AS b (kind, j) ON a.i = b.j",
        "SELECT * FROM (VALUES (1, 2.5), (2, 3.25), (NULL, 0.5)) AS t (a, b)",
        "SELECT id, CAST(ts AS date) - DATE '2024-02-01' AS d FROM events",
    ]
    for key in KEYS:
        for aggregate in ["count(*)", "sum(n)", "sum(qty)", "sum(amount)", "sum(price)", "avg(n)", "min(big)", "max(amount)", "count(DISTINCT user_id)"]:
            yield f"SELECT {key} AS k, {aggregate} AS v FROM events GROUP BY {key}"
    for number in NUMBERS:
        yield f"SELECT kind, sum({number}) AS a, min({number}) AS b, max({number}) AS c, count({number}) AS d FROM events WHERE flag GROUP BY kind"
        yield f"SELECT id, {number} FROM events WHERE {number} BETWEEN 1 AND 10"
        yield f"SELECT id, coalesce({number}, 0) AS a, nullif({number}, 0) AS b FROM events"
        yield f"SELECT id, CASE WHEN flag THEN {number} END AS a, CASE kind WHEN 'buy' THEN {number} WHEN 'view' THEN 1 ELSE 0 END AS b FROM events"
        yield f"SELECT id, {extreme('greatest', number, '3')} AS a, {extreme('least', number, '3')} AS b FROM events"
        yield f"SELECT sum(CASE WHEN flag THEN {number} ELSE NULL END) AS a, sum(CASE WHEN flag THEN {number} ELSE 0 END) AS b FROM events"


def extreme(function, *values):
    """greatest() or least(), in the meaning of each program."""
    known = " AND ".join(f"({value}) IS NOT NULL" for value in values)
    call = f"{function}({', '.join(values)})"
    return f"[[null_wins: {call} | CASE WHEN {known} THEN {call} END]]"


def part_of(number):
    """split_part(), in the meaning of each program."""
    call = f"split_part(page, '/', {number})"
    return f"[[split_part: {call} | CASE WHEN len(string_split(page, '/')) >= {number} THEN {call} END]]"


def functions():
    """Functions of one row that both programs have, over columns with NULLs."""
    text = [
        *("lower(page)", "upper(page)", "length(page)", "trim(page)", "ltrim(page)", "rtrim(page)", "reverse(page)"),
        *("replace(page, '/', '-')", "substr(page, 2)", "substr(page, 2, 3)", "substring(page, 1, 2)", "substring(page FROM 2 FOR 3)"),
        *("strpos(page, 'o')", "position('o' IN page)", "starts_with(page, '/h')", "page LIKE '/h%'", "page LIKE 'a_b'"),
        *("page NOT LIKE '%o%'", "page || kind", "page || '!'", part_of(2), part_of(1)),
        *("lpad(page, 6, '*')", "rpad(page, 6, '*')", "lpad(page, 2, '*')", "left(page, 2)", "right(page, 2)", "repeat(kind, 2)"),
        *("concat_ws('-', kind, page)", "page = '/home'", "page < '/home'", "page <> ''", "page IN ('/', '')", "page BETWEEN '/' AND '/i'"),
        *("[[every_match: regexp_replace(page, '[0-9]+', '#') | regexp_replace(page, '[0-9]+', '#', 'g')]]", "regexp_replace(page, 'o', '0', 'g')", "md5(page)", "translate(page, '/o', '-0')"),
        *("ascii(page)", "chr(65)", "coalesce(page, kind, 'x')", "nullif(page, '')", "kind IS NULL", "kind IS DISTINCT FROM 'buy'"),
        *("upper(left(kind, 1)) || substr(kind, 2)", "page ILIKE '/HOME%'", "contains(page, 'om')", "ends_with(page, 'e')"),
    ]
    math_ = [
        *("abs(n)", "abs(amount)", "abs(price)", "-n", "n + qty", "n - qty", "n * qty", "n + amount", "amount + amount", "amount - 1"),
        *("amount * 2", "amount * qty", "price * 2", "price / 3", "price / nullif(qty, 0)", "n + price", "amount + price", "n % 4", "qty % 4"),
        *("ceil(price)", "floor(price)", "ceil(ratio * 10)", "floor(-ratio * 10)", "round(ratio, 2)", "round(price)", "round(price, 1)"),
        *("trunc(price)", "sqrt(abs(price))", "power(qty, 2)", "exp(ratio)", "ln(ratio + 1)", "log10(ratio + 1)", "log2(ratio + 1)"),
        *("sin(ratio)", "cos(ratio)", "tan(ratio)", "atan(ratio)", "atan2(ratio, 2.0)", "degrees(ratio)", "radians(ratio)", "cbrt(ratio)"),
        *(extreme("greatest", "n", "qty"), extreme("least", "n", "qty"), extreme("greatest", "n", "qty", "4")),
        *(extreme("greatest", "amount", "n"), extreme("least", "price", "n")),
        *("n = qty", "n < amount", "n < price", "amount > price", "big > 0", "big = 9223372036854775807", "big < -9223372036854775807"),
        *("[[decimal_literal: n + 0.5 | CAST(n + 0.5 AS double)]]", "[[decimal_literal: n * 1.5 | CAST(n * 1.5 AS double)]]", "n > 2.5", "n = 3.0", "qty * 1.0 / 4", "[[decimal_literal: 1.0 * n | CAST(1.0 * n AS double)]]", "n IS NULL OR n > 3", "NOT (n > 3)", "n > 3 AND flag"),
        *("flag AND n > 3", "flag OR n > 3", "flag IS TRUE", "flag IS NOT TRUE", "flag = (n > 3)", "NOT flag", "flag IS UNKNOWN"),
        *("big + 1", "big * 2", "big - 1", "abs(big)", "-big", "CAST(big AS int)", "big % 7", "big [[integer_division: / | //]] 1000"),
        *("gcd(n, qty)", "pi()", "cot(ratio + 1)", "n & 3", "n | 3", "qty << 2"),
    ]
    casts = [
        *("CAST(n AS varchar)", "CAST(amount AS varchar)", "CAST(qty AS double)", "CAST(amount AS double)", "CAST(n AS decimal(10,2))"),
        *("CAST(price AS decimal(18,3))", "CAST(price AS decimal(18,1))", "CAST(amount AS decimal(14,1))", "CAST(amount AS bigint)"),
        *("CAST(flag AS varchar)", "CAST(flag AS int)", "CAST(n AS boolean)", "CAST(day AS varchar)", "CAST(day AS timestamp)", "CAST(ts AS date)"),
        *("CAST(dt AS date)", "CAST(CAST(n AS varchar) AS int)", "CAST('12' AS bigint) + n", "CAST('1.5' AS double)", "CAST('2024-02-29' AS date)"),
        *("CAST('2024-02-29 12:34:56' AS timestamp)", "CAST('2024-02-29T12:34:56' AS timestamp)", "CAST(id AS int)", "CAST(big AS varchar)"),
        *("CAST(big AS double)", "CAST(big AS decimal(38,0))", "CAST('true' AS boolean)", "CAST(NULL AS int)", "CAST(NULL AS varchar)"),
    ]
    dates = [
        *(f"date_trunc('{unit}', ts)" for unit in ("second", "minute", "hour", "day", "week", "month", "quarter", "year")),
        *(f"CAST(date_trunc('{unit}', day) AS date)" for unit in TRUNCATED),
        "CAST(date_trunc('day', day) AS date)",
        *(f"date_part('{part}', ts)" for part in ("year", "quarter", "month", "week", "day", "doy", "dow", "isodow", "hour", "minute")),
        *(f"extract({part} FROM day)" for part in ("year", "quarter", "month", "week", "day", "doy")),
        "[[sunday: extract(dow FROM day) | extract(isodow FROM day)]]",
        *("ts + INTERVAL '1 day'", "ts - INTERVAL '90 minutes'", "ts + INTERVAL '1' MONTH", "CAST(day + INTERVAL '1 day' AS date)"),
        *("CAST(day - INTERVAL '1' MONTH AS date)", "day > DATE '2024-02-01'", "day = DATE '2024-02-29'", "ts >= TIMESTAMP '2024-03-01 00:00:00'"),
        *("ts < '2024-03-01'", "dt = '2024-03-01'", "dt >= '2024-03-01'", "CAST(dt AS date) = day", "ts - ts = INTERVAL '0 days'"),
        *("ts BETWEEN TIMESTAMP '2024-02-29 00:00:00' AND TIMESTAMP '2024-02-29 23:59:59'", "CAST(ts AS date) BETWEEN DATE '2024-02-29' AND DATE '2024-03-01'"),
        *(extreme("greatest", "day", "DATE '2024-02-15'"), "coalesce(day, CAST(ts AS date))", "make_date(2024, 2, 29)", "day IN (DATE '2024-02-29', DATE '1970-01-01')"),
        *("CAST(day AS timestamp) < ts", "day < ts", "CAST(date_trunc('month', ts) AS date)", "CAST(day + 1 AS date)"),
    ]
    for expression in [*text, *math_, *casts, *dates]:
        yield f"SELECT id, {expression} AS v FROM events"


def ignoring(function, arguments):
    """A window function that ignores NULLs, in the spelling of each program."""
    return f"[[ignore_nulls: {function}({arguments}) IGNORE NULLS | {function}({arguments} IGNORE NULLS)]]"


def windows():
    """Every window function, with offsets, defaults, frames and ignored NULLs."""
    total = ["ORDER BY id", "ORDER BY n, id", "ORDER BY n DESC, id", "ORDER BY ts DESC, id DESC", "ORDER BY page NULLS FIRST, id"]
    parts = ["", "PARTITION BY kind ", "PARTITION BY user_id ", "PARTITION BY kind, flag "]
    spots = itertools.cycle(itertools.product(parts, total))

    def over(frame=""):
        part, order = next(spots)
        return f"OVER ({part}{order}{' ' + frame if frame else ''})"

    for ranking in ("row_number()", "rank()", "dense_rank()", "percent_rank()", "cume_dist()"):
        for _ in range(3):
            yield WINDOWED.format(f"{ranking} {over()}")
    for ranking in ("rank()", "dense_rank()", "percent_rank()", "cume_dist()"):
        for order in ("n", "n DESC", "qty, flag", "price", "amount DESC", "day NULLS FIRST", "page DESC", "flag", "kind DESC NULLS FIRST, n"):
            for part in ("", "PARTITION BY user_id "):
                yield WINDOWED.format(f"{ranking} OVER ({part}ORDER BY {order})")
    for pieces in (1, 2, 3, 4, 7, 100, 20_000):
        yield WINDOWED.format(f"ntile({pieces}) {over()}")
    for function in ("lag", "lead"):
        for value in ("n", "page", "amount", "price", "flag", "ts", "day"):
            yield WINDOWED.format(f"{function}({value}) {over()}")
            yield WINDOWED.format(f"{ignoring(function, value)} {over()}")
        for arguments in ("n, 0", "n, 2", "n, 5", "n, 1, 0", "n, 2, -1", "n, 20000, 7", "page, 3, 'none'", "price, 1, 0", "amount, 1, 0", "qty, 1, NULL"):
            yield WINDOWED.format(f"{function}({arguments}) {over()}")
            yield WINDOWED.format(f"{ignoring(function, arguments)} {over()}")
    frames = [
        "",
        "ROWS UNBOUNDED PRECEDING",
        "ROWS 2 PRECEDING",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 3 FOLLOWING",
        "ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING",
        "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        "ROWS BETWEEN CURRENT ROW AND CURRENT ROW",
        "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
        "ROWS BETWEEN 1 FOLLOWING AND 4 FOLLOWING",
        "ROWS BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING",
        "ROWS BETWEEN 0 PRECEDING AND 0 FOLLOWING",
    ]
    for function in ("first_value", "last_value", "nth_value"):
        for frame in frames:
            for value in ("n", "page"):
                second = ", 2" if function == "nth_value" else ""
                yield WINDOWED.format(f"{function}({value}{second}) {over(frame)}")
                yield WINDOWED.format(f"{ignoring(function, value + second)} {over(frame)}")
    for number in (1, 3, 50):
        yield WINDOWED.format(f"nth_value(page, {number}) {over()}")
        yield WINDOWED.format(f"{ignoring('nth_value', f'page, {number}')} {over()}")
    aggregates = ["count(*)", "count(n)", "sum(n)", "avg(n)", "min(n)", "max(page)", "sum(amount)", "min(amount)", "sum(price)", "max(day)", "bool_or(flag)"]
    for frame in frames:
        for aggregate in aggregates:
            yield WINDOWED.format(f"{aggregate} {over(frame)}")
    others = ["sum(wild)", "avg(wild)", "sum(ratio)", "avg(qty)", "stddev(price)", "var_pop(wild)", "stddev_pop(n)", "var_samp(qty)", "covar_pop(n, price)"]
    others += ["corr", "bool_and(flag)", "count(DISTINCT kind)", "sum(DISTINCT n)", "median(price)", "min(page)", "max(flag)"]
    for frame in (frames[0], frames[3], frames[5], frames[6], frames[7], frames[9], frames[10], "ROWS BETWEEN 30 PRECEDING AND CURRENT ROW"):
        for aggregate in others:
            if aggregate == "corr":
                call = f"corr(n, qty) {over(frame)}"
                yield WINDOWED.format(f"[[correlation: {call} | nullif({call}, 'NaN')]]")
            else:
                yield WINDOWED.format(f"{aggregate} {over(frame)}")
    for frame in (frames[6], frames[7], "ROWS BETWEEN 30 PRECEDING AND CURRENT ROW"):
        for aggregate in ("array_agg(n)", "string_agg(kind, ',')"):  # of short frames: their values are as long
            yield WINDOWED.format(f"{aggregate} {over(frame)}")
    tied = ["ORDER BY n", "ORDER BY n DESC", "ORDER BY qty NULLS FIRST", "ORDER BY qty DESC NULLS FIRST"]
    ranges = [
        "RANGE UNBOUNDED PRECEDING",
        "RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        "RANGE BETWEEN CURRENT ROW AND CURRENT ROW",
        "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
        "RANGE BETWEEN 2 PRECEDING AND CURRENT ROW",
        "RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING",
        "RANGE BETWEEN 3 PRECEDING AND 2 PRECEDING",
        "RANGE BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
        "RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING",
        "RANGE BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING",
        "RANGE BETWEEN UNBOUNDED PRECEDING AND 2 FOLLOWING",
        "RANGE 3 PRECEDING",
    ]
    groups = [frame.replace("RANGE", "GROUPS") for frame in ranges]
    folds = ["count(*)", "sum(qty)", "min(amount)", "max(page)", "sum(price)", "count(n)"]
    for frame in [*ranges, *groups]:
        for order in tied:
            fold = folds[0]
            folds.append(folds.pop(0))
            part = next(spots)[0]
            yield WINDOWED.format(f"{fold} OVER ({part}{order} {frame})")
    for value, order in (("n", "n"), ("qty", "qty DESC"), ("page", "page NULLS FIRST")):
        for frame in [*groups, *ranges[:4]]:
            for function in ("first_value", "last_value"):
                yield WINDOWED.format(f"{function}({value}) OVER (PARTITION BY kind ORDER BY {order} {frame})")
    for order, step in (("amount", "10.5"), ("price", "2.5"), ("price DESC", "100"), ("n", "0")):
        for frame in (f"{step} PRECEDING AND CURRENT ROW", f"{step} PRECEDING AND {step} FOLLOWING", f"CURRENT ROW AND {step} FOLLOWING"):
            yield WINDOWED.format(f"count(*) OVER (ORDER BY {order} RANGE BETWEEN {frame})")
    for order, steps in (("ts", ("1 hour", "90 minutes", "1 day")), ("ts DESC", ("30 minutes",)), ("day", ("2 days", "1 month")), ("day DESC", ("7 days",))):
        for step in steps:
            for frame in (f"INTERVAL '{step}' PRECEDING AND CURRENT ROW", f"INTERVAL '{step}' PRECEDING AND INTERVAL '{step}' FOLLOWING"):
                yield WINDOWED.format(f"count(*) OVER (PARTITION BY user_id ORDER BY {order} RANGE BETWEEN {frame})")
    for aggregate in ("count(*) FILTER (WHERE flag)", "sum(n) FILTER (WHERE qty > 5)", "max(page) FILTER (WHERE kind = 'buy')"):
        for frame in frames[:8]:
            yield WINDOWED.format(f"{aggregate} {over(frame)}")
    for aggregate in ("count(*)", "sum(n)", "avg(price)", "min(ts)", "max(amount)", "count(DISTINCT kind)"):
        yield WINDOWED.format(f"{aggregate} OVER ()")
        yield WINDOWED.format(f"{aggregate} OVER (PARTITION BY user_id)")
        yield WINDOWED.format(f"{aggregate} OVER (PARTITION BY kind, flag)")
    yield "SELECT id, sum(n) OVER w AS a, rank() OVER w AS b, lag(n) OVER w AS c FROM events WINDOW w AS (PARTITION BY kind ORDER BY n, id)"
    yield "SELECT id, sum(n) OVER (ORDER BY id) AS a, sum(n) OVER (ORDER BY id DESC) AS b, lead(n) OVER (ORDER BY id DESC) AS c FROM events"
    yield "SELECT id, first_value(n) OVER (ORDER BY id DESC) AS a, last_value(n) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS b FROM events"
    yield "SELECT id, r FROM (SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id) AS r FROM events) t WHERE r <= 2"
    yield "SELECT id, r FROM (SELECT id, rank() OVER (PARTITION BY user_id ORDER BY n) AS r FROM events) t WHERE r < 3"
    yield "SELECT id, w FROM (SELECT id, lead(id, 3) OVER (ORDER BY id) AS w FROM events) t ORDER BY id LIMIT 5"
    ahead = ignoring("lead", "n, 2")
    yield f"SELECT id, w FROM (SELECT id, {ahead} OVER (ORDER BY id) AS w FROM events) t ORDER BY id LIMIT 5"
    yield "SELECT id, w, lead(w, 3) OVER (ORDER BY id) AS x FROM (SELECT id, lead(id, 3) OVER (ORDER BY id) AS w FROM events) t ORDER BY id LIMIT 5"
    yield "SELECT id, lead(w, 3) OVER (ORDER BY id DESC) AS x FROM (SELECT id, lead(n, 3) OVER (ORDER BY id) AS w FROM events) t ORDER BY id DESC LIMIT 5"
    yield "SELECT id, w FROM (SELECT id, sum(id) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND 4 FOLLOWING) AS w FROM events) t ORDER BY id LIMIT 3"


# ---------------------------------------------------------------------------------------------------------------
# Queries by chance


class Chance:
    """Random queries; the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one(self, *options):
        return self.random.choice(options)

    def integer(self, depth=2):
        if depth == 0:
            return self.one("n", "qty", "1", "2", "-3", "0", "length(page)", "CAST(date_part('hour', ts) AS bigint)")
        left, right = self.integer(depth - 1), self.integer(depth - 1)
        return self.one(
            left,
            f"({left} + {right})",
            f"({left} - {right})",
            f"({left} * {right})",
            f"({left} % nullif({right}, 0))",
            f"({left} [[integer_division: / | //]] nullif({right}, 0))",
            f"abs({left})",
            f"coalesce({left}, {right})",
            f"nullif({left}, {right})",
            extreme("greatest", left, right),
            extreme("least", left, right),
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} ELSE {right} END",
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} END",
        )

    def number(self, depth=2):
        if depth == 0:
            return self.one("price", "ratio", "CAST(amount AS double)", "CAST(n AS double)")
        left, right = self.number(depth - 1), self.number(depth - 1)
        return self.one(
            left,
            f"({left} + {right})",
            f"({left} - {self.integer(depth - 1)})",
            f"({left} * {right})",
            f"({left} / nullif({right}, 0))",
            f"abs({left})",
            f"floor({left})",
            f"ceil({left})",
            f"coalesce({left}, {self.integer(depth - 1)})",
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} ELSE {self.integer(depth - 1)} END",
            f"CASE WHEN {self.truth(depth - 1)} THEN NULL ELSE {left} END",
        )

    def decimal(self, depth=1):
        if depth == 0:
            return self.one("amount", "CAST(n AS decimal(10,2))")
        left = self.decimal(depth - 1)
        return self.one(
            left,
            f"({left} + {self.decimal(depth - 1)})",
            f"({left} - {self.integer(0)})",
            f"coalesce({left}, 0)",
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} ELSE 0 END",
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} ELSE {self.integer(0)} END",
            f"abs({left})",
        )

    def text(self, depth=2):
        if depth == 0:
            return self.one("page", "kind", "user_id", "'x'", "''", "dt", "CAST(n AS varchar)")
        left, right = self.text(depth - 1), self.text(depth - 1)
        return self.one(
            left,
            f"({left} || {right})",
            f"upper({left})",
            f"trim({left})",
            f"substr({left}, 1, 3)",
            f"coalesce({left}, {right})",
            f"nullif({left}, {right})",
            f"replace({left}, 'e', '')",
            f"CASE WHEN {self.truth(depth - 1)} THEN {left} ELSE {right} END",
            extreme("greatest", left, right),
        )

    def truth(self, depth=1):
        compare = self.one("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")
        if depth == 0:
            return self.one("flag", f"(n {compare} 3)", f"(qty {compare} n)", f"(kind {compare} 'view')", "page IS NULL", "n IS NOT NULL", f"(price {compare} amount)", "kind IN ('buy', 'view')", "n BETWEEN 0 AND qty", f"(day {compare} DATE '2024-02-29')", "page LIKE '%o%'", "n NOT IN (1, 2)")
        left, right = self.truth(depth - 1), self.truth(depth - 1)
        return self.one(
            left,
            f"({left} AND {right})",
            f"({left} OR {right})",
            f"NOT ({left})",
            f"({left}) IS NOT TRUE",
            f"({left}) IS NULL",
            f"({self.integer(depth)} {compare} {self.integer(depth)})",
            f"({self.text(depth)} {compare} {self.text(depth)})",
            f"coalesce({left}, {right})",
            f"CASE WHEN {left} THEN {right} ELSE {self.truth(depth - 1)} END",
        )

    def value(self):
        return self.one(self.integer, self.number, self.decimal, self.text, self.truth)()

    def key(self):
        return self.one("kind", "user_id", "flag", "dt", "n", "qty", "page", "day", self.integer(1), self.text(1), self.truth(1))

    def aggregate(self):
        made = self.one(
            "count(*)",
            f"count({self.value()})",
            f"count(DISTINCT {self.one(self.integer, self.text, self.truth)(1)})",
            f"sum({self.integer(1)})",
            f"sum({self.decimal()})",
            f"sum({self.number(1)})",
            f"sum(CASE WHEN {self.truth()} THEN {self.one(self.integer, self.decimal)(1)} ELSE 0 END)",
            f"avg({self.integer(1)})",
            f"min({self.value()})",
            f"max({self.value()})",
            f"bool_or({self.truth()})",
            f"bool_and({self.truth()})",
        )
        return f"{made} FILTER (WHERE {self.truth()})" if self.random.random() < 0.2 else made

    def bounds(self, step):
        """Two bounds of a frame, the start no later than the end."""
        kinds = ["UNBOUNDED PRECEDING", "{} PRECEDING", "CURRENT ROW", "{} FOLLOWING", "UNBOUNDED FOLLOWING"]
        first = self.random.randint(0, 3)
        last = self.random.randint(max(first, 1), 4)
        near, far = sorted((step(), step()))
        start, end = (far, near) if last == 1 else (near, far)
        return f"BETWEEN {kinds[first].format(start)} AND {kinds[last].format(end)}"

    def window(self):
        part = self.one("", "", *(f"PARTITION BY {key} " for key in ("kind", "user_id", "flag", "kind, flag", "dt", "n")))
        direction = self.one("", " DESC", " NULLS FIRST", " DESC NULLS FIRST", " NULLS LAST", " DESC NULLS LAST")
        unit = self.one("ROWS", "ROWS", "RANGE", "GROUPS", "")
        fold = self.one("count(*)", "sum({})", "min({})", "max({})", "avg({})", "count({})", "first_value({})", "last_value({})", "nth_value({}, 2)", "lag", "rank()", "dense_rank()", "percent_rank()", "cume_dist()", "row_number()", "ntile(5)")
        by_row = unit in ("ROWS", "") or fold in ("lag", "row_number()", "ntile(5)") or "_value" in fold
        value = self.one("n", "qty", "amount", "price", "page", "day", "id")
        if fold.startswith(("sum", "avg")):
            value = self.one("n", "qty", "price") if fold.startswith("avg") else self.one("n", "qty", "price", "amount")
        key = self.one("n", "qty", "price", "amount", "page", "day", "ts", "kind", self.integer(1))
        if unit in ("RANGE", "") and not by_row:
            key = self.one("n", "qty", "price", "amount")
        order = f"ORDER BY {key}{direction}"
        if by_row:
            order += ", id"
            unit = self.one("ROWS", "")
        if fold == "lag":
            arguments = f"{value}, {self.random.randint(0, 4)}"
            function = self.one("lag", "lead")
            call = self.one(f"{function}({arguments})", ignoring(function, arguments))
        elif "_value" in fold:
            function, arguments = fold.format(value)[:-1].split("(")
            call = self.one(f"{function}({arguments})", ignoring(function, arguments))
        else:
            call = fold.format(value)
            if fold.endswith("})") and self.random.random() < 0.2:
                call += f" FILTER (WHERE {self.truth()})"
        ranking = fold in ("rank()", "dense_rank()", "percent_rank()", "cume_dist()", "row_number()", "ntile(5)", "lag")
        frame = f" {unit} {self.bounds(lambda: self.random.randint(0, 4))}" if unit and not ranking else ""
        return f"{call} OVER ({part}{order}{frame})"

    def query(self):
        shape = self.one("rows", "group", "group", "having", "join", "union", "window", "window", "window", "outer", "in")
        where = self.one("", f" WHERE {self.truth()}", f" WHERE {self.truth(2)}")
        if shape == "rows":
            return f"SELECT id, {self.value()} AS a, {self.value()} AS b, {self.value()} AS c FROM events{where}"
        if shape == "group":
            return f"SELECT {self.key()} AS k, {self.key()} AS l, {self.aggregate()} AS a, {self.aggregate()} AS b FROM events{where} GROUP BY 1, 2"
        if shape == "having":
            return f"SELECT {self.key()} AS k, {self.aggregate()} AS a FROM events{where} GROUP BY 1 HAVING count(*) > {self.random.randint(1, 50)}"
        if shape == "join":
            kind = self.one("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
            on = self.one("", f" AND units > {self.random.randint(0, 4)}", f" AND qty < {self.random.randint(1, 8)}", " AND e.n = o.units")
            return f"SELECT e.kind, o.units, count(*) AS c, count(e.id) AS d, sum(o.total) AS t, max(e.page) AS p FROM events e {kind} orders o ON e.user_id = o.user_id{on} GROUP BY 1, 2"
        if shape == "union":
            how = self.one("UNION ALL", "UNION", "EXCEPT", "INTERSECT")
            return f"SELECT {self.integer()} AS a, {self.text(1)} AS b FROM events{where} {how} SELECT {self.integer()}, {self.text(1)} FROM events"
        if shape == "outer":
            return f"SELECT k, count(*) AS c, sum(a) AS s FROM (SELECT {self.key()} AS k, {self.integer()} AS a, {self.truth()} AS t FROM events{where}) q WHERE t IS NOT FALSE GROUP BY k"
        if shape == "in":
            negated = self.one("", "NOT ")
            return f"SELECT id FROM events WHERE {self.one('n', 'qty')} {negated}IN (SELECT units FROM orders WHERE total > {self.random.randint(0, 1000)}) AND {self.truth()}"
        return f"SELECT id, {self.window()} AS w, {self.window()} AS x FROM events{where}"


# What DuckDB answers and rawmart refuses before anything runs (exit 2), with a part of its words.
REFUSALS = [
    ("SELECT user_id FROM orders EXCEPT ALL SELECT user_id FROM users", "EXCEPT ALL is not possible"),
    ("SELECT user_id FROM orders INTERSECT ALL SELECT user_id FROM users", "INTERSECT ALL is not possible"),
    ("SELECT id FROM events WHERE flag IS DISTINCT FROM true OR n > 3", "AND or OR behind IS DISTINCT FROM"),
    (WINDOWED.format("sum(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW)"), "EXCLUDE in a frame"),
    (WINDOWED.format("sum(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 2 PRECEDING)"), "ends before that"),
    (WINDOWED.format("sum(n) OVER (ORDER BY id ROWS BETWEEN 3 FOLLOWING AND 1 FOLLOWING)"), "ends before that"),
    (WINDOWED.format("sum(n) OVER (ORDER BY id ROWS BETWEEN 1 + 1 PRECEDING AND CURRENT ROW)"), "write a whole number"),
    (WINDOWED.format("lag(n, qty) OVER (ORDER BY id)"), "the number of rows of `lag()`"),
    (WINDOWED.format("lag(n, -1) OVER (ORDER BY id)"), "`lead` looks forward"),
    (WINDOWED.format("lead(n, NULL) OVER (ORDER BY id)"), "the number of rows of `lead()`"),
    (WINDOWED.format("lead(n, 1, qty) OVER (ORDER BY id)"), "which is not a constant"),
    (WINDOWED.format("nth_value(n, 0) OVER (ORDER BY id)"), "1 or more"),
    ("SELECT id, last_day(day) AS v FROM events", "last_day"),
]

# What DuckDB answers and rawmart fails to build (exit 3): likewise.
FAILURES = [
    ("SELECT sum(big) AS s FROM events", "does not fit bigint"),
    ("SELECT kind, sum(big) AS s FROM events GROUP BY kind", "does not fit bigint"),
    (WINDOWED.format("sum(big) OVER (ORDER BY id)"), "does not fit bigint"),
]

# What rawmart answers and DuckDB does not, with a part of DuckDB's words. A bound behind the largest integer takes in
# all rows on that side.
ANSWERS = [
    (WINDOWED.format("count(*) OVER (ORDER BY big RANGE BETWEEN 1000000 PRECEDING AND CURRENT ROW)"), "Overflow in "),
    (WINDOWED.format("count(*) OVER (ORDER BY big RANGE BETWEEN CURRENT ROW AND 1000000 FOLLOWING)"), "Overflow in "),
]

# Differences of large terms, which may be nearly nothing: they are equal to this too, not only relative to themselves.
CANCELLING = re.compile(r"\b(corr|covar_\w+|var_\w+|stddev\w*)\(")
NEARLY_NOTHING = 1e-6


def queries(generated):
    listed = [query for query, _ in [*FAILURES, *ANSWERS]]
    made = list(dict.fromkeys([*dashboards(), *functions(), *windows(), *listed]))
    by_hand = len(made)
    chance = Chance(7)
    while len(made) < by_hand + generated:
        query = chance.query()
        if query not in made:
            made.append(query)
    return made


PLACE = re.compile(r"\[\[(\w+): (.*?) \| (.*?)\]\]")


def spelt(query, side):
    """The query in the spelling of rawmart (0) or DuckDB (1)."""
    # From the inside out: a place may lie within another.
    while found := PLACE.search(query):
        inner = query.rfind("[[", 0, found.end())
        found = PLACE.match(query, inner)
        if found[1] not in DIFFERENCES:
            raise SystemExit(f"FAILED: the difference `{found[1]}` is not on the list")
        query = query[:inner] + found[2 + side].strip() + query[found.end() :]
    return query


# ---------------------------------------------------------------------------------------------------------------
# Comparison


def rawmart(binary, folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAWMART_"))}
    command = [str(binary), "--config", str(folder / "rawmart.toml"), "--output", "json", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def source(lake, name):
    return f"read_parquet('{lake}/{name}/**/*.parquet', hive_partitioning = true, hive_types = {{'dt': 'VARCHAR'}})"


def kind(type_name):
    if type_name.endswith("[]"):
        return "list of " + kind(type_name[:-2])
    if type_name.startswith("DECIMAL"):
        return "decimal"
    if type_name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"):
        return "integer"
    if type_name in ("DOUBLE", "FLOAT"):
        return "double"
    if type_name.startswith("TIMESTAMP"):
        return "timestamp"
    return type_name.lower()


def described(db, relation):
    return [(row[0], kind(row[1])) for row in db.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]


def shown(columns):
    """Columns in one form on both sides."""
    forms = {"timestamp": "epoch_ms({0})", "integer": "CAST({0} AS HUGEINT)", "decimal": "CAST({0} AS DECIMAL(38, 6))"}
    return ", ".join(forms.get(kind, "{0}").format(f'"{name}"') for name, kind in columns)


def close(ours, theirs, nothing):
    if isinstance(ours, float) and isinstance(theirs, float):
        return (math.isnan(ours) and math.isnan(theirs)) or math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=nothing)
    return ours == theirs


def by_value(row):
    """Sorts rows by their exact columns, then by doubles."""
    exact = [(cell is None, str(cell)) for cell in row if not isinstance(cell, float)]
    return exact, [cell for cell in row if isinstance(cell, float)]


def digest(db, columns, relation):
    """The number of rows, and a sum over them that is the same in any order."""
    sum_ = f"sum(CAST(hash({shown(columns)}) AS HUGEINT))"
    return db.execute(f"SELECT count(*), {sum_} FROM {relation}").fetchone()


def compare(db, name, parquet, query):
    """The difference between the published table and DuckDB's answer, or None."""
    ours, theirs = described(db, parquet), described(db, f"answers.{name}")
    if [n for n, _ in ours] != [n for n, _ in theirs]:
        return f"columns {[n for n, _ in ours]}, DuckDB's {[n for n, _ in theirs]}"
    for (column, mine), (_, other) in zip(ours, theirs, strict=True):
        if mine != other and "null" not in other:
            return f"`{column}` is of type {mine}, DuckDB's {other}"
    if digest(db, ours, parquet) == digest(db, theirs, f"answers.{name}"):
        return None
    left, right = f"SELECT {shown(ours)} FROM {parquet}", f"SELECT {shown(theirs)} FROM answers.{name}"
    surplus = db.execute(f"{left} EXCEPT ALL {right}").fetchall()
    lacking = db.execute(f"{right} EXCEPT ALL {left}").fetchall()
    if not surplus and not lacking:
        return None
    if len(surplus) == len(lacking) and "double" in [k for _, k in ours]:
        surplus.sort(key=by_value)
        lacking.sort(key=by_value)
        nothing = NEARLY_NOTHING if CANCELLING.search(query) else 0.0
        if all(close(*pair, nothing) for rows in zip(surplus, lacking, strict=True) for pair in zip(*rows, strict=True)):
            return None
    return f"{len(surplus)} rows of ours only, such as {surplus[:3]}; {len(lacking)} of DuckDB's only, such as {lacking[:3]}"


def refused(binary, work):
    """The queries on the list of refusals, each in a project of its own."""

    def refuse(number):
        query, words = REFUSALS[number]
        folder = work / f"refused{number}"
        write_marts(folder, {"m": query})
        done = rawmart(binary, folder, "plan")
        if done.returncode == 2 and words in done.stderr and "m.sql:2: " in done.stderr:
            return []
        return [f"{query}\n    is not refused as listed, with its line: exit {done.returncode} {done.stderr.strip()}"]

    with ThreadPoolExecutor(2) as pool:
        return list(itertools.chain.from_iterable(pool.map(refuse, range(len(REFUSALS)))))


def not_refused(binary, work, names):
    """Removes, one by one, the marts for which a project is refused, and returns them."""
    folder = work / "all"
    write_marts(folder, names)
    found = []
    while True:
        done = rawmart(binary, folder, "plan")
        if done.returncode == 0:
            return found
        place = re.search(r"\b(q\d{4})\.sql", done.stderr)
        if done.returncode != 2 or not place or place[1] not in names or len(found) == SHOWN:
            raise SystemExit(f"FAILED rawmart plan: exit {done.returncode}\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
        found.append(f"{names.pop(place[1])}\n    is refused: {done.stderr.strip()}")
        (folder / "sql" / f"{place[1]}.sql").unlink()


def answers(db, names):
    """Makes tables of DuckDB's answers, and returns the messages of the queries that fail."""
    db.execute("CREATE SCHEMA answers")
    failed = {}
    for name, query in names.items():
        try:
            db.execute(f"CREATE TABLE answers.{name} AS {spelt(query, 1)}")
        except Exception as error:  # whatever DuckDB raises, rawmart must fail too
            failed[name] = str(error).split("\n")[0]
    return failed


def listed(closed, query, said):
    """Whether a query is on a closed list, and failed with the message that the list has."""
    return any(query == other and part in said for other, part in closed)


def differences(duckdb, binary, work, names):
    found, compared, agreed = not_refused(binary, work, names), 0, 0
    db = None
    for number, (memory, threads, share) in enumerate(CONFIGURATIONS):
        folder = work / f"run{number}"
        some = dict(list(names.items())[::share])
        write_marts(folder, some)
        lake = folder / "lake"
        done = rawmart(binary, folder, "--memory", memory, "--threads", str(threads), "run")
        if done.returncode not in (0, 3):
            raise SystemExit(f"FAILED rawmart run: exit {done.returncode}\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
        said = {mart["name"]: mart for mart in json.loads(done.stdout)["marts"]}
        if db is None:
            db = duckdb.connect()
            db.execute("SET TimeZone = 'UTC'")
            for table in ("events", "orders"):
                db.execute(f"CREATE TABLE {table} AS SELECT * FROM {source(lake, table)}")
            db.execute(
                f"CREATE TABLE users AS SELECT * FROM read_csv('{work}/data/users.csv', header = true, nullstr = '', "
                "columns = {'user_id': 'VARCHAR', 'plan': 'VARCHAR', 'age': 'INTEGER', 'since': 'DATE'})"
            )
            failed = answers(db, names)
        for name, query in some.items():
            error, other = said[name].get("error"), failed.get(name)
            what = None
            if error and not other and not listed(FAILURES, query, error):
                what = f"fails: {error}"
            elif other and not error and not listed(ANSWERS, query, other):
                what = f"is answered; DuckDB fails: {other}"
            elif error or other:
                agreed += 1
            else:
                what = compare(db, name, f"read_parquet('{lake}/{name}/*.parquet')", query)
                compared += 1
            if what:
                found.append(f"{query}\n    at {memory} and {threads} threads: {what}")
    print(f"  ok  {len(names)} queries: {compared} tables compared, {agreed} failures as expected, {len(REFUSALS)} refusals")
    return found


def written(value):
    """A value of DuckDB in the spelling of fixtures/sql/functions.toml."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds") + "Z"
    if isinstance(value, list):
        return f"[{', '.join(written(item) for item in value)}]"
    return str(value)


def equal(ours, theirs):
    """Whether two spellings are one value. Numbers may have other types, and JSON other spaces."""
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=TOLERANCE)
    except ValueError:
        return ours.replace(" ", "") == theirs.replace(" ", "")


def examples(duckdb):
    """The examples of the page on the SQL that DuckDB does not answer as the page says."""
    functions = tomllib.loads(Path("fixtures/sql/functions.toml").read_text(encoding="utf-8"))["function"]
    found, asked = [], 0
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for function in functions:
            expression = function.get("duckdb", function["example"])
            if not expression:
                continue
            asked += 1
            try:
                answer = written(db.execute(f"SELECT {expression} AS x").fetchone()[0])
            except Exception as error:  # whatever DuckDB raises, the page is wrong
                answer = f"error: {error}"
            if not equal(function["gives"], answer):
                found.append(f"{function['name']}: `{expression}` gives {answer} in DuckDB, not {function['gives']}")
    print(f"  ok  {asked} examples of docs/sql.md in DuckDB")
    return found


def main(binary):
    import duckdb

    begun = time.monotonic()
    binary = Path(binary).resolve()
    made = queries(300)
    names = {f"q{i:04}": query for i, query in enumerate(made)}
    used = {place[1] for query in made for place in PLACE.finditer(query)}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "data").mkdir()
        write_data(work / "data")
        found = examples(duckdb) + refused(binary, work) + differences(duckdb, binary, work, names)
    for name in DIFFERENCES.keys() - used:
        found.append(f"no query uses the difference `{name}`: take it off the list")
    if found:
        more = "" if len(found) <= SHOWN else f"\n  … and {len(found) - SHOWN} more"
        raise SystemExit("FAILED: marts differ from DuckDB\n" + "\n".join(found[:SHOWN]) + more)
    print(f"  {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1])
