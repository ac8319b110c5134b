-- Whence came what findings of some weight about the account rest on.
SELECT acts.client_ip, acts.client_network, min(acts.event_time) AS first_time
FROM acts
JOIN evidence ON evidence.tenant = acts.tenant AND evidence.event_id = acts.id
JOIN findings ON findings.tenant = evidence.tenant AND findings.id = evidence.finding_id
WHERE findings.status IN ('open', 'final') AND findings.level IN ('medium', 'high', 'critical') AND acts.client_ip IS NOT NULL
GROUP BY acts.client_ip, acts.client_network
