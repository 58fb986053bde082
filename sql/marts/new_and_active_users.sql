-- New and active users per day.
-- partition: dt
-- reads: events back all
-- unique: dt
-- check: new_users + returning_users = active_users
-- owner: Growth team
-- dashboard: Daily users
--
-- A user is active on a day with at least one kept event, and new on the first such day.
WITH first_seen AS (
    SELECT user_id, min(dt) AS first_dt
    FROM events
    WHERE user_id IS NOT NULL
    GROUP BY user_id
),
active AS (
    SELECT DISTINCT user_id, dt
    FROM events
    WHERE user_id IS NOT NULL
)
SELECT
    count(*) AS active_users,
    CAST(sum(CASE WHEN first_seen.first_dt = active.dt THEN 1 ELSE 0 END) AS bigint) AS new_users,
    CAST(sum(CASE WHEN first_seen.first_dt < active.dt THEN 1 ELSE 0 END) AS bigint) AS returning_users,
    active.dt
FROM active
JOIN first_seen ON first_seen.user_id = active.user_id
GROUP BY active.dt
