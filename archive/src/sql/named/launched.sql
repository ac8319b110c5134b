-- What was launched from the account?
-- covers: mail sent by the intruder, by subject; Defender's verdicts on mail from the account; chats, invitations and links of
--   the account while the intruder was there, also where the record has no address (whose says so).
-- cannot see: to whom mail went (the records of sending do not say; a message trace does), and mail sent past the mailbox: by
--   SMTP, a connector, a rule that forwards.
WITH sent AS (
    SELECT 'intruder' AS whose, m.operation AS what, m.subject AS detail, m.internet_message_id AS item, m.event_time, m.event_id,
        m.client_ip
    FROM mail_items m JOIN intruder i ON i.tenant = m.tenant AND i.id = m.event_id
    WHERE m.access = 'send'
    UNION ALL
    SELECT 'judged by Defender', 'harmful mail from the account', field(raw, 'Subject'), field(raw, 'InternetMessageId'), event_time, id,
        client_ip
    FROM events
    WHERE operation = 'TIMailData' AND lower(field(raw, 'P2Sender')) = $user AND ($tenant = '' OR tenant = $tenant)
        AND event_time >= (SELECT first_time FROM seen) AND event_time < $until
    UNION ALL
    SELECT CASE WHEN by_id IS NOT NULL THEN 'intruder'
            WHEN client_ip IS NULL AND session_id IS NULL THEN 'account, the record has no address'
            ELSE 'account, from elsewhere' END,
        operation, coalesce(object_id, field(raw, 'ChatName'), field(raw, 'TeamName'), field(raw, 'CommunicationType')), id AS item, event_time, id AS event_id,
        client_ip
    FROM acts LEFT JOIN (SELECT DISTINCT tenant AS by_tenant, id AS by_id FROM intruder) ON by_tenant = tenant AND by_id = id
    WHERE event_time >= (SELECT first_time FROM seen) AND event_time <= (SELECT last_time FROM seen)
        AND operation_key IN ('messagesent', 'messagecreatedhaslink', 'messagecreatednotification', 'chatcreated', 'memberadded',
            'sharinginvitationcreated', 'sharingset', 'anonymouslinkcreated', 'secure link created', 'securelinkcreated',
            'addedtosecurelink', 'invite external user', 'createform')
)
SELECT whose, what, detail, count(DISTINCT item) AS items, min(event_time) AS first_time, max(event_time) AS last_time,
    array_to_string(array_sort(array_agg(DISTINCT client_ip)), ', ') AS client_ips, min(event_id) AS event_id
FROM sent
GROUP BY whose, what, detail
ORDER BY items DESC, first_time, what, detail
