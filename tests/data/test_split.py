import json
import string
from importlib.resources import files

import pytest

from metagen.data.split import Split, shares_of
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]

DIGITS = tuple("0123456789")
COMMITTED = sorted(f.name[:-5] for f in files("metagen.data").joinpath("splits").iterdir())


def sizes(split):
    return len(split.train), len(split.val), len(split.test)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_splits_are_disjoint(name):
    split = Split.load(name)  # the constructor checks it
    assert sizes(split)[0] > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits_789", (7, 0, 3)),
        ("leave_out_4", (9, 0, 1)),
        ("omniglot_background", (867, 97, 659)),
        ("omniglot_vinyals", (1028, 172, 423)),
        ("omniglot_1200", (1100, 100, 423)),
        ("omniglot_transfer", (1526, 97, 0)),
        ("omniglot_weak", (1423, 50, 150)),
        ("omniglot_augmentation", (1200, 211, 212)),
        ("emnist_letters", (16, 4, 6)),
        ("emnist_balanced", (34, 7, 6)),
        ("emnist_augmentation", (28, 9, 10)),
    ],
)
def test_sizes(name, expected):
    assert sizes(Split.load(name)) == expected


def test_the_weak_split_tests_three_characters_of_each_alphabet():
    alphabets = [name.split("/")[0] for name in Split.load("omniglot_weak").test]
    assert len(set(alphabets)) == 50
    assert all(alphabets.count(one) == 3 for one in alphabets)


def test_the_characters_of_the_augmentation_are_those_of_the_1200():
    published, others = Split.load("omniglot_1200"), Split.load("omniglot_augmentation")
    assert set(others.train) == {*published.train, *published.val}
    assert {*others.val, *others.test} == set(published.test)


def test_omniglot_background_validates_on_the_last_97():
    split = Split.load("omniglot_background")
    assert list(split.train + split.val) == sorted(split.train + split.val)
    alphabets = [{name.split("/")[0] for name in side} for side in (split.train + split.val, split.test)]
    assert [len(side) for side in alphabets] == [30, 20]
    assert not alphabets[0] & alphabets[1]


@pytest.mark.parametrize("name", [name for name in COMMITTED if name.startswith("omniglot")])
@pytest.mark.real_data
def test_omniglot_splits_name_real_characters(name, real_omniglot):
    Split.load(name).check(real_omniglot.names, "omniglot")


@pytest.mark.parametrize("fold", range(10))
def test_every_digit_is_left_out_once(fold):
    split = Split.load(f"leave_out_{fold}")
    assert split.test == (str(fold),)
    assert set(split.train) == set(DIGITS) - {str(fold)}


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train": [0, "1"], "val": [], "test": ["2"]}))
    assert Split.load(str(path)) == Split(("0", "1"), (), ("2",))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "expected JSON"), ("[]", "expected JSON"), ('{"train": [], "val": []}', "'test'")],
)
def test_a_bad_file(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(MetagenError, match=message):
        Split.load(str(path))


def test_unknown_split_names_the_nearest():
    with pytest.raises(MetagenError, match="did you mean 'digits_789'"):
        Split.load("digits_78")


def test_overlap_names_the_classes():
    with pytest.raises(MetagenError, match="train and test classes overlap in '1', '3': name each"):
        Split(("1", "2", "3"), (), ("1", "3"))
    with pytest.raises(MetagenError, match="'1' twice"):
        Split(("1", "1"), (), ())


def test_unknown_class_names_the_nearest():
    names = ("Latin/character01", "Latin/character02")
    with pytest.raises(MetagenError, match="did you mean 'Latin/character01'"):
        Split((), (), ("Latin/charcter01",)).check(names, "omniglot")
    with pytest.raises(MetagenError, match="its 10 classes run from '0' to '9'"):
        Split((), (), ("z",)).check(DIGITS, "mnist")


SPLIT = Split.load("digits_789")


def test_without_overrides_nothing_changes():
    assert SPLIT.override(DIGITS) == SPLIT


@pytest.mark.parametrize("test", [[7], ["7"], (7,)])
def test_new_test_classes_leave_the_rest_to_training(test):
    assert SPLIT.override(DIGITS, test=test) == Split(tuple("012345689"), (), ("7",))


def test_new_validation_classes_are_taken_from_training():
    assert SPLIT.override(DIGITS, val=[0, 1]) == Split(tuple("23456"), ("0", "1"), tuple("789"))


def test_inherited_validation_gives_way_to_the_new_test():
    letters = tuple(string.ascii_lowercase)
    split = Split(letters[:20], ("u", "v"), ("w",)).override(letters, test=["v"])
    assert (split.val, split.test) == (("u",), ("v",))
    assert set(split.train) == set(letters) - {"u", "v"}


def test_explicit_training_classes_stay():
    assert SPLIT.override(DIGITS, train=[0], test=[9]) == Split(("0",), (), ("9",))
    with pytest.raises(MetagenError, match="overlap in '7'"):
        SPLIT.override(DIGITS, train=[7])


@pytest.mark.parametrize("bad", [7, "7", [True], [1.5], [None]])
def test_a_list_of_names_is_wanted(bad):
    with pytest.raises(MetagenError, match=r"task\.test_classes"):
        SPLIT.override(DIGITS, test=bad)


def test_shares_are_dealt_out_by_the_names_alone():
    names = [f"class {i}" for i in range(2000)]
    split = Split.by_shares(names, (0.7, 0.1, 0.2))
    assert [abs(n - e) < 60 for n, e in zip(sizes(split), (1400, 200, 400), strict=True)] == [True] * 3
    fewer = Split.by_shares(names[::3], (0.7, 0.1, 0.2))
    assert set(fewer.test) == set(split.test) & set(names[::3])
    assert set(fewer.val) == set(split.val) & set(names[::3])
    assert Split.by_shares(["class 0"], (0.2800, 0.7200, 0)).val == ("class 0",)


def test_no_share_of_a_few_classes_stays_empty():
    names = [f"class {i}" for i in range(12)]
    shares = (0.7, 0.1, 0.2)
    for count in range(3, 12):
        for start in range(0, 60, 7):
            some = [f"class {i}" for i in range(start, start + count)]
            split = Split.by_shares(some, shares)
            assert min(sizes(split)) >= 1
            assert split == Split.by_shares(some, shares)
    assert sizes(Split.by_shares(names[:2], shares)) == (2, 0, 0), "fewer classes than shares"
    assert sizes(Split.by_shares(names[:2], (0.7, 0, 0.3))) == (1, 0, 1)
    assert sizes(Split.by_shares(names, (0.5, 0, 0.5)))[1] == 0
    assert sizes(Split.by_shares(names, (1, 0, 0))) == (12, 0, 0)


@pytest.mark.parametrize("text", ["digits_789", "0.7", "a/b/c", "splits/a/b.json", "0.7/0.3"])
def test_what_is_no_shares(text):
    assert shares_of(text) is None


def test_shares():
    assert shares_of("0.7/.1/0.2") == (0.7, 0.1, 0.2)
    assert shares_of("1/0/0") == (1, 0, 0)
    with pytest.raises(MetagenError, match="add up to 1"):
        shares_of("7/1/2")


def test_an_empty_name_says_what_a_split_may_be():
    says = r'data\.split= is neither a split, shares as .*, nor a JSON file that holds \{"train": \['
    with pytest.raises(MetagenError, match=says):
        Split.load("")
