"""Bringing a folder to the Hugging Face hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kao.errors import ConfigError, MissingExtraError, OutputError

_NOTHING = "nothing was pushed, and the run is as it was"

_PART = r"\w(?:[\w.-]*\w)?"
_NAME = re.compile(f"{_PART}/{_PART}", re.ASCII)
_LONGEST = 96
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def check_name(name: str) -> None:
    """Raise a ConfigError for what is no owner/name, before anybody is asked."""
    doubled = "--" in name or ".." in name or name.endswith(".git") or len(name) > _LONGEST
    if doubled or not _NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" is no name of the hub: expected owner/name, {_LONGEST} characters at most, '
            f'in letters, digits, "_", and single "." and "-" between them.'
        )


def is_licence(text: str) -> bool:
    """Whether a text is formed as the hub's identifiers of licences are: cc-by-4.0."""
    return _LICENCE.fullmatch(text) is not None


def check_licence(text: str) -> None:
    """Raise a ConfigError for a licence that the front matter of a page cannot name.

    Args:
        text: As typed; empty: not stated.
    """
    if text and not is_licence(text):
        raise ConfigError(
            f'--licence = "{text}" is no identifier of the hub, which has lower-case letters, '
            f'digits, "." and "-", as cc-by-4.0, mit or apache-2.0: give one of those, or other.'
        )


def check_hub(name: str) -> None:
    """Ask who is logged in, before any work is done for nothing.

    Args:
        name: As for `push_folder`.

    Raises:
        MissingExtraError, OutputError: As `push_folder`.
    """
    api = _client()
    with _in_words(name):
        api.whoami()


def push_folder(folder: Path, name: str, *, private: bool, update: bool) -> str:
    """Make a repository of models and put all files of a folder into it.

    Args:
        folder: What to push.
        name: owner/name, from `check_name`.
        private: Whether only its owner may see it; of a repository that exists nothing is changed.
        update: Whether there may be one of that name already, whose files are replaced.

    Returns:
        The address of its page.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OutputError: Nobody is logged in, the hub cannot be reached, the name is taken or is none,
            this account may not write there, or the hub does not take the files; then the model
            that was made for them is there and empty, and the message says so.
    """
    api = _client()
    with _in_words(name):
        made = api.create_repo(name, private=private, repo_type="model", exist_ok=update)
    empty = f"the model {made.repo_id} was made and is empty; `kao push` with --update fills it"
    with _in_words(name, left=_NOTHING if update else empty):
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            repo_type="model",
            commit_message="Push a model with kao",
        )
    return str(made)


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", extra="hub", purpose="push a model") from error
    return huggingface_hub.HfApi(library_name="kao")


@contextmanager
def _in_words(name: str, left: str = _NOTHING) -> Iterator[None]:
    """The hub's errors as sentences.

    Args:
        name: Of the model.
        left: What they leave behind, as the end of a sentence.

    Raises:
        OutputError: Whatever went wrong.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise OutputError(
            f'"{name}" is no name of the hub, which is owner/name in letters, digits, ".", "_" '
            f'and "-": {left}.'
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise OutputError(_nobody(name, left)) from error
    except errors.GatedRepoError as error:
        raise OutputError(
            f"{name} is given only to those who accepted its terms, and this account did not: "
            f"accept them on its page, or push under another name; {left}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise OutputError(
            f"The hub has no {name} that this account may write to: look at the owner's name; "
            f"{left}."
        ) from error
    except errors.HfHubHTTPError as error:
        raise OutputError(_refusal(name, error, left)) from error
    # The client has changed the library that it asks with: what that raises is its error's base.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        raise OutputError(
            f"The hub cannot be reached ({_short(error)}): look at the connection and at "
            f"HF_HUB_OFFLINE, or write the folder with --dry-run DIR; {left}."
        ) from error
    except ValueError as error:  # what the client itself finds wrong with the page or the files
        raise OutputError(
            f"The hub's client refused {name} ({_short(error)}): look at the folder that --dry-run "
            f"DIR writes; {left}."
        ) from error


def _refusal(name: str, error: Any, left: str) -> str:
    """What an answer of the hub means, as a sentence."""
    status = error.response.status_code
    if status == 401:
        return _nobody(name, left)
    if status == 403:
        return (
            f"This account may not write to {name}: look at the owner's name, and log in with a "
            f"token that may write (`hf auth login`); {left}."
        )
    if status == 409:
        return (
            f"The hub has a model {name} already: choose another name, or replace its files with "
            f"--update; {left}."
        )
    return f"The hub refused {name} ({_short(error)}): try again later; {left}."


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _nobody(name: str, left: str) -> str:
    return (
        f"Nobody is logged in to the hub, so {name} cannot be pushed: run `hf auth login`, or set "
        f"HF_TOKEN, with a token that may write; {left}."
    )
