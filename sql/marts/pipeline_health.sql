-- What the pipeline kept, dropped and refused, per day.
-- partition: dt
-- unique: dt
-- not_null: events, rejects
-- check: kept + redelivered + double_clicks = events
-- owner: Data team
-- dashboard: Pipeline
--
-- Events count on their event date, rejects on the date their raw object arrived.
SELECT
    CAST(sum(kept) + sum(redelivered) + sum(double_clicks) AS bigint) AS events,
    CAST(sum(kept) AS bigint) AS kept,
    CAST(sum(redelivered) AS bigint) AS redelivered,
    CAST(sum(double_clicks) AS bigint) AS double_clicks,
    CAST(sum(rejects) AS bigint) AS rejects,
    dt
FROM (
    SELECT 1 AS kept, 0 AS redelivered, 0 AS double_clicks, 0 AS rejects, dt
    FROM events
    UNION ALL
    SELECT
        0 AS kept,
        CASE WHEN rule = 'redelivery' THEN 1 ELSE 0 END AS redelivered,
        CASE WHEN rule = 'double_click' THEN 1 ELSE 0 END AS double_clicks,
        0 AS rejects,
        dt
    FROM events_duplicates
    UNION ALL
    SELECT 0 AS kept, 0 AS redelivered, 0 AS double_clicks, 1 AS rejects, dt
    FROM events_rejects
) AS verdicts
GROUP BY dt
