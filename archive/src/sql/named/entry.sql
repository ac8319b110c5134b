-- How were we breached?
-- covers: from three days before the intruder's first trace: harmful mail to the account and links it opened, sign-ins of
--   the intruder, failed ones from networks that were never the account's, sessions that were used without a recorded sign-in (a stolen token), consents,
--   resets.
-- cannot see: mail that Defender did not judge, sign-ins that only Entra's own log has (non-interactive ones, risk, Conditional
--   Access), and what was typed on a page of the intruder.
WITH span AS (SELECT first_time - INTERVAL '3 days' AS begin_time, last_time AS end_time FROM seen),
steps AS (
    SELECT event_time, 'harmful mail' AS step, client_ip, id,
        concat_ws(' | ', field(raw, 'P2Sender'), field(raw, 'Subject'), field(raw, 'Verdict'), field(raw, 'PolicyAction')) AS detail
    FROM events
    WHERE operation = 'TIMailData' AND ($tenant = '' OR tenant = $tenant)
        AND event_time >= (SELECT begin_time FROM span) AND event_time <= (SELECT end_time FROM span)
        AND array_has(string_to_array(lower(field(raw, 'Recipients')), ';'), $user)
    UNION ALL
    SELECT event_time, 'link opened', client_ip, id, object_id FROM acts WHERE operation = 'TIUrlClickData'
    UNION ALL
    SELECT event_time, concat('sign-in: ', outcome), client_ip, id,
        concat_ws(' | ', CAST(error_number AS VARCHAR), field(raw, 'LogonError'), param(raw, 'RequestType'), user_agent)
    FROM intruder WHERE operation_key IN ('userloggedin', 'userloginfailed')
    UNION ALL
    SELECT event_time, 'sign-in failed elsewhere', client_ip, id,
        concat_ws(' | ', CAST(error_number AS VARCHAR), field(raw, 'LogonError'), user_agent)
    FROM acts
    WHERE operation_key = 'userloginfailed' AND client_ip NOT IN (SELECT client_ip FROM addresses)
        AND client_network NOT IN (SELECT client_network FROM own)
    UNION ALL
    SELECT event_time, 'session without a recorded sign-in', client_ip, id, session_id FROM intruder
    WHERE session_id IS NOT NULL AND operation_key NOT IN ('userloggedin', 'userloginfailed') AND session_id NOT IN
        (SELECT session_id FROM acts WHERE session_id IS NOT NULL AND operation_key = 'userloggedin')
    UNION ALL
    SELECT event_time, operation, client_ip, id, concat_ws(' | ', object_id, user_agent) FROM acts
    WHERE operation_key IN ('consent to application', 'reset user password', 'change user password',
        'user registered security info', 'user started security info registration')
)
SELECT min(event_time) AS first_time, max(event_time) AS last_time, count(*) AS times, step, client_ip, detail, min(id) AS event_id
FROM steps
WHERE event_time >= (SELECT begin_time FROM span) AND event_time <= (SELECT end_time FROM span)
GROUP BY step, client_ip, detail
ORDER BY first_time, step, detail
