# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.errors import HostLacks, HostRefused, ProgramRefused
from ringfence.host.bpf import libbpf
from ringfence.host.bpf.maps import BpfMap, MapType
from ringfence.host.bpf.objects import BpfObject
from ringfence.host.bpf.programs import AttachType, ProgramType
from tests.host.bpf.conftest import Compile, without_privileges

pytestmark = pytest.mark.kernel

COUNTING = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
  rf_counts_of_all SEC(".maps");
const volatile __u64 step = 1;
const volatile __u8 colour[3] = {1, 2, 3};
SEC("netfilter") int rf_forward(struct bpf_nf_ctx *ctx) {
  __u32 key = ctx->state->hook; __u64 first = step;
  __u64 *count = bpf_map_lookup_elem(&rf_counts_of_all, &key);
  if (count) __sync_fetch_and_add(count, step);
  else bpf_map_update_elem(&rf_counts_of_all, &key, &first, BPF_ANY);
  return colour[2] == 3;
}
SEC("tc") int rf_classify(struct __sk_buff *skb) { return 7; }
"""
REFUSED = """
SEC("tc") int rf_good(struct __sk_buff *skb) { return 0; }
SEC("tc") int rf_wild(struct __sk_buff *skb) { return *(volatile int *)(long)(skb->len + 1); }
"""


def test_what_was_loaded_has_the_sizes_and_names_asked_for(compiled: Compile) -> None:
    """Maps and programs come by their whole names, the kernel's own names are cut; each is held by its own."""
    with BpfObject(compiled(COUNTING)) as opened:
        assert set(opened.maps) >= {"rf_counts_of_all", ".rodata"}
        assert set(opened.programs) == {"rf_forward", "rf_classify"}
        opened.set_max_entries("rf_counts_of_all", 77)
        opened.set_type("rf_forward", ProgramType.NETFILTER, AttachType.NETFILTER)
        loaded = opened.load()

    counts, forward = loaded.maps["rf_counts_of_all"], loaded.programs["rf_forward"]
    assert (counts.name, counts.kind, counts.max_entries) == ("rf_counts_of_al", MapType.HASH, 77)
    assert (counts.key_size, counts.value_size) == (4, 8)
    assert (forward.name, forward.kind, len(forward.tag)) == ("rf_forward", ProgramType.NETFILTER, 16)
    assert set(forward.map_ids()) == {counts.id, loaded.maps[".rodata"].id}
    loaded.close()


def test_a_map_can_be_shared_with_an_object_loaded_before(compiled: Compile) -> None:
    """A reused map is the same one: what was in it is there."""
    with BpfMap.create(MapType.HASH, key_size=4, value_size=8, max_entries=9, name="rf_counts") as existing:
        existing.update(bytes(4), b"12345678")
        with BpfObject(compiled(COUNTING)) as opened:
            opened.reuse("rf_counts_of_all", existing)
            opened.leave_out("rf_forward")
            loaded = opened.load()

        assert loaded.maps["rf_counts_of_all"].id == existing.id
        assert loaded.maps["rf_counts_of_all"].lookup(bytes(4)) == b"12345678"
        assert set(loaded.programs) == {"rf_classify"}
        loaded.close()


def test_constants_are_set_before_loading(compiled: Compile) -> None:
    """By their names, whatever their places; one of the wrong length is a mistake of the caller."""
    with BpfObject(compiled(COUNTING)) as opened:
        opened.leave_out("rf_forward")
        opened.set_constant("colour", b"\4\5\6")
        opened.set_constant("step", struct.pack("=Q", 1 << 40))
        with pytest.raises(ValueError, match="colour has 3 bytes"):
            opened.set_constant("colour", bytes(4))
        with pytest.raises(KeyError):
            opened.set_constant("flavour", bytes(4))
        loaded = opened.load()

    section = loaded.maps[".rodata"].lookup(bytes(4))
    assert section is not None
    assert b"\4\5\6" in section
    assert struct.pack("=Q", 1 << 40) in section
    loaded.close()


def test_a_refused_program_is_one_sentence_and_the_whole_log(
    compiled: Compile, capfd: pytest.CaptureFixture[str]
) -> None:
    """The verifier's complaint is in the message, its log beside it; nothing is printed."""
    with BpfObject(compiled(REFUSED)) as opened, pytest.raises(ProgramRefused) as refused:
        opened.load()

    assert "refuses the BPF program rf_wild: R" in str(refused.value)
    assert "invalid mem access" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "processed " in refused.value.log
    assert refused.value.answered in refused.value.log
    assert capfd.readouterr() == ("", "")


def test_a_program_of_no_known_type_is_refused_with_what_libbpf_says(compiled: Compile) -> None:
    """Nothing of the object stays."""
    with BpfObject(compiled(COUNTING)) as opened, pytest.raises(HostRefused, match="rf_forward"):
        opened.load()


def test_a_file_that_is_no_object_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a missing file nor a text is an object."""
    text = tmp_path / "text.o"
    text.write_text("not an object")

    with pytest.raises(HostRefused, match="text.o cannot be opened"):
        BpfObject(text)
    with pytest.raises(HostRefused, match="No such file"):
        BpfObject(tmp_path / "none.o")
    assert capfd.readouterr() == ("", "")


def test_what_is_said_to_one_thread_is_not_heard_in_another(compiled: Compile) -> None:
    """Objects are loaded by several threads at once; each gets its own complaint."""

    def load(source: str) -> str:
        try:
            with BpfObject(compiled(source)) as opened:
                opened.load().close()
        except ProgramRefused as error:
            return error.program
        return ""

    sources = [REFUSED, REFUSED.replace("rf_wild", "rf_tame"), 'SEC("tc") int rf_well(void *ctx) { return 0; }']
    list(map(compiled, sources))
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(load, sources * 4))

    assert answers == ["rf_wild", "rf_tame", ""] * 4


def test_without_privileges_nothing_is_loaded(compiled: Compile) -> None:
    """That is a lack of this process, and no fault of the object's."""
    with BpfObject(compiled(COUNTING)) as opened:
        opened.leave_out("rf_forward")
        with pytest.raises(HostLacks, match="run this as root"):
            without_privileges(opened.load)


def test_an_object_that_was_loaded_is_closed(compiled: Compile) -> None:
    """Nothing can be said about it, nor loaded again."""
    with BpfObject(compiled('SEC("tc") int rf_well(void *ctx) { return 0; }')) as opened:
        opened.load().close()
        with pytest.raises(ValueError, match="is closed"):
            opened.leave_out("rf_well")
        with pytest.raises(ValueError, match="is closed"):
            opened.load()


def test_a_field_that_this_kernel_has_not_is_named(compiled: Compile) -> None:
    """A program made for another kernel says what it looked for."""
    source = """
struct net_device { int rf_no_such_field; } __attribute__((preserve_access_index));
SEC("netfilter") int rf_strange(struct bpf_nf_ctx *ctx) { return ((struct net_device *)ctx->skb)->rf_no_such_field; }
"""
    with BpfObject(compiled(source)) as opened:
        opened.set_type("rf_strange", ProgramType.NETFILTER, AttachType.NETFILTER)
        with pytest.raises(ProgramRefused, match="rf_strange") as refused:
            opened.load()

    assert "rf_no_such_field" in refused.value.answered


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without libbpf is told how to get it."""
    monkeypatch.setattr(libbpf, "LIBRARY", "librf-no-such-thing.so.1")

    with pytest.raises(HostLacks, match="apt-get install libbpf1"):
        BpfObject(tmp_path)
