"""`mrkd download` against a real server that breaks off, lies, refuses and serves bad archives."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mrkd_ray.cli.main import app
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.download import fetching as module
from mrkd_ray.datasets.download import transfer
from mrkd_ray.datasets.download.archives import Archive
from mrkd_ray.datasets.download.fetching import PARALLEL, download
from mrkd_ray.datasets.download.sources import SOURCES, Source

NOISE = np.random.default_rng(0).bytes(300_000)  # does not shrink when packed
LABELS = ("dog", "rain")
AUDIO, META, MORE = (f"/page/files/{name}.zip" for name in ("audio", "meta", "more"))


@dataclass
class Server:
    """Serves `files`; `plans` says what to do with the first requests for a path."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    plans: dict[str, list[int | str]] = field(default_factory=dict)
    """A status to answer; or "cut N": break off after N bytes; "whole": ignore the range; "shift":
    send another part; "drip": send half of it, slowly, until the client goes."""
    seen: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range header and bytes of the body sent."""
    dripping: threading.Event = field(default_factory=threading.Event)
    """The client of a "drip" has written the first of it."""
    part: Path | None = None
    """Where that client writes."""
    gone: threading.Event = field(default_factory=threading.Event)
    """Ends a "drip"."""
    barrier: threading.Barrier | None = None
    """Archives wait here until so many are asked for at once."""

    def of(self, path: str) -> list[tuple[str | None, int]]:
        return [(span, sent) for seen, span, sent in self.seen if seen == path]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "BACKOFF", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range")
            plan = server.plans.get(self.path, [])
            step = plan.pop(0) if plan else 200
            body = server.files.get(self.path)
            if body is None or (isinstance(step, int) and step != 200):
                server.seen.append((self.path, span, 0))
                self.send_error(404 if body is None else int(step))
                return
            if server.barrier is not None and self.path.endswith(".zip"):
                server.barrier.wait(timeout=30)
            begin = int(span.removeprefix("bytes=").removesuffix("-")) if span else 0
            if step == "whole":
                begin = 0
            self.send_response(206 if begin else 200)
            if begin:
                begin += step == "shift"
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            rest = body[begin:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if isinstance(step, str) and step.startswith("cut "):
                rest = rest[: int(step.removeprefix("cut "))]
                self.close_connection = True
            server.seen.append((self.path, span, len(rest)))
            if step == "drip":
                self._drip(rest)
            else:
                self.wfile.write(rest)

        def _drip(self, rest: bytes) -> None:
            self.close_connection = True
            for i in range(0, len(rest) // 2, 1000):
                self.wfile.write(rest[i : i + 1000])
                if server.part and server.part.is_file() and server.part.stat().st_size:
                    server.dripping.set()
                if i >= 100_000 and server.gone.wait(0.01):
                    return

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    http.shutdown()
    http.server_close()
    thread.join()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def esc50(top: str = "", audio: bytes = NOISE) -> dict[str, bytes]:
    """A tiny data set in ESC-50's layout, as two archives: tables and audio."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    rows += [f"{i}.wav,{i + 1},{i},{label},True,{i},A" for i, label in enumerate(LABELS)]
    return {
        "meta.zip": packed({f"{top}meta/esc50.csv": "\n".join(rows).encode()}),
        "audio.zip": packed({f"{top}audio/{i}.wav": audio for i in range(len(LABELS))}),
    }


def offer(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    archives: dict[str, bytes],
    *,
    strip: bool = False,
    unpacked: int = 10_000_000,
) -> None:
    """Publish archives in a record like Zenodo's, as the data set `toy`."""
    server.files.update({f"/page/files/{name}": content for name, content in archives.items()})
    listed = [
        {
            "key": name,
            "size": len(content),
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
        }
        for name, content in archives.items()
    ]
    readme = {"key": "README.md", "size": 1, "checksum": "md5:0"}
    server.files["/record"] = json.dumps({"id": 1, "files": [*listed, readme]}).encode()
    source = Source(
        citation="A. Author: A toy.",
        licence="CC0",
        page=f"{server.address}/page",
        unpacked=unpacked,
        record=f"{server.address}/record",
        strip=strip,
    )
    monkeypatch.setitem(SOURCES._entries, "toy", source)


def fetch(to: Path) -> str:
    """Download the toy; return what was printed."""
    stream = io.StringIO()
    download("toy", to, Console(file=stream, width=500))
    return stream.getvalue()


def refused(to: Path) -> str:
    with pytest.raises(UserError) as error:
        fetch(to)
    return str(error.value)


