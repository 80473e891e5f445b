"""Bringing a folder to the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kao.errors import MissingExtraError, OutputError

_NOTHING = "nothing was pushed, and the run is as it was"


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
        name: owner/name, or a name alone for the account that is logged in.
        private: Whether only its owner may see it; of a repository that exists nothing is changed.
        update: Whether there may be one of that name already, whose files are replaced.

    Returns:
        The address of its page.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OutputError: Nobody is logged in, the hub cannot be reached, the name is taken or is none,
            or this account may not write there.
    """
    api = _client()
    with _in_words(name):
        made = api.create_repo(name, private=private, repo_type="model", exist_ok=update)
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
def _in_words(name: str) -> Iterator[None]:
    """The hub's errors as sentences.

    Raises:
        OutputError: Whatever went wrong.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise OutputError(
            f'"{name}" is no name of the hub, which is owner/name in letters, digits, ".", "_" '
            f'and "-": {_NOTHING}.'
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise OutputError(_nobody(name)) from error
    except errors.GatedRepoError as error:
        raise OutputError(
            f"{name} is given only to those who accepted its terms, and this account did not: "
            f"accept them on its page, or push under another name; {_NOTHING}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise OutputError(
            f"The hub has no {name} that this account may write to: look at the owner's name; "
            f"{_NOTHING}."
        ) from error
    except errors.HfHubHTTPError as error:
        raise OutputError(_refusal(name, error)) from error
    # The client has changed the library that it asks with: what that raises is its error's base.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        why = " ".join(str(error).split())[:160]
        raise OutputError(
            f"The hub cannot be reached ({why or type(error).__name__}): look at the connection "
            f"and at HF_HUB_OFFLINE, or write the folder with --dry-run DIR; {_NOTHING}."
        ) from error


def _refusal(name: str, error: Any) -> str:
    """What an answer of the hub means, as a sentence."""
    status = error.response.status_code
    if status == 401:
        return _nobody(name)
    if status == 403:
        return (
            f"This account may not write to {name}: look at the owner's name, and log in with a "
            f"token that may write (`hf auth login`); {_NOTHING}."
        )
    if status == 409:
        return (
            f"The hub has a model {name} already: choose another name, or replace its files with "
            f"--update; {_NOTHING}."
        )
    why = " ".join(str(error).split())[:160]
    return f"The hub refused {name} ({why}): try again later; {_NOTHING}."


def _nobody(name: str) -> str:
    return (
        f"Nobody is logged in to the hub, so {name} cannot be pushed: run `hf auth login`, or set "
        f"HF_TOKEN, with a token that may write; {_NOTHING}."
    )
