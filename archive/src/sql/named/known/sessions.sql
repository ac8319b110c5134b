-- The intruder's sessions: they go on from other addresses.
SELECT session_id FROM acts WHERE session_id IS NOT NULL AND client_ip IN (SELECT client_ip FROM addresses)
UNION
SELECT lower(trim(given)) AS session_id FROM (SELECT unnest(string_to_array($session, ',')) AS given) WHERE trim(given) <> ''
