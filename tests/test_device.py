from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zs_operators import device
from zs_operators.device import BatchBudget, is_out_of_memory, resolve_batch_size
from zs_operators.errors import DeviceError, InvalidInputError


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device=None: SimpleNamespace(total_memory=40 * 2**30),
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


class TestDevice:
    def test_auto_takes_the_best_there_is(self, two_gpus):
        assert device.resolve_device("auto") == "cuda:0"

    def test_auto_without_gpu_is_cpu(self, no_gpu):
        assert device.resolve_device("auto") == "cpu"
        assert device.resolve_device(torch.device("cpu")) == "cpu"

    @pytest.mark.parametrize("name", ["cuda", "CUDA", "cuda:0", "mps", "xpu"])
    def test_missing_device_names_what_is_there(self, no_gpu, name):
        with pytest.raises(DeviceError, match=r"not available here \(available: cpu\)"):
            device.resolve_device(name)

    def test_missing_index_names_what_is_there(self, two_gpus):
        assert device.resolve_device("cuda:1") == "cuda:1"
        with pytest.raises(DeviceError, match="cpu, cuda:0, cuda:1"):
            device.resolve_device("cuda:7")

    def test_nonsense_is_no_device_name(self, no_gpu):
        with pytest.raises(DeviceError, match="not a device name"):
            device.resolve_device("gpu please")


class TestPrecision:
    @pytest.mark.parametrize(("has_units", "expected"), [(True, "bf16"), (False, "fp32")])
    def test_auto_on_cpu(self, monkeypatch, has_units, expected):
        monkeypatch.setattr(device, "cpu_has_bf16_units", lambda: has_units)
        assert device.resolve_precision("auto", "cpu") == expected

    @pytest.mark.parametrize(("capability", "expected"), [((8, 0), "bf16"), ((7, 5), "fp16")])
    def test_auto_on_cuda(self, monkeypatch, capability, expected):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        assert device.resolve_precision("auto", "cuda") == expected

    @pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
    def test_units_of_the_cpu(self, monkeypatch, flag):
        known = {"amx_bf16": False, "avx512_bf16": False}
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
        device.cpu_has_bf16_units.cache_clear()
        assert device.cpu_has_bf16_units() is False
        known[flag] = True
        device.cpu_has_bf16_units.cache_clear()
        assert device.cpu_has_bf16_units() is True
        device.cpu_has_bf16_units.cache_clear()

    def test_fp16_needs_a_gpu(self):
        with pytest.raises(DeviceError, match="fp16"):
            device.resolve_precision("fp16", "cpu")

    def test_slow_bf16_is_allowed_with_a_warning(self, monkeypatch, caplog):
        monkeypatch.setattr(device, "cpu_has_bf16_units", lambda: False)
        assert device.resolve_precision("bf16", "cpu") == "bf16"
        assert "slower" in caplog.text

    @pytest.mark.parametrize("name", ["float16", "int8", "", None])
    def test_unknown(self, name):
        with pytest.raises(InvalidInputError, match="precision"):
            device.resolve_precision(name, "cpu")


class TestBatchSize:
    @pytest.mark.parametrize("size", [0, -1, True, False, 1.5, "8", "big", None])
    def test_refuses(self, size):
        with pytest.raises(InvalidInputError, match="batch_size"):
            resolve_batch_size(size)

    @pytest.mark.parametrize("size", [1, 7, np.int64(7)])
    def test_takes_whole_numbers(self, size):
        assert resolve_batch_size(size) == size

    def test_auto(self, two_gpus):
        assert 16 <= resolve_batch_size("auto", "cpu") <= 64
        assert resolve_batch_size("auto", "cuda:0", "bf16") > resolve_batch_size("auto", "cpu")

    @pytest.mark.parametrize(("threads", "size"), [(1, 16), (4, 16), (8, 32), (16, 64), (96, 64)])
    def test_auto_is_more_where_more_threads_share_a_batch(self, monkeypatch, threads, size):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        assert resolve_batch_size("auto", "cpu") == size


