"""An OpenID provider on loopback in place of the hub's: whoever asks is signed in as the name that the test chose."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT, SECRET = "studio-client", "studio-secret-of-at-least-32-bytes"


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class HubProvider:
    """``/oauth/authorize`` sends the browser straight back with a code, ``/oauth/token`` gives an identity for it."""

    def __init__(self) -> None:
        self.name = "ada"
        self.lasts_seconds = 28800
        self._nonces: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def variables(self) -> dict[str, str]:
        """What a Space with ``hf_oauth: true`` has in its environment."""
        return {
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": SECRET,
            "OAUTH_SCOPES": "openid profile",
            "OPENID_PROVIDER_URL": self.url,
        }

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/oauth/authorize",
            "token_endpoint": f"{self.url}/oauth/token",
            "jwks_uri": f"{self.url}/jwks",
            "id_token_signing_alg_values_supported": ["HS256"],
        }

    def authorize(self, query: dict[str, list[str]]) -> str:
        """Where the browser is sent back to."""
        code = f"code-{len(self._nonces)}"
        self._nonces[code] = query["nonce"][0]
        back = query["redirect_uri"][0]
        return back + ("&" if "?" in back else "?") + urlencode({"code": code, "state": query["state"][0]})

    def token(self, form: dict[str, list[str]]) -> dict[str, Any]:
        """The answer to a code: an access token, and who it is for."""
        now = int(time.time())
        identity = {
            **{"iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 3600},
            **{"nonce": self._nonces[form["code"][0]], "name": self.name, "preferred_username": self.name},
            **{"profile": f"https://hub.example/{self.name}", "picture": ""},
        }
        body = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "1"}, identity))
        signature = encoded(hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).digest())
        kept = {
            "access_token": "t",
            "token_type": "bearer",
            "expires_in": self.lasts_seconds,
            "scope": "openid profile",
        }
        return {**kept, "expires_in": self.lasts_seconds, "id_token": f"{body}.{signature}"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/oauth/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorize(parse_qs(url.query)))
                    self.end_headers()
                elif url.path == "/jwks":
                    self.answer({"keys": [{"kty": "oct", "kid": "1", "alg": "HS256", "k": encoded(SECRET.encode())}]})
                else:
                    self.answer(provider.metadata())

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                self.answer(provider.token(parse_qs(self.rfile.read(length).decode())))

            def answer(self, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
