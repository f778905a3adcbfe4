"""How much memory images may take, and decoding that waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from zs_operators import host_memory
from zs_operators.errors import InvalidInputError, MediaTooLargeError
from zs_operators.host_memory import Gate, size_of
from zs_operators.images import UprightImage, read_image

MIB = 2**20


def test_a_share_of_what_is_free_within_bounds(monkeypatch):
    monkeypatch.delenv(host_memory.VARIABLE, raising=False)
    for free, share in ((8_000, 1_000), (10, 64), (10**6, 8_192)):
        monkeypatch.setattr(host_memory, "free_bytes", lambda free=free: free * MIB)
        assert host_memory.image_bytes() == share * MIB
    monkeypatch.setenv(host_memory.VARIABLE, "3")
    assert host_memory.image_bytes() == 3 * MIB


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_setting_that_is_no_number_is_refused(monkeypatch, value):
    monkeypatch.setenv(host_memory.VARIABLE, value)
    with pytest.raises(InvalidInputError, match="whole number of mebibytes"):
        host_memory.image_bytes()


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(host_memory, "_CONTAINERS", ((str(limit), str(used)),))
    of_machine = host_memory.free_bytes()
    assert of_machine > 0
    used.write_text(f"{5 * MIB}\n")
    limit.write_text("max\n")
    assert host_memory.free_bytes() > 100 * MIB
    limit.write_text(f"{12 * MIB}\n")
    assert host_memory.free_bytes() == 7 * MIB


def test_bytes_of_an_item():
    @dataclass
    class Item:
        image: UprightImage
        tensor: torch.Tensor
        boxes: Any = None

    image = UprightImage(np.zeros((10, 20, 3), np.uint8), 20, 10)
    item = ("key", Item(image, torch.zeros(5)), None)
    assert size_of(item) == 10 * 20 * 3 + 5 * 4
    assert size_of(ValueError("no image")) == 0


def test_a_gate_lets_through_what_fits_and_alone_what_does_not():
    gate, log, lock = Gate(100), [], threading.Lock()

    def work(size):
        with gate.room(size):
            with lock:
                log.append(size)
            time.sleep(0.03)
            with lock:
                log.append(-size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (60, 60, 500, 30, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alive = np.cumsum(log)
    assert alive[-1] == 0
    assert alive.max() == 500
    assert sorted(set(alive[alive > 100])) == [500]
    assert (alive == 60).any()


def test_a_gate_is_never_shut_for_ever(monkeypatch):
    monkeypatch.setattr(host_memory, "_MAX_SECONDS_TO_WAIT", 0.02)
    gate = Gate(10)
    with gate.room(10), gate.room(10):
        pass


def test_large_images_are_decoded_one_after_the_other(monkeypatch, tmp_path):
    """Eight threads, memory for one image of this size."""
    path = tmp_path / "large.png"
    Image.new("RGB", (3000, 1500), "teal").save(path)
    monkeypatch.setattr(host_memory, "_DECODING", Gate(50_000_000))
    at_once, most, lock = 0, 0, threading.Lock()
    real = ImageFile.ImageFile.load

    def load(image):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return real(image)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    threads = [threading.Thread(target=read_image, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_what_readers_say_of_memory_is_known(monkeypatch, tmp_path):
    path = tmp_path / "one.png"
    Image.new("RGB", (8, 8)).save(path)

    def out(*args):
        raise MemoryError

    monkeypatch.setattr("zs_operators.images.to_rgb", out)
    with pytest.raises(MediaTooLargeError, match="does not fit in memory") as caught:
        read_image(path)
    assert host_memory.ran_out(caught.value)
    assert host_memory.ran_out(MemoryError())
    assert not host_memory.ran_out(MediaTooLargeError("too many pixels"))
    assert not host_memory.ran_out("MemoryError")
