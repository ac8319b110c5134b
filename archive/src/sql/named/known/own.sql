-- Networks that the account used a day or more before that are its own: such findings count ordinary acts too.
SELECT DISTINCT client_network FROM events
WHERE user_id = $user AND client_network IS NOT NULL AND ($tenant = '' OR tenant = $tenant)
    AND event_time < (SELECT min(first_time) FROM suspected) - INTERVAL '1 day'