def visible(to: Path) -> list[str]:
    files = (path.relative_to(to) for path in to.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.parts[0] != ".mrkd-download")


ALL = ["audio/0.wav", "audio/1.wav", "meta/esc50.csv"]


def test_it_fetches_verifies_unpacks_and_then_has_nothing_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    printed = fetch(tmp_path / "new" / "esc")
    assert "Cite: A. Author: A toy." in printed
    assert "Licence: CC0" in printed
    assert "toy: 2 clips of 2 classes" in printed
    assert visible(tmp_path / "new" / "esc") == ALL
    assert (tmp_path / "new/esc/audio/1.wav").read_bytes() == NOISE
    kept = {path.name for path in (tmp_path / "new/esc/.mrkd-download").iterdir()}
    assert kept <= {"toy.json", "lock"}  # archives are gone
    asked = len(server.seen)
    again = fetch(tmp_path / "new" / "esc")
    assert len(server.seen) == asked  # so it also works offline
    assert "already: nothing to do" in again
    assert "Cite: A. Author: A toy." in again


def test_what_was_deleted_comes_back_and_nothing_else_is_fetched(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    fetch(tmp_path)
    (tmp_path / "meta/esc50.csv").unlink()
    fetch(tmp_path)
    assert visible(tmp_path) == ALL
    assert (len(server.of(META)), len(server.of(AUDIO))) == (2, 1)


def test_a_broken_transfer_goes_on_where_it_stopped(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.plans[AUDIO] = ["cut 200000", "cut 150000"]
    fetch(tmp_path)
    assert visible(tmp_path) == ALL
    size = len(server.files[AUDIO])
    spans = [span for span, _ in server.of(AUDIO)]
    begins = [int(re.fullmatch(r"bytes=(\d+)-", span or "bytes=0-")[1]) for span in spans]
    assert len(begins) == 3
    assert spans[0] is None
    assert 200_000 - transfer.CHUNK <= begins[1] <= 200_000
    assert begins[1] + 150_000 - transfer.CHUNK <= begins[2] <= begins[1] + 150_000
    assert server.of(AUDIO)[2][1] == size - begins[2]


def test_breaks_that_each_bring_something_are_not_too_many(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.plans[AUDIO] = ["cut 70000"] * (transfer.RETRIES + 3)  # a chunk and more, each time
    fetch(tmp_path)
    assert len(server.of(AUDIO)) > transfer.RETRIES + 1


def test_a_folder_takes_one_data_set(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    (tmp_path / ".mrkd-download").mkdir()
    (tmp_path / ".mrkd-download" / "tut2018.json").write_text("{}")
    assert "tut2018 is there already. Give toy a folder of its own" in refused(tmp_path)
    assert not server.seen


def test_the_next_call_goes_on_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.plans[AUDIO] = ["cut 100000"] + ["cut 0"] * (transfer.RETRIES + 1)
    message = refused(tmp_path)
    assert f"/audio.zip broke off {transfer.RETRIES + 1} times" in message
    assert "Call again to go on from there" in message
    asked, (_, sent) = len(server.of(AUDIO)), server.of(AUDIO)[0]
    assert asked == transfer.RETRIES + 2
    fetch(tmp_path)
    (span, rest) = server.of(AUDIO)[-1]
    begin = int(span.removeprefix("bytes=").removesuffix("-"))
    assert sent - transfer.CHUNK <= begin <= sent
    assert begin + rest == len(server.files[AUDIO])
    assert len(server.of(META)) == 1
    assert visible(tmp_path) == ALL


def test_a_server_that_sends_no_parts_is_asked_for_all(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.plans[AUDIO] = ["cut 200000", "whole"]
    fetch(tmp_path)
    assert server.of(AUDIO)[1][1] == len(server.files[AUDIO])
    assert visible(tmp_path) == ALL


@pytest.mark.parametrize("answer", [416, "shift"])
def test_a_part_that_the_server_does_not_know_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: int | str
) -> None:
    offer(server, monkeypatch, esc50())
    (tmp_path / ".mrkd-download").mkdir()
    (tmp_path / ".mrkd-download" / "audio.zip.part").write_bytes(b"x" * 100)
    server.plans[AUDIO] = [answer]
    fetch(tmp_path)
    assert [span for span, _ in server.of(AUDIO)] == ["bytes=100-", None]
    assert visible(tmp_path) == ALL


def test_wrong_bytes_are_refused_and_not_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    right = server.files[AUDIO]
    server.files[AUDIO] = right[:-1] + bytes([right[-1] ^ 1])
    message = refused(tmp_path)
    assert message.startswith("audio.zip: ")
    assert "/audio.zip sent other bytes than published" in message
    assert hashlib.md5(right).hexdigest() in message
    kept = {path.name for path in (tmp_path / ".mrkd-download").iterdir()}
    assert kept <= {"toy.json", "lock"}  # neither the bad archive nor the good one
    assert visible(tmp_path) == ["meta/esc50.csv"]
    server.files[AUDIO] = right
    fetch(tmp_path)
    assert server.of(AUDIO)[-1] == (None, len(right))  # not from the wrong bytes on
    assert visible(tmp_path) == ALL


def test_more_bytes_than_published_end_the_transfer(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.files[AUDIO] += b"more"
    assert "sends more than the" in refused(tmp_path)
    assert visible(tmp_path) == ["meta/esc50.csv"]


def test_404_is_final_and_named_and_the_rest_is_fetched(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archives = esc50()
    offer(server, monkeypatch, {**archives, "more.zip": packed({"x": b""})})
    server.plans = {AUDIO: [404] * 9, MORE: [404] * 9}
    message = refused(tmp_path)
    for path in (AUDIO, MORE):
        assert f"{server.address}{path}: answered 404" in message
        assert len(server.of(path)) == 1
    assert visible(tmp_path) == ["meta/esc50.csv"]


def test_503_is_asked_again_a_bounded_number_of_times(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    server.plans = {AUDIO: [503, 503], "/record": [502, 429]}
    fetch(tmp_path / "a")
    assert visible(tmp_path / "a") == ALL
    server.plans = {AUDIO: [503] * 99}
    asked = len(server.of(AUDIO))
    message = refused(tmp_path / "b")
    assert f"{server.address}{AUDIO}: answered 503 Service Unavailable" in message
    assert "call again later" in message
    assert len(server.of(AUDIO)) - asked == transfer.RETRIES + 1


def test_no_server_at_all(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(server, monkeypatch, esc50())
    source = SOURCES["toy"]
    nowhere = Source(**{**vars(source), "record": "http://127.0.0.1:1/record"})
    monkeypatch.setitem(SOURCES._entries, "toy", nowhere)
    message = refused(tmp_path)
    assert message.startswith("http://127.0.0.1:1/record: no answer")
    assert "Check the connection" in message


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"<html>", "not a record as expected"),
        (b"{}", "KeyError: 'files'"),
        (b'{"files": []}', "it lists no .zip file"),
        (
            b'{"files": [{"key": "../a.zip", "size": 1, "checksum": "md5:0"}]}',
            "the file name '../a.zip'",
        ),
        (
            b'{"files": [{"key": "a.zip", "size": 1, "checksum": "crc:0"}]}',
            "the checksum 'crc:0' of a.zip",
        ),
    ],
)
def test_an_odd_record_is_refused(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    record: bytes,
    reason: str,
) -> None:
    offer(server, monkeypatch, esc50())
    server.files["/record"] = record
    message = refused(tmp_path)
    assert reason in message
    assert f"{server.address}/page" in message


def link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return buffer.getvalue()


def lying_bomb() -> bytes:
    """Ten million zeros that say they are ten bytes."""
    packed_zeros = packed({"audio/0.wav": bytes(10_000_000)})
    size, lie = (10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert packed_zeros.count(size) == 2
    return packed_zeros.replace(size, lie)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (packed({"ok": b"1", "../outside": b"2"}), "'../outside' leads outside"),
        (packed({"ok": b"1", "audio/../../outside": b"2"}), "leads outside"),
        (packed({"ok": b"1", "/outside": b"2"}), "'/outside' leads outside"),
        (packed({"ok": b"1", "..\\outside": b"2"}), "leads outside"),
        (packed({"ok": b"1", "C:outside": b"2"}), "leads outside"),
        (link("audio", "/etc"), "'audio' is a link"),
        (packed({"audio/0.wav": bytes(10_000_001)}), "at most 10000000 were expected"),
        (lying_bomb(), "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ],
    ids=[  # a zip holds the time of its making, so its bytes are no name for a test
        "parent",
        "parent below",
        "absolute",
        "backslash",
        "drive",
        "link",
        "too long",
        "lying",
        "no archive",
    ],
)
def test_a_malicious_archive_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, archive: bytes, reason: str
) -> None:
    offer(server, monkeypatch, {"bad.zip": archive})
    message = refused(tmp_path / "in" / "side")
    assert reason in message
    assert "bad.zip" in message
    written = [tmp_path / "in/side" / name for name in visible(tmp_path / "in/side")]
    assert sum(path.stat().st_size for path in written) <= 10  # of the lying bomb, what it says
    assert not any("outside" in path.name for path in tmp_path.rglob("*"))
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_the_folder_around_all_is_left_out_where_it_says_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50("ESC-50-33c8ce9/"), strip=True)
    fetch(tmp_path)
    assert visible(tmp_path) == ALL


def test_disk_is_checked_before_any_archive_is_fetched(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    full = shutil.disk_usage(tmp_path)._replace(free=10_000_000)  # all but the archives
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    message = refused(tmp_path)
    assert "GB are needed and 0.0 GB are free" in message
    assert "--to" in message
    assert [path for path, *_ in server.seen] == ["/record"]


def test_several_archives_are_fetched_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    extra = {f"extra{i}.zip": packed({f"extra{i}": b"x"}) for i in range(PARALLEL - 2)}
    offer(server, monkeypatch, {**esc50(), **extra})
    assert PARALLEL > 1
    server.barrier = threading.Barrier(PARALLEL)  # broken where they come one after another
    fetch(tmp_path)
    assert [name for name in visible(tmp_path) if not name.startswith("extra")] == ALL


def test_an_interrupted_call_is_gone_on_with_after_unpacking_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, {"both.zip": packed({"a": b"1"}), **esc50()})
    unpack = module.unpack

    def interrupted(archive: Path, *args: object, **options: object) -> dict[str, int]:
        if archive.name == "audio.zip":
            raise OSError(28, "No space left on device", str(archive))
        return unpack(archive, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "unpack", interrupted)
    assert "audio.zip: No space left on device" in refused(tmp_path)
    monkeypatch.setattr(module, "unpack", unpack)
    fetch(tmp_path)
    assert len(server.of(AUDIO)) == 1  # it was there, complete
    assert visible(tmp_path) == ["a", *ALL]


def test_ctrl_c_ends_it_and_the_next_call_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50(audio=NOISE * 10))
    server.plans[AUDIO] = ["drip"]
    server.part = part = tmp_path / ".mrkd-download" / "audio.zip.part"
    code = (
        "import signal, sys\n"  # a shell's background has it ignored, and a child inherits that
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mrkd_ray.cli.main import main\n"
        "from mrkd_ray.datasets.download.sources import SOURCES, Source\n"
        f"SOURCES.add('toy', {SOURCES['toy']!r})\n"
        f"sys.argv = ['mrkd', 'download', 'toy', '--to', {str(tmp_path)!r}]\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.dripping.wait(100)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    server.gone.set()
    assert process.returncode == 130, errors
    assert errors == "interrupted: call again to go on from here\n"
    assert 0 < part.stat().st_size < 1_000_000  # it did not wait for the half
    fetch(tmp_path)
    span, sent = server.of(AUDIO)[-1]
    assert span is not None
    assert sent < len(server.files[AUDIO])
    assert visible(tmp_path) == ALL


def test_progress_is_for_terminals(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, esc50())
    assert "audio.zip" not in fetch(tmp_path / "a")
    stream = io.StringIO()
    download("toy", tmp_path / "b", Console(file=stream, width=200, force_terminal=True))
    assert "audio.zip" in stream.getvalue()


def test_a_second_download_into_the_same_folder_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import filelock

    offer(server, monkeypatch, esc50())
    (tmp_path / ".mrkd-download").mkdir()
    with filelock.FileLock(tmp_path / ".mrkd-download" / "lock"):
        assert "another mrkd download is at work there" in refused(tmp_path)
    assert server.seen == []


def test_an_unknown_name_and_a_file_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'esc50'"):
        download("esc-50", tmp_path, Console(quiet=True))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        download("esc50", tmp_path / "file", Console(quiet=True))


def test_the_official_sources_are_complete() -> None:
    assert list(SOURCES) == ["fsdkaggle2018", "tut2018", "esc50"]
    for _, source in SOURCES.items():
        assert (source.record is None) == bool(source.archives)
        assert source.citation
        assert source.licence
    archive: Archive = SOURCES["esc50"].archives[0]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", archive.checksum)
    assert re.fullmatch(r"https://github\.com/\S+/[0-9a-f]{40}\.zip", archive.url)
    assert SOURCES["fsdkaggle2018"].record == "https://zenodo.org/api/records/2552860"
    assert SOURCES["tut2018"].record == "https://zenodo.org/api/records/1228142"


def test_help_names_them_all() -> None:
    printed = CliRunner().invoke(app, ["download", "--help"], terminal_width=200).output
    assert "|".join(SOURCES) in printed