class FakeModel:
    """Runs out of memory above ``limit`` items."""

    def __init__(self, limit, error=None):
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes = []

    def __call__(self, items):
        self.sizes.append(len(items))
        if len(items) > self.limit:
            raise self.error
        return items * 2


class TestBatchBudget:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory."),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
            RuntimeError("GET was unable to find an engine to execute this computation"),
            MemoryError(),
        ],
    )
    def test_halves_until_it_fits_and_keeps_order(self, error):
        model = FakeModel(3, error)
        budget = BatchBudget(16)
        results = budget.run(model, torch.arange(20))
        assert torch.cat([result for *_, result in results]).tolist() == list(range(0, 40, 2))
        assert [start for start, *_ in results] == list(range(0, 20, 2))
        assert budget.size == 2
        assert model.sizes[:4] == [16, 8, 4, 2]

    def test_the_size_is_remembered_between_calls(self):
        model, budget = FakeModel(4), BatchBudget(8)
        budget.run(model, torch.arange(8))
        model.sizes.clear()
        budget.run(model, torch.arange(8))
        assert model.sizes == [4, 4]

    def test_grows_back_after_a_while_and_never_beyond_the_start(self):
        model, budget = FakeModel(4), BatchBudget(8, grow_after=3)
        budget.run(model, torch.arange(8))
        model.limit = 100
        budget.run(model, torch.arange(40))
        assert budget.size == 8
        assert max(model.sizes) == 8

    def test_growing_back_gets_rarer_each_time_it_fails(self):
        model, budget = FakeModel(4), BatchBudget(8, grow_after=2)
        budget.run(model, torch.arange(400))
        tries = [i for i, size in enumerate(model.sizes) if size == 8]
        gaps = np.diff(tries)
        assert (np.diff(gaps) > 0).all()
        assert len(gaps) >= 3

    def test_an_item_that_never_fits_is_raised_or_recorded(self):
        def fn(items):
            if 5 in items:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return items

        with pytest.raises(torch.OutOfMemoryError):
            BatchBudget(4).run(fn, list(range(8)))
        failed = {}
        results = BatchBudget(4).run(fn, list(range(8)), failed=failed)
        assert list(failed) == [5]
        assert sorted(item for *_, part in results for item in part) == [0, 1, 2, 3, 4, 6, 7]

    def test_other_errors_pass_through(self):
        def fn(items):
            raise RuntimeError("shapes do not match")

        with pytest.raises(RuntimeError, match="shapes"):
            BatchBudget(4).run(fn, [1, 2])
        assert not is_out_of_memory(ValueError("out of memory"))

    def test_the_error_does_not_keep_the_tensors_of_the_failed_call_alive(self):
        import weakref

        alive = []

        def fn(items):
            big = torch.zeros(10)
            alive.append(weakref.ref(big))
            if len(items) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return alive[0]()

        results = BatchBudget(2).run(fn, [1, 2])
        assert all(result is None for *_, result in results)

    def test_it_says_what_it_settled_on(self):
        budget = BatchBudget(16, what="prompts", grow_after=3)
        assert budget.warning is None
        budget.run(FakeModel(3), torch.arange(3))
        assert budget.warning is None
        model = FakeModel(8)
        budget.run(model, torch.arange(16))
        assert budget.warning == (
            "Memory ran out once; went on with 8 instead of 16 prompts at once."
        )
        model.limit = 2
        budget.run(model, torch.arange(8))
        assert budget.warning == (
            "Memory ran out 3 times; went on with 2 instead of 16 prompts at once."
        )
        model.limit = 16
        budget.run(model, torch.arange(400))
        assert budget.warning == "Memory ran out 3 times; later 16 prompts at once fitted again."

    def test_nothing_to_do(self):
        assert BatchBudget(4).run(FakeModel(1), []) == []

    def test_refuses_an_empty_budget(self):
        with pytest.raises(InvalidInputError):
            BatchBudget(0)
