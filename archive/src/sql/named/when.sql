-- When did it begin, when did it first do something, and when was it last seen?
-- covers: first and last traces of the intruder by the time of the events, with the time they reached harrier beside it, the
--   hours in which Microsoft recorded no reading, and every stretch that was not collected whole.
-- cannot see: what lies before the first record of the archive or in a gap: first_trace is the earliest that is known, not
--   the beginning. Records reach us up to days late: last_trace may move.
WITH moments AS (
    SELECT 1 AS place, 'first trace' AS moment, * FROM intruder
    UNION ALL
    SELECT 2, 'first successful sign-in', * FROM intruder
    WHERE operation_key = 'userloggedin' AND outcome = 'success'
    UNION ALL
    SELECT 3, 'first mail read', * FROM intruder WHERE operation_key = 'mailitemsaccessed'
    UNION ALL
    SELECT 4, 'first change or message', * FROM intruder
    WHERE operation_key NOT IN ('userloggedin', 'userloginfailed', 'mailitemsaccessed', 'fileaccessed', 'fileaccessedextended',
        'filepreviewed', 'filedownloaded', 'pageviewed', 'folderbind')
),
firsts AS (
    SELECT place, moment, event_time, received_time, operation, client_ip, session_id, id,
        row_number() OVER (PARTITION BY moment ORDER BY event_time, id) AS position
    FROM moments
),
lasts AS (
    SELECT event_time, received_time, operation, client_ip, session_id, id,
        row_number() OVER (ORDER BY event_time DESC, id) AS position
    FROM intruder
)
SELECT moment, event_time AS from_time, CAST(NULL AS TIMESTAMP) AS to_time, received_time, operation, client_ip, session_id,
    id AS event_id
FROM (
    SELECT place, moment, event_time, received_time, operation, client_ip, session_id, id FROM firsts WHERE position = 1
    UNION ALL
    SELECT 5, 'last trace', event_time, received_time, operation, client_ip, session_id, id FROM lasts WHERE position = 1
)
UNION ALL
SELECT 'reading not recorded', event_time, CAST(event_time + INTERVAL '1 day' AS TIMESTAMP), received_time, operation, client_ip,
    session_id, id
FROM acts WHERE is_throttled AND event_time >= (SELECT first_time FROM seen)
UNION ALL
SELECT concat('collected ', state, ': ', feed), window_start, CAST(window_end AS TIMESTAMP), NULL, reason, NULL, NULL, NULL
FROM coverage
WHERE state <> 'complete' AND ($tenant = '' OR tenant = $tenant) AND window_end > (SELECT first_time FROM seen)
ORDER BY from_time, moment
