-- From a search to a contact, per day.
-- partition: dt
-- unique: dt
-- check: contacts <= views AND views <= searches
-- owner: Sales team
-- dashboard: Funnel
--
-- Counts sessions: those with a search, those that viewed a complex at or after their first search,
-- and those that contacted an agent at or after that view. A session over midnight is two.
WITH searched AS (
    SELECT dt, session_id, min(event_time) AS reached_at
    FROM events
    WHERE event_type = 'search' AND session_id IS NOT NULL
    GROUP BY dt, session_id
),
viewed AS (
    SELECT searched.dt, searched.session_id, min(events.event_time) AS reached_at
    FROM searched
    JOIN events ON events.dt = searched.dt AND events.session_id = searched.session_id
    WHERE events.event_type = 'view' AND events.event_time >= searched.reached_at
    GROUP BY searched.dt, searched.session_id
),
contacted AS (
    SELECT viewed.dt, viewed.session_id, min(events.event_time) AS reached_at
    FROM viewed
    JOIN events ON events.dt = viewed.dt AND events.session_id = viewed.session_id
    WHERE events.event_type = 'contact' AND events.event_time >= viewed.reached_at
    GROUP BY viewed.dt, viewed.session_id
)
SELECT
    count(*) AS searches,
    count(viewed.session_id) AS views,
    count(contacted.session_id) AS contacts,
    CAST(count(contacted.session_id) AS double) / CAST(count(*) AS double) AS search_to_contact,
    searched.dt
FROM searched
LEFT JOIN viewed ON viewed.dt = searched.dt AND viewed.session_id = searched.session_id
LEFT JOIN contacted ON contacted.dt = searched.dt AND contacted.session_id = searched.session_id
GROUP BY searched.dt
