"""A poller as one writes it in an afternoon, with nothing but the standard library: lists seven days, fetches every blob,
parses it as a whole, removes duplicates by id, writes lines. Retries nothing, remembers nothing.

python_poller.py HOST:PORT TENANT CLIENT SECRET WAYS END FILE
"""

import asyncio
import datetime
import http.client
import json
import sys
import urllib.parse

address, tenant, client_id, secret, ways, end, path = sys.argv[1:]
host, port = address.rsplit(":", 1)
ways = int(ways)
end = datetime.datetime.strptime(end, "%Y-%m-%dT%H:%M:%S")
CONTENT_TYPES = ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General"]


def get(connection, path, headers):
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}")
    return body, answer.getheader("NextPageUri")


def path_of(uri):
    parts = urllib.parse.urlsplit(uri)
    return parts.path + ("?" + parts.query if parts.query else "")


def listed(connection, headers):
    for content_type in CONTENT_TYPES:
        for day in range(7):
            start = end - datetime.timedelta(days=7 - day)
            stop = start + datetime.timedelta(days=1)
            page = (
                f"/api/v1.0/{tenant}/activity/feed/subscriptions/content?contentType={content_type}"
                f"&startTime={start:%Y-%m-%dT%H:%M:%S}&endTime={stop:%Y-%m-%dT%H:%M:%S}"
            )
            while page:
                body, following = get(connection, page, headers)
                for entry in json.loads(body):
                    yield path_of(entry["contentUri"])
                page = path_of(following) if following else None


def keep(body, seen, out):
    for record in json.loads(body):
        if record["Id"] not in seen:
            seen.add(record["Id"])
            out.write(json.dumps(record) + "\n")


async def fetch_all(paths, headers, seen, out):
    waiting = asyncio.Queue()
    for one in paths:
        waiting.put_nowait(one)

    async def worker():
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        try:
            while not waiting.empty():
                one = waiting.get_nowait()
                writer.write(
                    f"GET {one} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {headers['Authorization']}\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
                keep(await reader.readexactly(length), seen, out)
        finally:
            writer.close()

    await asyncio.gather(*(worker() for _ in range(ways)))


def main():
    connection = http.client.HTTPConnection(host, int(port))
    form = urllib.parse.urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret,
            "scope": "https://manage.office.com/.default",
        }
    )
    connection.request(
        "POST", f"/{tenant}/oauth2/v2.0/token", form, {"Content-Type": "application/x-www-form-urlencoded"}
    )
    headers = {"Authorization": "Bearer " + json.loads(connection.getresponse().read())["access_token"]}
    seen = set()
    paths = list(listed(connection, headers))
    with open(path, "w", encoding="utf-8") as out:
        if ways == 1:
            for one in paths:
                keep(get(connection, one, headers)[0], seen, out)
        else:
            asyncio.run(fetch_all(paths, headers, seen, out))


main()
