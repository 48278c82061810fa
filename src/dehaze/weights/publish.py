"""Send a checkpoint and its model card to the Hub: first a plan to look at, then the upload."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dehaze.errors import ModelError
from dehaze.weights.card import card
from dehaze.weights.checkpoint import load_checkpoint, sha256_of
from dehaze.weights.hub import Address, parse
from dehaze.weights.hub_errors import CLIENT_ERRORS, explain


@dataclass(frozen=True)
class Plan:
    """An upload that has been checked and not yet begun.

    Attributes:
        address: Repository, and the file's name in it.
        checkpoint: The file here.
        sha256: Of the checkpoint.
        bytes: Size of the checkpoint.
        card: Text of the `README.md` that goes with it.
        exists: Whether the repository exists already.
        private: Whether the repository is private, or will be.
        replaces: Files in the repository that will be replaced.
    """

    address: Address
    checkpoint: Path
    sha256: str
    bytes: int
    card: str
    exists: bool
    private: bool
    replaces: tuple[str, ...]


def plan(repository: str, checkpoint: Path, *, public: bool = False) -> Plan:
    """Check that a checkpoint can be sent, and say what would be; changes nothing.

    Args:
        repository: `owner/name` on the Hub.
        checkpoint: A checkpoint of ours.
        public: Whether a repository that has to be created is to be public.

    Raises:
        ModelError: Not a checkpoint that loads, no token, no network, or the Hub refuses.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    from dehaze.models import count_parameters

    if repository.count("/") != 1:
        raise ModelError(f"'{repository}' is not a repository on the Hub", "write it as owner/name")
    address = parse(f"hf://{repository}/{checkpoint.name}")
    model, header = load_checkpoint(checkpoint)
    header = replace(header, parameters=count_parameters(model))
    if constants.HF_HUB_OFFLINE:
        raise ModelError("sending to the Hub needs a network, and HF_HUB_OFFLINE forbids one", "unset it")
    if get_token() is None:
        raise ModelError(
            "sending to the Hub needs a token with write permission",
            "set HF_TOKEN, or log in with: hf auth login",
        )
    exists, private, files = False, not public, set()
    try:
        info = HfApi().model_info(repository, timeout=10)
        exists, private = True, bool(info.private)
        files = {sibling.rfilename for sibling in info.siblings or ()}
    except GatedRepoError as error:
        raise explain(error, address) from error
    except RepositoryNotFoundError:
        exists = False
    except CLIENT_ERRORS as error:
        raise explain(error, address) from error
    sha256 = sha256_of(checkpoint)
    return Plan(
        address=address,
        checkpoint=checkpoint,
        sha256=sha256,
        bytes=checkpoint.stat().st_size,
        card=card(header, f"hf://{repository}/{checkpoint.name}", sha256),
        exists=exists,
        private=private,
        replaces=tuple(sorted(files & {checkpoint.name, "README.md"})),
    )


def send(what: Plan, *, progress: bool = False) -> Address:
    """Carry out a plan: create the repository if need be, then one commit with the checkpoint and its card.

    Args:
        what: The plan.
        progress: Let the client show its progress bar on stderr.

    Returns:
        The address of the file, by its commit.

    Raises:
        ModelError: The Hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not progress:
        disable_progress_bars()
    api = HfApi()
    repository = what.address.repository
    try:
        if not what.exists:
            api.create_repo(repository, private=what.private)
        commit = api.create_commit(
            repository,
            [
                CommitOperationAdd(what.address.file, what.checkpoint),
                CommitOperationAdd("README.md", what.card.encode()),
            ],
            commit_message=f"Upload {what.address.file} with its model card",
        )
    except CLIENT_ERRORS as error:
        raise explain(error, what.address) from error
    return Address(repository, what.address.file, commit.oid)
