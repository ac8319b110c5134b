-- What was left behind, or changed so that somebody can come back or hide?
-- covers: rules, forwarding, permissions, transport and connectors, consents and application secrets, roles, users, devices,
--   second factors, audit settings: everything the account or somebody in its mailbox changed since the intruder's first trace.
-- cannot see: whether it is still there (look at the mailbox and the directory, hidden rules among them), what was made before
--   the archive begins, and rules made by a program that Exchange does not record.
WITH changes AS (
    SELECT CASE WHEN by_id IS NOT NULL THEN 'intruder'
            WHEN client_ip IS NULL AND session_id IS NULL THEN 'account, the record has no address'
            ELSE 'account, from elsewhere' END AS whose, acts.*,
        concat_ws(' | ', param(raw, 'RuleOperation'), coalesce(param(raw, 'Name'), param(raw, 'RuleName')), param(raw, 'MoveToFolder'),
            param(raw, 'SubjectOrBodyContainsWords'), param(raw, 'User'), param(raw, 'AccessRights'), param(raw, 'ConsentAction.Permissions'),
            param(raw, 'DelegatedPermissionGrant.Scope'), param(raw, 'Role.DisplayName')) AS detail
    FROM acts LEFT JOIN (SELECT DISTINCT tenant AS by_tenant, id AS by_id FROM intruder) ON by_tenant = tenant AND by_id = id
    WHERE event_time >= coalesce((SELECT first_time FROM seen), $since)
        AND (operation_key ~ '(inboxrule|(mailbox|recipient|folder)permissions?|transportrule|connector|journalrule|policy)'
            OR operation_key ~ '^set-(mailbox|casmailbox|remotedomain|federation|domain)|updatecalendardelegation|audit(log|bypass)'
            OR operation_key ~ '^(add|update|remove) (app|delegated|service principal|owner|registered|device|user|member|eligible|partner)'
            OR operation_key ~ '^(consent|register device|invite|(user|admin) (registered|changed|deleted)|(reset|change) (user )?password)')
)
SELECT min(event_time) AS first_time, max(event_time) AS last_time, count(*) AS times, whose, operation, detail,
    array_to_string(forward_targets, ', ') AS forwards_to, object_id, client_ip, min(id) AS event_id
FROM changes
GROUP BY whose, operation, detail, forward_targets, object_id, client_ip
ORDER BY first_time, operation, object_id
