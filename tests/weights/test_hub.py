"""The released client, as a user has it, against a Hub of ours that misbehaves."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hub_client import Client, Result, full_disk, impatient, watched, with_manifest, with_manifest_updated
from hub_server import TOKEN, Hub, serving

from dehaze.models import build, count_parameters
from dehaze.weights.checkpoint import Header, save_checkpoint, write_safetensors

REPO = "someone/dehazers"
FILE = "small.safetensors"
MAIN = f"hf://{REPO}/{FILE}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(tmp_path, hub.url)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _checkpoint(tmp_path_factory.mktemp("w") / "a.safetensors", seed=0)


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _checkpoint(tmp_path_factory.mktemp("w") / "b.safetensors", seed=1)


def _checkpoint(path: Path, seed: int) -> bytes:
    torch.manual_seed(seed)
    header = Header(name="small", architecture="lite", working_size=160, licence="MIT", config={})
    save_checkpoint(path, build("lite").state_dict(), header)
    return path.read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_refused(result: Result, *words: str) -> None:
    """Exit 4, one sentence, then what to do; no traceback, nothing on stdout."""
    assert result.status == 4, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], result.err
    for word in words:
        assert word in " ".join(lines), result.err


def test_fetches_a_file_and_says_what_it_is(hub: Hub, client: Client, weights: bytes) -> None:
    commit = hub.add(REPO, {FILE: weights})
    found = client("pull", MAIN, "--json").record()
    assert Path(str(found["path"])).read_bytes() == weights
    assert found["sha256"] == sha256(weights)
    assert found["address"] == f"hf://{REPO}/{FILE}@{commit}"


def test_a_pinned_file_is_asked_for_once(hub: Hub, client: Client, weights: bytes) -> None:
    commit = hub.add(REPO, {FILE: weights})
    first = client("pull", f"{MAIN}@{commit}", "--json")
    hub.requests.clear()
    assert client("pull", f"{MAIN}@{commit}", "--json").record() == first.record()
    assert client("path", f"{MAIN}@{commit}").out.strip() == first.record()["path"]
    assert client("verify").status == 0
    assert hub.requests == []


def test_subfolders_tags_and_pull_requests_are_addresses(hub: Hub, client: Client, weights: bytes) -> None:
    commit = hub.add(REPO, {f"v1/{FILE}": weights})
    hub.repositories[REPO].refs["refs/pr/1"] = commit
    found = client("pull", f"hf://{REPO}/v1/{FILE}@refs/pr/1", "--json").record()
    assert found["address"] == f"hf://{REPO}/v1/{FILE}@{commit}"


def test_works_without_network_once_cached(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    found = client("pull", MAIN, "--json").record()
    for environment in ({"HF_ENDPOINT": _closed_port()}, {"HF_HUB_OFFLINE": "1"}):
        assert client("pull", MAIN, "--json", **environment).record() == found
        assert client("path", MAIN, **environment).out.strip() == found["path"]


def test_a_server_in_trouble_does_not_stop_a_cached_file(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    client("pull", MAIN)
    hub.fault("HEAD", status=503)
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(weights)


def test_no_network_and_not_cached(client: Client) -> None:
    assert_refused(
        client("pull", MAIN, HF_ENDPOINT=_closed_port()), "cannot reach http://127.0.0.1", "HF_ENDPOINT"
    )
    assert_refused(client("pull", MAIN, HF_HUB_OFFLINE="1"), "not in the cache", "unset HF_HUB_OFFLINE")
    assert_refused(client("path", MAIN), "not downloaded", "dehaze models pull")


def test_what_is_not_there(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    assert_refused(
        client("pull", "hf://no/where/x.safetensors"), "no repository no/where", "private", "HF_TOKEN"
    )
    assert_refused(client("pull", f"{MAIN}@v9"), "no revision 'v9'", f"{hub.url}/{REPO}/commits")
    assert_refused(
        client("pull", f"hf://{REPO}/x.safetensors"), "no file 'x.safetensors'", f"{hub.url}/{REPO}/tree/main"
    )


def test_private_repositories_need_a_token(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights}, private=True)
    assert_refused(client("pull", MAIN), "or it is private", "HF_TOKEN", "hf auth login")
    assert_refused(client("pull", MAIN, HF_TOKEN="hf_wrong"), "does not accept your token", "HF_TOKEN")
    assert client("pull", MAIN, HF_TOKEN=TOKEN).status == 0


def test_the_token_stays_on_the_hub(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights}, private=True)
    client("pull", MAIN, HF_TOKEN=TOKEN)
    sent = {r.line.split("/")[1]: r.headers.get("authorization") for r in hub.requests}
    assert sent["someone"] == f"Bearer {TOKEN}"
    assert sent["store"] is None


def test_gated_repositories_say_where_to_ask(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights}, gated=True)
    assert_refused(client("pull", MAIN), "gated", f"{hub.url}/{REPO}", "HF_TOKEN")
    assert_refused(client("pull", MAIN, HF_TOKEN=TOKEN), "gated", "your token")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Retry-After": "3600"}, "in 3600 seconds"),
        ({"RateLimit": '"api";r=0;t=55'}, "in 55 seconds"),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "in a few minutes"),
    ],
)
def test_too_many_requests_says_when_to_come_back(
    hub: Hub, client: Client, weights: bytes, headers: dict[str, str], words: str
) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("HEAD", status=429, headers=headers)
    assert_refused(client("pull", MAIN), "refuses more requests", words)


def test_a_busy_store_is_waited_for(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("GET /store", status=429, headers={"Retry-After": "1"}, times=2)
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(weights)
    assert len(hub.lines("GET /store")) == 3


def test_a_repository_that_moved_is_followed(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add("someone/renamed", {FILE: weights})
    there = {"Location": f"/someone/renamed/resolve/main/{FILE}"}
    hub.fault(f"HEAD /{REPO}/", status=307, headers=there)
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(weights)


@pytest.mark.parametrize("where", ["HEAD", "GET /store"])
def test_a_broken_server_is_named(hub: Hub, client: Client, weights: bytes, where: str) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault(where, status=500)
    assert_refused(client("pull", MAIN), "status 500", "try again")


def test_a_server_that_is_no_hub(hub: Hub, client: Client) -> None:
    hub.fault("HEAD", status=200)
    assert_refused(client("pull", MAIN), "not answered by a Hugging Face Hub", "HF_ENDPOINT")


def test_a_server_that_does_not_answer(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("HEAD", stall=300)
    assert_refused(client("pull", MAIN, HF_HUB_ETAG_TIMEOUT="1"), "stopped answering", "HF_HUB_ETAG_TIMEOUT")


def test_a_server_that_stops_in_the_middle(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("GET /store", cut=1000, stall=300)
    assert_refused(client("pull", MAIN, prepare=impatient), "stopped answering", "HF_HUB_DOWNLOAD_TIMEOUT")
    assert client.blobs() == []


def test_a_download_that_breaks_goes_on_where_it_was(hub: Hub, client: Client, tmp_path: Path) -> None:
    data = _large(tmp_path / "large.safetensors")
    hub.add(REPO, {FILE: data})
    hub.fault("GET /store", cut=15 << 20, times=1)
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(data)
    ranges = [r.headers.get("range") for r in hub.requests if r.line.startswith("GET /store")]
    assert ranges == [None, f"bytes={10 << 20}-"]


def test_a_connection_that_always_breaks(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("GET /store", cut=1000)
    assert_refused(client("pull", MAIN), "connection to", "broke", "try again")
    assert client.blobs() == []


def test_a_short_answer_is_not_taken_for_the_file(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("GET /store", body=lambda data: data[:-1])
    assert_refused(client("pull", MAIN), "incomplete", "try again")
    assert client.blobs() == []


def test_wrong_bytes_are_thrown_away(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    hub.fault("GET /store", body=lambda data: data[:-1] + bytes([data[-1] ^ 1]), times=1)
    assert_refused(client("pull", MAIN), "arrived damaged", "try again")
    assert client.blobs() == []
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(weights)


def test_a_full_disk_is_said(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    assert_refused(client("pull", MAIN, prepare=full_disk), "no space left", "HF_HOME")
    assert client.blobs() == []


def test_progress_is_counted_in_bytes(hub: Hub, client: Client, tmp_path: Path) -> None:
    data = _large(tmp_path / "large.safetensors")
    hub.add(REPO, {FILE: data})
    reports = [json.loads(line) for line in client("pull", MAIN, prepare=watched).out.splitlines()]
    assert reports == [[size, len(data)] for size in (10 << 20, 20 << 20, len(data))]


def test_only_safetensors_are_fetched(hub: Hub, client: Client) -> None:
    hub.add(REPO, {"model.pth": b"\x80\x02"})
    assert_refused(client("pull", f"hf://{REPO}/model.pth"), "not a .safetensors file", "could run code")
    assert hub.requests == []


@pytest.mark.parametrize(
    "text",
    [
        "hf://x.safetensors",
        "hf://a/b",
        "hf:/a/b/c.safetensors",
        "https://hub/a/b/c.safetensors",
        "hf://a/b/../c.safetensors",
        "hf://a/b/c.safetensors@../../escaped",
        "hf://a/b/c.safetensors@/tmp/escaped",
        "hf://a/b/c.safetensors@v1/../../escaped",
        r"hf://a/b/c\..\d.safetensors",
    ],
)
def test_what_is_no_address(client: Client, text: str) -> None:
    assert_refused(client("path", text), "not an address", "hf://owner/repo/file.safetensors@revision")


def test_files_that_are_not_ours(hub: Hub, client: Client, tmp_path: Path) -> None:
    foreign = tmp_path / "f.safetensors"
    write_safetensors(foreign, {"a": torch.zeros(3)}, {"format": "pt"})
    newer = tmp_path / "n.safetensors"
    save_checkpoint(newer, {"a": torch.zeros(3)}, Header("x", "lite", format_version=99))
    files = {"pickle.safetensors": b"\x80\x04pickle", "other.safetensors": foreign.read_bytes()}
    hub.add(REPO, {**files, "newer.safetensors": newer.read_bytes()})
    assert_refused(client("pull", f"hf://{REPO}/pickle.safetensors"), "pickle", "not opened")
    assert_refused(client("pull", f"hf://{REPO}/other.safetensors"), "not a dehaze checkpoint")
    assert_refused(client("pull", f"hf://{REPO}/newer.safetensors"), "format 99", "pip install --upgrade")


def test_a_file_of_another_size_class_is_not_downloaded(hub: Hub, client: Client, weights: bytes) -> None:
    commit = hub.add(REPO, {FILE: weights})
    headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(4 << 30), "X-Linked-ETag": f'"{sha256(b"")}"'}
    hub.fault("HEAD", status=200, headers=headers)
    assert_refused(client("pull", MAIN), "4294967296 bytes")
    assert hub.lines("GET") == []


def test_a_changed_file_is_refused_until_accepted(
    hub: Hub, client: Client, weights: bytes, other_weights: bytes
) -> None:
    old = hub.add(REPO, {FILE: weights})
    first = client("pull", MAIN)
    assert sha256(weights) in first.err
    assert "first use" in first.err
    hub.add(REPO, {"README.md": b"words"})
    assert client("pull", MAIN).status == 0, "another file's change is none of our business"
    hub.add(REPO, {FILE: other_weights})
    refused = client("pull", MAIN)
    assert_refused(
        refused, sha256(weights), sha256(other_weights), f"-m {MAIN}@{old}", f"--accept {MAIN}@main"
    )
    assert sha256(other_weights) not in [p.name for p in client.blobs()], "it is not even downloaded"
    assert client("pull", f"{MAIN}@{old}", "--json").record()["sha256"] == sha256(weights)
    assert client("pull", MAIN, "--accept", "--json").record()["sha256"] == sha256(other_weights)
    assert client("pull", MAIN, "--json").record()["sha256"] == sha256(other_weights)


def _entry_on_the_hub(folder: Path, commit: str) -> Path:
    entry = {"source": "hub", "repository": REPO, "revision": commit, "file": FILE}
    words = {"role": "general", "description": "Far away."}
    path = folder / "manifest.json"
    path.write_text(json.dumps({"version": 1, "default": None, "models": {"far": entry | words}}))
    return path


def test_an_entry_on_the_hub_needs_five_words_and_one_command(
    hub: Hub, client: Client, weights: bytes, tmp_path: Path
) -> None:
    path = _entry_on_the_hub(tmp_path, hub.add(REPO, {FILE: weights}))
    found = client("pull", "far", "--json", prepare=partial(with_manifest_updated, path)).record()
    assert found["sha256"] == sha256(weights) == json.loads(path.read_text())["models"]["far"]["sha256"]
    hub.requests.clear()
    ours = partial(with_manifest, path)
    assert client("pull", "far", "--json", prepare=ours).record() == found
    assert client("path", "far", prepare=ours).out.strip() == found["path"]
    assert client("verify", "far", prepare=ours).status == 0
    assert hub.requests == []
    assert not (client.folder / "home" / "assets").exists(), (
        "the manifest vouches for it: nothing is recorded"
    )


def test_the_manifest_has_the_last_word(
    hub: Hub, client: Client, weights: bytes, other_weights: bytes, tmp_path: Path
) -> None:
    commit = hub.add(REPO, {FILE: weights})
    path = _entry_on_the_hub(tmp_path, commit)
    client("pull", "far", prepare=partial(with_manifest_updated, path))
    ours = partial(with_manifest, path)
    hub.large[sha256(other_weights)] = other_weights
    hub.repositories[REPO].commits[commit][FILE] = other_weights
    forged = client("pull", "far", "--force", prepare=ours)
    assert_refused(forged, sha256(weights), sha256(other_weights), "HF_ENDPOINT")
    assert client("path", "far", prepare=ours).status == 4
    hub.repositories[REPO].commits[commit][FILE] = weights
    stored = Path(client("pull", "far", "--json", prepare=ours).record()["path"])
    stored.write_bytes(weights[:-1] + b"?")
    assert_refused(client("pull", "far", prepare=ours), "damaged", "pull --force far")
    assert client("pull", "--force", "far", prepare=ours).status == 0


def test_damage_in_the_cache_is_found_and_mended(hub: Hub, client: Client, weights: bytes) -> None:
    commit = hub.add(REPO, {FILE: weights})
    pinned = f"{MAIN}@{commit}"
    path = Path(str(client("pull", pinned, "--json").record()["path"]))
    path.write_bytes(weights[:-1] + b"?")
    assert_refused(client("pull", pinned), "damaged", f"pull --force {pinned}")
    checked = client("verify", pinned)
    assert (checked.status, "damaged" in checked.err) == (4, True)
    assert client("pull", "--force", pinned).status == 0
    assert client("verify", pinned).status == 0


def test_ten_processes_share_one_cache(hub: Hub, client: Client, weights: bytes) -> None:
    hub.add(REPO, {FILE: weights})
    crowd = [client.start("pull", MAIN, "--json") for _ in range(10)]
    results = [running.result() for running in crowd]
    assert {result.record()["sha256"] for result in results} == {sha256(weights)}
    assert len(hub.lines("GET /store")) == 1
    assert sum("first use" in result.err for result in results) == 1
    assert [p.read_bytes() == weights for p in client.blobs()] == [True]
    assert len(list((client.folder / "home" / "assets").rglob("*.json"))) == 1


def test_push_shows_asks_and_sends(hub: Hub, client: Client, weights: bytes, tmp_path: Path) -> None:
    checkpoint = tmp_path / FILE
    checkpoint.write_bytes(weights)
    settings = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    asked = client("push", REPO, str(checkpoint), **settings)
    assert (asked.status, asked.out) == (2, "")
    assert "--yes" in asked.err
    assert f"{REPO} (will be created, private)" in asked.err
    assert f"{FILE}, {len(weights):,} bytes" in asked.err
    assert "license: mit" in asked.err
    assert f"{count_parameters(build('lite')):,}" in asked.err
    assert hub.repositories == {}
    sent = client("push", REPO, str(checkpoint), "--yes", **settings)
    assert sent.status == 0, sent.err
    repository = hub.repositories[REPO]
    commit, files = repository.at("main") or ("", {})
    assert sent.out.strip() == f"hf://{REPO}/{FILE}@{commit}"
    assert repository.private
    assert files[FILE] == weights
    assert f"dehaze run foggy.jpg -m hf://{REPO}/{FILE}" in files["README.md"].decode()
    assert client("pull", sent.out.strip(), "--json", **settings).record()["sha256"] == sha256(weights)


def test_push_refusals(hub: Hub, client: Client, weights: bytes, tmp_path: Path) -> None:
    checkpoint = tmp_path / FILE
    checkpoint.write_bytes(weights)
    assert_refused(client("push", REPO, str(checkpoint), "--yes"), "needs a token", "hf auth login")
    offline = client("push", REPO, str(checkpoint), "--yes", HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    assert_refused(offline, "needs a network", "unset")
    hub.add(REPO, {})
    hub.writes_allowed = False
    refused = client("push", REPO, str(checkpoint), "--yes", HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
    assert "file: README.md" in refused.err
    assert_refused(refused, "no write permission", "HF_TOKEN")
    assert_refused(
        client("push", REPO, str(tmp_path / "none.safetensors"), HF_TOKEN=TOKEN), "no checkpoint at"
    )


def _large(path: Path) -> bytes:
    header = {"dehaze": json.dumps({"name": "x", "architecture": "lite", "format_version": 1})}
    write_safetensors(path, {"a": torch.arange(6 << 20, dtype=torch.int32)}, header)
    return path.read_bytes()


def _closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_the_addresses_in_messages_can_be_used_as_they_are() -> None:
    from dehaze.weights.hub import parse

    for text in (MAIN, f"{MAIN}@v1", f"hf://{REPO}/a/b.safetensors@refs/pr/3"):
        assert parse(str(parse(text))) == parse(text)
    assert re.fullmatch(r"hf://.+@main", str(parse(MAIN)))
