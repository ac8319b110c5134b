-- Applications that were agreed to since: they go on without address and session.
SELECT DISTINCT lower(object_id) AS app_id FROM acts
WHERE operation_key = 'consent to application' AND object_id IS NOT NULL AND event_time >= (SELECT first_time FROM seen)
