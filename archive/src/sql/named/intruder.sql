-- By what is the intruder known? Ask this first: every other question here rests on it.
-- covers: addresses, sessions, applications and programs of whoever is taken for the intruder: those given as ip and session,
--   else the addresses that findings of level medium and above name and that the account had not used a day before.
-- cannot see: an intruder who comes from a network the account uses too, or whom no finding names. Compare users_of_it: an
--   address that many use is an office or a provider, not a culprit. Then ask again with ip and session.
WITH marks AS (
    SELECT 'address' AS known_by, client_ip AS value, event_time, operation FROM intruder WHERE client_ip IS NOT NULL
    UNION ALL
    SELECT 'session', session_id, event_time, operation FROM intruder WHERE session_id IS NOT NULL
    UNION ALL
    SELECT 'application agreed to', app_id, event_time, operation FROM intruder WHERE app_id IN (SELECT app_id FROM applications)
    UNION ALL
    SELECT 'program', user_agent, event_time, operation FROM intruder WHERE user_agent IS NOT NULL
),
users AS (
    SELECT client_ip, count(DISTINCT user_id) AS users_of_it FROM events
    WHERE client_ip IN (SELECT client_ip FROM intruder) AND ($tenant = '' OR tenant = $tenant)
    GROUP BY client_ip
)
SELECT known_by, value, min(event_time) AS first_time, max(event_time) AS last_time, count(*) AS records,
    count(DISTINCT operation) AS operations, max(users_of_it) AS users_of_it
FROM marks LEFT JOIN users ON known_by = 'address' AND users.client_ip = value
GROUP BY known_by, value
ORDER BY known_by, first_time, value
