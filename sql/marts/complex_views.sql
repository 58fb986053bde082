-- Which apartment complexes are looked at.
-- unique: danji_id
-- not_null: danji_id, views
-- check: viewers <= views AND first_viewed <= last_viewed
-- owner: Content team
-- dashboard: Complexes
--
-- One row for each complex over all days, so the table has no partitions. A complex that is not in
-- the master keeps its row, without a name.
SELECT
    events.danji_id,
    master.name,
    master.province,
    master.district,
    CAST(master.households AS bigint) AS households,
    count(*) AS views,
    count(DISTINCT events.user_id) AS viewers,
    CAST(count(*) AS double) / CAST(master.households AS double) AS views_per_household,
    min(events.dt) AS first_viewed,
    max(events.dt) AS last_viewed
FROM events
LEFT JOIN danji_master AS master ON master.id = events.danji_id
WHERE events.event_type = 'view' AND events.danji_id IS NOT NULL
GROUP BY events.danji_id, master.name, master.province, master.district, master.households
