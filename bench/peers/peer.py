"""What a careful integrator writes in an afternoon, in Python: peer.py EXPORT KEYS JOURNAL.

Each row: create the customer, sign its challenge, submit the signature, note the row in the journal. Requests are
repeated under the same idempotency key, with backoff; a token bucket keeps the rate; a restart skips the rows in the
journal. Exit code 1 if rows are left.
"""

import asyncio
import base64
import csv
import hashlib
import json
import os
import random
import sys
import time
import uuid
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from eth_account import Account
from eth_account.messages import encode_defunct

API = os.environ["OFFBLOCKS_API_URL"]
HOST, BASE_PATH = urlsplit(API).netloc, urlsplit(API).path
RATE = float(os.environ["PURSER_RATE"])
CONCURRENCY = 32
ATTEMPTS = 8
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, API + "#" + os.environ["OFFBLOCKS_API_KEY"])


class Bucket:
    """A token bucket that holds 20 ms of requests."""

    def __init__(self, rate):
        self.rate, self.burst = rate, max(1.0, rate / 50)
        self.tokens, self.last = self.burst, time.monotonic()

    async def take(self):
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate) - 1
        self.last = now
        if self.tokens < 0:
            await asyncio.sleep(-self.tokens / self.rate)


class GaveUp(Exception):
    pass


class Partner:
    def __init__(self, session):
        self.session, self.bucket = session, Bucket(RATE)
        self.token, self.token_lock = None, asyncio.Lock()
        with open(os.environ["OFFBLOCKS_API_SECRET_FILE"]) as f:
            self.secret = f.read().strip()
        with open(os.environ["OFFBLOCKS_SIGNING_KEY"], "rb") as f:
            self.key = serialization.load_pem_private_key(f.read(), None)

    async def log_in(self, old):
        async with self.token_lock:
            if self.token != old:
                return
            credentials = {"apiKey": os.environ["OFFBLOCKS_API_KEY"], "apiSecret": self.secret}
            for attempt in range(ATTEMPTS):
                await self.bucket.take()
                try:
                    async with self.session.post(API + "/auth/token", json=credentials) as response:
                        response.raise_for_status()
                        self.token = (await response.json())["token"]
                        return
                except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError):
                    await asyncio.sleep(backoff(attempt))
            raise GaveUp("no token")

    def sign(self, method, path, headers):
        """Adds the RFC 9421 signature over method, target and the given headers."""
        base = {"@method": method, "@authority": HOST, "@path": BASE_PATH + path}
        base |= {name.lower(): value for name, value in headers.items()}
        covered = " ".join(f'"{name}"' for name in base)
        params = f'({covered});created={int(time.time())};keyid="{os.environ["OFFBLOCKS_SIGNING_KEY_ID"]}"'
        params += ';alg="ecdsa-p384-sha384"'
        lines = [f'"{name}": {value}' for name, value in base.items()] + [f'"@signature-params": {params}']
        r, s = utils.decode_dss_signature(self.key.sign("\n".join(lines).encode(), ec.ECDSA(hashes.SHA384())))
        raw = base64.b64encode(r.to_bytes(48, "big") + s.to_bytes(48, "big")).decode()
        headers["Signature-Input"], headers["Signature"] = f"sig={params}", f"sig=:{raw}:"

    async def call(self, method, path, body=None, name=""):
        """Sends a request until there is an answer that is not to be repeated; returns its status and JSON."""
        data = json.dumps(body, separators=(",", ":")).encode() if body else None
        for attempt in range(ATTEMPTS):
            if not self.token:
                await self.log_in(None)
            token = self.token
            headers = {"Authorization": f"Bearer {token}"}
            if data:
                headers["Content-Type"] = "application/json"
                digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
                headers["Content-Digest"] = f"sha-256=:{digest}:"
                headers["Idempotency-Key"] = str(uuid.uuid5(NAMESPACE, name))
            await self.bucket.take()
            self.sign(method, path, headers)
            try:
                async with self.session.request(
                    method, API + path, data=data, headers=headers, allow_redirects=False
                ) as response:
                    status, text = response.status, await response.text()
                    after = response.headers.get("Retry-After")
                if status == 401:
                    await self.log_in(token)
                elif status == 429 or status >= 500:
                    await asyncio.sleep(float(after) if after else backoff(attempt))
                elif status < 300 and status != 204:
                    return status, json.loads(text or "{}")
                else:
                    return status, text
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
                await asyncio.sleep(backoff(attempt))
        raise GaveUp(f"{method} {path}: no answer after {ATTEMPTS} attempts")


def backoff(attempt):
    return min(5.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.0)


async def find(partner, account, external_id):
    """Looks the customer up in the list."""
    status, customers = await partner.call("GET", "/customers")
    if status != 200:
        raise GaveUp(f"list: {status}")
    for customer in customers:
        if customer["externalId"] == external_id and customer["chainId"].lower() == account.lower():
            return customer
    return None


async def onboard(partner, row, key):
    account = f'{row["chainId"]}:{row["address"]}'
    body = {"chainId": account, "externalId": row["externalId"]}
    for attempt in range(ATTEMPTS):
        status, customer = await partner.call("POST", "/customers", body, f"create:{account}:{row['externalId']}")
        if status == 201:
            break
        if status != 409:
            raise GaveUp(f"create: {status} {customer}")
        # It exists already, or a request with the key is in flight.
        if customer := await find(partner, account, row["externalId"]):
            break
        await asyncio.sleep(backoff(attempt))
    else:
        raise GaveUp("create: 409, but not in the list")

    path = f'/customers/{customer["id"]}'
    challenge = customer.get("challenge")
    for _ in range(4):
        if customer["status"] != "initiating":
            return
        if not challenge:
            status, answer = await partner.call("GET", path + "/challenge")
            if status != 200:
                raise GaveUp(f"challenge: {status}")
            challenge = answer["challenge"]
        signed = Account.sign_message(encode_defunct(base64.b64decode(challenge)), key)
        text = base64.b64encode(("0x" + signed.signature.hex().removeprefix("0x")).encode()).decode()
        status, answer = await partner.call(
            "POST", path + "/challenge/sign", {"ownerId": account, "signature": text}, f"sign:{account}:{challenge}"
        )
        if status < 300:
            return
        # Signed before, in flight, or there is a new challenge.
        challenge = None
        status, customer = await partner.call("GET", path)
        if status != 200:
            raise GaveUp(f"read: {status}")
    raise GaveUp("sign: refused four times")


async def main(export, keys, journal):
    with open(export, newline="") as f:
        rows = list(csv.DictReader(f))
    with open(keys, newline="") as f:
        private = {row["address"]: row["privateKey"] for row in csv.DictReader(f)}
    done = set()
    if os.path.exists(journal):
        with open(journal) as f:
            done = {line.strip() for line in f if line.endswith("\n")}
    left = iter([row for row in rows if row["externalId"] not in done])
    failed = []
    with open(journal, "a") as log:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            partner = Partner(session)

            async def worker():
                for row in left:
                    try:
                        await onboard(partner, row, private[row["address"]])
                        log.write(row["externalId"] + "\n")
                        log.flush()
                    except Exception as error:  # a row must not stop the others
                        failed.append(row["externalId"])
                        print(row["externalId"], repr(error), file=sys.stderr)

            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
