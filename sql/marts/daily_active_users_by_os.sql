-- Daily active users by operating system.
-- partition: dt
-- unique: dt, os
-- accepted: os in ('Android', 'iOS', 'web', 'unknown')
-- check: active_users <= events
-- check: share > 0 AND share <= 1
-- owner: Product team
-- dashboard: Daily users
--
-- share is of all of the day's active users, as new_and_active_users counts them; a user of two
-- systems counts in both.
SELECT
    coalesce(events.os, 'unknown') AS os,
    count(DISTINCT events.user_id) AS active_users,
    count(*) AS events,
    CAST(count(DISTINCT events.user_id) AS double) / CAST(daily.active_users AS double) AS share,
    events.dt
FROM events
JOIN new_and_active_users AS daily ON daily.dt = events.dt
WHERE events.user_id IS NOT NULL
GROUP BY coalesce(events.os, 'unknown'), daily.active_users, events.dt
