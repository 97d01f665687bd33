"""What a page of another site can do in a real browser to somebody who is logged in: through TLS, as by a share link.

Finding C1 of the security review: with 0.1 the page got the login's token, the datasets and the machine's documents.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, CHROMIUM_ARGUMENTS
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rest_app import LOGIN
from waiting import patient

from sage_studio import launch
from sage_studio.settings import load_settings
from sage_studio.studio import Studio

pytestmark = pytest.mark.browser
NAMES = ("studio.example", "evil.example")
ATTACKS = """async (studio) => {
    const attempt = async (path, options) => {
        try {
            const answer = await fetch(studio + path, {credentials: 'include', ...options});
            return answer.status + ' ' + (await answer.text()).slice(0, 200);
        } catch (error) { return 'blocked'; }
    };
    const form = new FormData();
    form.append('files', new Blob(['a,b']), 'a.csv');
    const json = {method: 'POST', headers: {'Content-Type': 'application/json'}};
    return {
        token: await attempt('/gradio_api/token'),
        datasets: await attempt('/api/datasets'),
        config: await attempt('/config'),
        call: await attempt('/gradio_api/call/list_datasets', {...json, body: '{"data": []}'}),
        upload: await attempt('/gradio_api/upload', {method: 'POST', body: form}),
        own: await attempt('/api/finetune/prepare-sage-docs', {...json, body: '{}'}),
        blind: await attempt('/gradio_api/upload', {method: 'POST', body: form, mode: 'no-cors'}),
        logout: await attempt('/logout', {mode: 'no-cors'}),
    };
}"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed certificate and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in NAMES]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@contextlib.contextmanager
def tls_front(certificate: Path, target: int | None) -> Iterator[int]:
    """Takes TLS on a port and sends all bytes on to another; without one it answers with an empty page."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def pass_on(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(1 << 16):
                drain.write(piece)
                await drain.drain()
        drain.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if target is None:
            await reader.read(1 << 16)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<body>")
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(patient())


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Iterator[Studio]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    studio = Studio(load_settings(home=tmp_path_factory.mktemp("home"), port=port, auth=":".join(LOGIN)))
    studio.settings.uploads_dir.mkdir(parents=True)
    _, close = launch.launch(studio, LOGIN)
    yield studio
    close()
    studio.close()


@pytest.fixture
def addresses(studio, certificate) -> Iterator[tuple[str, str]]:
    """The studio's and the other site's, both over https."""
    with tls_front(certificate, studio.settings.port) as good, tls_front(certificate, None) as evil:
        yield f"https://{NAMES[0]}:{good}", f"https://{NAMES[1]}:{evil}"


@pytest.fixture
def person(addresses):
    """A browser like most people's, which sends cookies to other sites too; logged in by the form."""
    if CHROMIUM is None:
        pytest.skip("NO CHROMIUM: no attack by a page was tried (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    ours = ["--host-resolver-rules=MAP *.example 127.0.0.1", "--ignore-certificate-errors"]
    ours += [
        "--disable-features=TrackingProtection3pcd,ThirdPartyCookieDeprecation",
        "--test-third-party-cookie-phaseout=false",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_ARGUMENTS, *ours])
        page = chromium.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(1000 * patient())
        page.goto(addresses[0])
        page.locator("input").first.fill(LOGIN[0])
        page.locator("input[type=password]").fill(LOGIN[1])
        page.get_by_role("button", name="Login").click()
        page.get_by_role("tab", name="Dataset", exact=True).wait_for()
        yield page
        chromium.close()


def test_another_sites_page_gets_nothing_and_changes_nothing(studio, addresses, person):
    good, evil = addresses
    person.goto(evil)
    answers = person.evaluate(ATTACKS, good)
    for name in ("token", "datasets", "config", "call", "upload", "own"):
        assert answers[name] == "blocked" or answers[name].startswith(("401", "403")), (name, answers[name])
    assert not any(path.is_file() for path in studio.settings.uploads_dir.rglob("*"))

    person.set_content(f'<iframe src="{good}"></iframe><a href="{good}">there</a>')
    frame = person.locator("iframe").element_handle().content_frame()
    frame.wait_for_load_state()
    assert frame.get_by_role("tab").count() == 0

    person.get_by_role("link", name="there").click()  # what another page may do: lead a person to the studio
    person.get_by_role("tab", name="Dataset", exact=True).wait_for()


def test_a_person_signs_out_and_is_asked_again(addresses, person):
    person.get_by_role("button", name="Sign out").click()
    person.locator("input[type=password]").wait_for()
    assert person.evaluate("async () => (await fetch('/config')).status") == 401
