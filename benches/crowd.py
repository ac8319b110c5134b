"""A group that grows large: writes all.jsonl, late.jsonl and rules.yml into a folder.

One service account signs in twice a second from one address. Nine other addresses each sign in once, a second apart, at
05:03 on the third day and at 09:03 on the seventh; those come late.

    python3 benches/crowd.py 1300000 FOLDER
"""

import json
import pathlib
import sys
from datetime import datetime, timedelta

RULES = """title: Service signed in
id: svc_signed_in
name: svc_signed_in
logsource: {product: m365}
detection: {s: {Operation: UserLoggedIn}, condition: s}
---
title: Many addresses
id: svc_many_addresses
level: high
correlation: {type: value_count, rules: [svc_signed_in], group-by: [user_id], timespan: 10m, condition: {field: client_ip, gte: 10}}
"""


def record(number, time, address):
    properties = [{"Name": "UserAgent", "Value": "svc/1.0"}, {"Name": "RequestType", "Value": "OAuth2:Token"}]
    return json.dumps({
        "CreationTime": time.strftime("%Y-%m-%dT%H:%M:%S"), "Id": f"{number:08x}-0000-4000-8000-{number:012x}",
        "Operation": "UserLoggedIn", "RecordType": 15, "ResultStatus": "Success", "UserType": 0, "Version": 1,
        "Workload": "AzureActiveDirectory", "ClientIP": address, "UserId": "svc@contoso.example",
        "AzureActiveDirectoryEventType": 1, "ExtendedProperties": properties, "ActorIpAddress": address,
        "ApplicationId": "a",
    }, separators=(",", ":")) + "\n"


def main(count, folder):
    start = datetime(2026, 9, 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yml").write_text(RULES)
    with open(folder / "all.jsonl", "w") as file:
        file.writelines(record(number, start + timedelta(seconds=number // 2), "192.0.2.7") for number in range(count))
    with open(folder / "late.jsonl", "w") as file:
        for day, hour in ((2, 5), (6, 9)):
            for of in range(9):
                time = start + timedelta(days=day, hours=hour, minutes=3, seconds=of)
                file.write(record(0xFFFF0000 + day * 16 + of, time, f"198.51.100.{of + 1}"))


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
