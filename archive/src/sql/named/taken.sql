-- What was taken or destroyed?
-- covers: mail opened, downloaded by the folder, moved and deleted, files opened, downloaded, shared and deleted, searches
--   and exports by the intruder or an application agreed to since; certainty says how each is to be taken.
-- cannot see: what was read while Microsoft recorded nothing (throttled: take the whole mailbox as read), what a folder held
--   when it was downloaded, attachments apart from their messages, and files opened with a link that needs no sign-in.
WITH mail AS (
    SELECT m.access, m.mailbox_owner, m.folder, m.internet_message_id, m.size_bytes, m.event_id, m.event_time, m.client_ip,
        m.items_left_out
    FROM mail_items m JOIN intruder i ON i.tenant = m.tenant AND i.id = m.event_id
    WHERE m.access <> 'send'
),
files AS (
    SELECT *, array_to_string(array_slice(string_to_array(object_id, '/'), 1, 5), '/') AS site FROM intruder
    WHERE workload IN ('SharePoint', 'OneDrive') AND operation_key ~ '^(file|sharing|anonymouslink|addedtosecurelink)'
)
SELECT concat('mail: ', access) AS what,
    CASE access WHEN 'bind' THEN 'each message is listed: see messages'
        WHEN 'sync' THEN 'folder downloaded: take all of it as read'
        WHEN 'throttled' THEN 'nothing more recorded for 24 hours: take the whole mailbox as read'
        ELSE 'each message is listed' END AS certainty,
    concat_ws(' ', mailbox_owner, folder) AS place,
    count(DISTINCT internet_message_id) AS items, sum(items_left_out) AS items_left_out,
    min(event_time) AS first_time, max(event_time) AS last_time, count(DISTINCT event_id) AS records,
    array_to_string(array_sort(array_agg(DISTINCT client_ip)), ', ') AS client_ips
FROM mail GROUP BY access, mailbox_owner, folder
UNION ALL
SELECT concat('files: ', operation),
    CASE WHEN operation LIKE '%Download%' THEN 'taken'
        WHEN operation LIKE 'FileAccessed%' OR operation = 'FilePreviewed' THEN 'opened: take as read'
        ELSE 'done' END,
    site, count(DISTINCT object_id), NULL, min(event_time), max(event_time), count(*),
    array_to_string(array_sort(array_agg(DISTINCT client_ip)), ', ')
FROM files GROUP BY operation, site
UNION ALL
SELECT concat('search or export: ', operation), 'what was found is not recorded',
    coalesce(field(raw, 'QueryText'), field(raw, 'Item.Query'), param(raw, 'ContentMatchQuery'), object_id), NULL, NULL,
    min(event_time), max(event_time), count(*), array_to_string(array_sort(array_agg(DISTINCT client_ip)), ', ')
FROM intruder
WHERE operation_key ~ '^searchquery|^new-(compliancesearch|mailboxsearch)|export'
GROUP BY operation, coalesce(field(raw, 'QueryText'), field(raw, 'Item.Query'), param(raw, 'ContentMatchQuery'), object_id)
ORDER BY first_time, what, place
