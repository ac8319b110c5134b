-- When the intruder was there.
SELECT min(event_time) AS first_time, max(event_time) AS last_time FROM acts
WHERE client_ip IN (SELECT client_ip FROM addresses) OR session_id IN (SELECT session_id FROM sessions)
