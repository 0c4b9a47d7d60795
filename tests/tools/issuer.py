#!/usr/bin/env python3
"""A token issuer for tests: an RSA key, its JWKS, and RS256 tokens. Needs `openssl`.

    issuer.py new FOLDER                                      makes FOLDER/key.pem and FOLDER/jwks.json
    issuer.py token FOLDER --audience URL [--subject NAME] [--group NAME]... [--lifetime SECONDS]

The tokens are good for nobody but a gateway that was given this JWKS.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

ISSUER = "https://issuer.test.invalid"
KEY_ID = "test"
LIFETIME = 3600


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(part: Any) -> str:
    return b64(json.dumps(part, separators=(",", ":")).encode())


def openssl(*arguments: str, text: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True, timeout=60).stdout


class Issuer:
    """One key pair, kept in a folder."""

    def __init__(self, folder: Path, issuer: str = ISSUER) -> None:
        self.folder = folder
        self.issuer = issuer
        self.key = folder / "key.pem"
        self.jwks = folder / "jwks.json"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        openssl("genrsa", "-out", str(self.key), "2048")
        os.chmod(self.key, 0o600)
        modulus = openssl("rsa", "-in", str(self.key), "-noout", "-modulus").decode().strip().split("=")[1]
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "e": "AQAB", "n": b64(bytes.fromhex(modulus))}
        self.jwks.write_text(json.dumps({"keys": [key]}), encoding="utf-8")

    def claims(self, audience: str, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "tester", "aud": audience, "iat": now, "exp": now + LIFETIME}
        return claims | {name: value for name, value in more.items() if value is not None}

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        head = encode({"alg": "RS256", "typ": "at+jwt", "kid": KEY_ID} | (header or {}))
        signed = f"{head}.{encode(claims)}"
        return f"{signed}.{b64(openssl('dgst', '-sha256', '-sign', str(self.key), text=signed.encode()))}"

    def token(self, audience: str, **more: Any) -> str:
        return self.sign(self.claims(audience, **more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new").add_argument("folder", type=Path)
    token = commands.add_parser("token")
    token.add_argument("folder", type=Path)
    token.add_argument("--audience", required=True)
    token.add_argument("--subject", default="tester")
    token.add_argument("--group", action="append")
    token.add_argument("--lifetime", type=int, default=LIFETIME)
    options = parser.parse_args()
    issuer = Issuer(options.folder)
    if options.command == "new":
        issuer.make()
        return
    until = int(time.time()) + options.lifetime
    print(issuer.token(options.audience, sub=options.subject, groups=options.group, exp=until))


if __name__ == "__main__":
    main()
