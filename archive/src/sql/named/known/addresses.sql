-- The intruder's addresses: those given, or else those of findings that are not the account's own.
SELECT client_ip FROM suspected
WHERE $ip = '' AND $session = '' AND client_network NOT IN (SELECT client_network FROM own)
UNION
SELECT trim(given) AS client_ip FROM (SELECT unnest(string_to_array($ip, ',')) AS given) WHERE trim(given) <> ''
