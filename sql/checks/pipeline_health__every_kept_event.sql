-- Every kept event is counted on its date.
SELECT events.dt, events.kept, pipeline_health.kept AS counted
FROM (SELECT dt, count(*) AS kept FROM events GROUP BY dt) AS events
LEFT JOIN pipeline_health ON pipeline_health.dt = events.dt
WHERE pipeline_health.kept IS NULL OR pipeline_health.kept <> events.kept
