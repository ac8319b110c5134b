-- Was it the only account?
-- covers: other accounts that the intruder's addresses or sessions were used with, that forward to the same address, agreed to
--   the same application, were sent the same harmful mail or opened the same link; across the tenant, first those signed in to.
-- cannot see: accounts used from addresses and sessions not known yet: run intruder and this question again for each account
--   found. An address that many use (an office, a mobile provider) names the innocent.
WITH lures AS (
    SELECT DISTINCT field(raw, 'P2Sender') AS sender, field(raw, 'Subject') AS subject FROM events
    WHERE operation = 'TIMailData' AND ($tenant = '' OR tenant = $tenant)
        AND event_time >= (SELECT first_time FROM seen) - INTERVAL '3 days'
        AND array_has(string_to_array(lower(field(raw, 'Recipients')), ';'), $user)
),
others AS (
    SELECT * FROM events
    WHERE (user_id IS DISTINCT FROM $user) AND event_time >= $since AND event_time < $until AND ($tenant = '' OR tenant = $tenant)
),
links AS (
    SELECT user_id, 'same address' AS link, client_ip AS value, event_time, operation, outcome, id FROM others
    WHERE client_ip IN (SELECT client_ip FROM addresses)
    UNION ALL
    SELECT user_id, 'same session', session_id, event_time, operation, outcome, id FROM others
    WHERE session_id IN (SELECT session_id FROM sessions)
    UNION ALL
    SELECT user_id, 'forwards to the same address', target, event_time, operation, outcome, id
    FROM (SELECT *, unnest(forward_targets) AS target FROM others WHERE cardinality(forward_targets) > 0)
    WHERE target IN (SELECT unnest(forward_targets) FROM intruder)
    UNION ALL
    SELECT user_id, 'same application', lower(object_id), event_time, operation, outcome, id FROM others
    WHERE operation_key = 'consent to application' AND lower(object_id) IN (SELECT app_id FROM applications)
    UNION ALL
    SELECT recipient, 'same harmful mail', concat_ws(' | ', sender, subject), event_time, operation, outcome, id
    FROM (
        SELECT *, unnest(string_to_array(lower(field(raw, 'Recipients')), ';')) AS recipient, field(raw, 'P2Sender') AS from_sender,
            field(raw, 'Subject') AS with_subject
        FROM others WHERE operation = 'TIMailData'
    ) AS mail JOIN lures ON lures.sender = mail.from_sender AND lures.subject = mail.with_subject
    UNION ALL
    SELECT user_id, 'same link opened', object_id, event_time, operation, outcome, id FROM others
    WHERE operation = 'TIUrlClickData' AND object_id IN (SELECT object_id FROM acts WHERE operation = 'TIUrlClickData')
)
SELECT user_id, link, value, bool_or(operation = 'UserLoggedIn' AND outcome = 'success') AS signed_in,
    min(event_time) AS first_time, max(event_time) AS last_time, count(*) AS records,
    array_to_string(array_sort(array_agg(DISTINCT operation)), ', ') AS operations
FROM links
WHERE user_id IS DISTINCT FROM $user
GROUP BY user_id, link, value
ORDER BY bool_or(bool_or(operation = 'UserLoggedIn' AND outcome = 'success')) OVER (PARTITION BY user_id) DESC, user_id, first_time, link
