-- Everything done by the account, and by others in its mailbox.
SELECT * FROM events
WHERE user_id = $user AND event_time >= $since AND event_time < $until AND ($tenant = '' OR tenant = $tenant)
UNION ALL
SELECT * FROM events
WHERE mailbox_owner = $user AND (user_id IS DISTINCT FROM $user) AND event_time >= $since AND event_time < $until
    AND ($tenant = '' OR tenant = $tenant)
