-- Which messages did the intruder open, move or delete, one by one?
-- covers: every message that a record of the intruder names, with its subject where any record of the archive has it: of its
--   sending, its deletion, or of Defender's verdict.
-- cannot see: folders downloaded whole and hours not recorded (taken says which), and the subjects of messages that only came
--   in: Microsoft's records of reading name a message by its id alone. A message trace or the mailbox has the rest.
WITH touched AS (
    SELECT m.internet_message_id, m.access, m.mailbox_owner, m.folder, m.subject, m.size_bytes, m.event_time, m.event_id
    FROM mail_items m JOIN intruder i ON i.tenant = m.tenant AND i.id = m.event_id
    WHERE m.internet_message_id IS NOT NULL AND m.access <> 'send'
),
subjects AS (
    SELECT internet_message_id, max(subject) AS subject FROM (
        SELECT internet_message_id, subject FROM mail_items
        WHERE subject <> '' AND internet_message_id IN (SELECT internet_message_id FROM touched) AND ($tenant = '' OR tenant = $tenant)
        UNION ALL
        SELECT field(raw, 'InternetMessageId'), field(raw, 'Subject') FROM events
        WHERE operation = 'TIMailData' AND ($tenant = '' OR tenant = $tenant)
    )
    GROUP BY internet_message_id
)
SELECT min(event_time) AS first_time, touched.internet_message_id, array_to_string(array_sort(array_agg(DISTINCT access)), ', ') AS access,
    mailbox_owner, array_to_string(array_sort(array_agg(DISTINCT folder)), ', ') AS folders, max(subjects.subject) AS subject,
    max(size_bytes) AS size_bytes, count(*) AS times, min(event_id) AS event_id
FROM touched LEFT JOIN subjects ON subjects.internet_message_id = touched.internet_message_id
GROUP BY touched.internet_message_id, mailbox_owner
ORDER BY first_time, touched.internet_message_id
