"""What the hub answers becomes one sentence, and nothing is pushed by halves."""

import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from kao.errors import MissingExtraError, OutputError
from kao.exchange.hub import check_hub, push_folder

NO_ROUTE = errors.HfHubHTTPError.__bases__[0]("no route to the host")


def answer(kind, status):
    return kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


class Hub:
    """Takes folders, or raises what a test asks it to."""

    def __init__(self, **raises):
        self.raises, self.calls = raises, []

    def __call__(self, library_name):
        return self

    def _do(self, name, **told):
        self.calls.append((name, told))
        if name in self.raises:
            raise self.raises[name]

    def whoami(self):
        self._do("whoami")

    def create_repo(self, repo_id, **told):
        self._do("create_repo", repo_id=repo_id, **told)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self, **told):
        self._do("upload_folder", **told)


@pytest.fixture
def hub(monkeypatch):
    def make(**raises):
        made = Hub(**raises)
        monkeypatch.setattr(huggingface_hub, "HfApi", made)
        return made

    return make


def test_a_folder_goes_to_a_new_repository_of_models(hub, tmp_path):
    made = hub()
    address = push_folder(tmp_path, "me/faces", private=True, update=False)
    assert address == "https://huggingface.co/me/faces"
    (_, created), (_, uploaded) = made.calls
    assert (created["private"], created["exist_ok"], created["repo_type"]) == (True, False, "model")
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/faces", tmp_path)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("create_repo", errors.HFValidationError("bad"), "is no name of the hub"),
        ("create_repo", errors.LocalTokenNotFoundError("none"), "hf auth login"),
        ("create_repo", answer(errors.HfHubHTTPError, 401), "hf auth login"),
        ("create_repo", answer(errors.HfHubHTTPError, 403), "may not write"),
        ("create_repo", answer(errors.HfHubHTTPError, 409), "--update"),
        ("upload_folder", answer(errors.RepositoryNotFoundError, 404), "look at the owner"),
        ("upload_folder", answer(errors.GatedRepoError, 403), "accepted its terms"),
        ("upload_folder", answer(errors.HfHubHTTPError, 500), "later"),
        ("upload_folder", errors.OfflineModeIsEnabled("offline"), "cannot be reached"),
        ("upload_folder", NO_ROUTE, "cannot be reached"),
        ("create_repo", ValueError("odd\nname"), "refused me/faces (odd name)"),
        ("upload_folder", ValueError("invalid front matter"), "invalid front matter"),
    ],
)
def test_an_error_is_one_sentence_that_says_what_to_do(hub, call, error, words, tmp_path):
    hub(**{call: error})
    with pytest.raises(OutputError) as caught:
        push_folder(tmp_path, "me/faces", private=False, update=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    made = call == "upload_folder"
    assert ("me/faces was made and is empty" in str(caught.value)) is made
    assert ("nothing was pushed" in str(caught.value)) is not made


def test_a_model_that_was_there_is_not_called_empty(hub, tmp_path):
    hub(upload_folder=NO_ROUTE)
    with pytest.raises(OutputError, match="nothing was pushed"):
        push_folder(tmp_path, "me/faces", private=False, update=True)


def test_who_is_not_logged_in_is_told_so_first(hub):
    made = hub(whoami=errors.LocalTokenNotFoundError("none"))
    with pytest.raises(OutputError, match="logged in"):
        check_hub("me/faces")
    assert [name for name, _ in made.calls] == ["whoami"]


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="'hub'"):
        check_hub("me/faces")
