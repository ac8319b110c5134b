-- What the intruder did.
SELECT * FROM acts
WHERE client_ip IN (SELECT client_ip FROM addresses)
    OR session_id IN (SELECT session_id FROM sessions)
    OR app_id IN (SELECT app_id FROM applications)
