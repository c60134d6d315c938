"""Merkle trees are those of RFC 6962, and an audit path proves what it should and nothing else."""

import hashlib

import pytest

from workledger.errors import InvalidInput
from workledger.log.merkle import Peaks, inclusion_path, leaf_hash, root_from_path, tree_root

# The entries and roots of the reference implementation of RFC 6962 (certificate-transparency-go, merkle tests).
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in ENTRIES]


def by_definition(leaves):
    """RFC 6962, section 2.1, word for word."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_a_root_is_that_of_the_reference_implementation(size):
    assert tree_root(b"".join(LEAVES[:size])).hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing():
    assert tree_root(b"") == Peaks().root() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", [*range(1, 35), 63, 64, 65, 100])
def test_a_root_is_what_the_definition_says_and_every_leaf_can_be_proved(size):
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    root = by_definition(leaves)
    assert tree_root(b"".join(leaves)) == root
    for index, leaf in enumerate(leaves):
        path = inclusion_path(b"".join(leaves), index)
        assert root_from_path(leaf, index=index, size=size, path=path) == root


def test_a_path_proves_nothing_for_another_leaf_index_size_or_length():
    leaves = [leaf_hash(bytes([n])) for n in range(7)]
    root, path = tree_root(b"".join(leaves)), inclusion_path(b"".join(leaves), 4)
    proves = [
        (leaf, index, size, tuple(steps))
        for leaf in leaves
        for index in range(8)
        for size in range(1, 9)
        for steps in (path, path[:-1], [*path, root], path[::-1])
        if root_from_path(leaf, index=index, size=size, path=steps) == root
    ]
    # A size of 8 has the same shape to the left of leaf 6: the size is part of what is signed.
    assert {(leaf, index) for leaf, index, *_ in proves} == {(leaves[4], 4)}
    assert {steps for *_, steps in proves} == {tuple(path)}


def test_a_leaf_that_is_not_there_has_no_path():
    with pytest.raises(InvalidInput, match="leaf 3 is not in a tree of 3"):
        inclusion_path(bytes(96), 3)


def test_a_tree_grows_from_its_peaks_alone():
    leaves = [leaf_hash(bytes([n])) for n in range(40)]
    peaks = Peaks()
    for size, leaf in enumerate(leaves):
        peaks = Peaks(size=size, data=peaks.data)
        path = peaks.path_of_next()
        peaks.append(leaf)
        assert peaks.root() == by_definition(leaves[: size + 1])
        assert root_from_path(leaf, index=size, size=size + 1, path=path) == peaks.root()


def test_peaks_that_cannot_belong_to_a_size_are_refused():
    with pytest.raises(InvalidInput, match="7 leaves has 3 peaks"):
        Peaks(size=7, data=bytes(64))
