"""``diptych push``: a backbone to the Hugging Face hub, with a model card.

Three files are sent and nothing else: ``model.safetensors``, ``config.json`` (timm's where timm can build the backbone,
else the card alone) and ``README.md``. They are said by name and size before anything is sent.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from diptych.config import to_dict
from diptych.errors import ConfigError, RunFolderError, UserError, byte_size, typed
from diptych.frozen import FrozenBackbone, load, open_finished
from diptych.handoff.card import KEY, HandoffCard, card_of
from diptych.handoff.export import reference
from diptych.handoff.folders import CONFIG_FILE, README, WEIGHTS_FILE, refuse_used
from diptych.handoff.model_card import measured_in, model_card
from diptych.handoff.parity import compare, refuse_unlike
from diptych.handoff.pictures import pictures_for
from diptych.handoff.timm_folder import run_timm, why_not_timm, write_timm
from diptych.handoff.weights import load_backbone, write_weights
from diptych.progress import Terminal
from diptych.runs import RunFolder, read_versioned, write_json, write_text, writing_errors, writing_folder

Told: TypeAlias = Callable[[Mapping[str, Any]], str]
"""Puts the result of an evaluation into words: ``evaluation.table.as_text``."""
NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
"""Of a user or a repository, as the hub has them."""
DRY = "--dry-run FOLDER"
TOKEN = "make one with the right to write at https://huggingface.co/settings/tokens, then type `hf auth login`"


class HubError(UserError):
    """The Hugging Face hub cannot be reached, or does not let us in."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was sent, or would have been."""

    repo: str
    address: str | None
    """Of the page on the hub; None where nothing was sent."""
    folder: Path | None
    """Where the files of a dry run lie; None where they were sent."""
    files: tuple[tuple[str, int], ...]
    """Name and bytes of each file."""
    difference: float
    """The largest between two features of the run and of what was written."""
    sentence: str
    """The comparison with the run, for people."""


def push(
    run: str | Path,
    repo: str,
    *,
    told: Told,
    dry_run: str | Path | None = None,
    licence: str | None = None,
    public: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    terminal: Terminal | None = None,
) -> Pushed:
    """Write weights, configuration and model card, compare them with the run, and send them to the hub.

    Args:
        run: a finished run.
        repo: ``user/name``; it is made where it is not there.
        told: puts an evaluation of the run into words.
        dry_run: a folder to write the files to, instead of sending them.
        licence: under which others may use the weights; "not stated" if None.
        public: whether a repository that is made can be seen by everybody; one that is there stays as it is.
        data: pictures to compare on, as for ``export``.
        data_dir: where the archive of the named data set ``data`` lies.
        terminal: where to speak; silent if None.

    Raises:
        RunFolderError: there is no such run, it has not finished, or what was written computes something else.
        ConfigError: ``repo`` is no name of a repository, or huggingface_hub is missing.
        DataError: the folder of the dry run is there already, or there are no pictures to compare on.
        HubError: there is no token, or the hub cannot be reached, or refuses.
    """
    terminal = terminal or Terminal(quiet=True)
    if not re.fullmatch(f"{NAME}/{NAME}", repo) or ".." in repo or "--" in repo or repo.endswith(".git"):
        raise ConfigError(
            f"'{repo}' is no name of a repository: type USER/NAME, each of at most 96 letters, digits, '_', and inside "
            "'-' and '.', and without .git"
        )
    out = None if dry_run is None else Path(os.path.expanduser(dry_run))
    folder, about = open_finished(run)
    made = about.preprocessing
    if out is None:
        _refuse_without_token(run, repo)
    else:
        refuse_used(out, option="--dry-run", overwrite=None, is_folder=True)
    backbone = load(run, "cpu")
    by_timm = why_not_timm(about.backbone, made) is None
    card = card_of(folder, about, backbone.module, "timm" if by_timm else "safetensors", licence)
    pictures, _ = pictures_for(made, folder.read_card()["config"], data, data_dir)
    with _place(out) as place:
        _write(place, backbone, card, model_card(repo, card, _measured(folder, told), by_timm=by_timm))
        if by_timm:
            found = run_timm(place, pictures, made)
        else:
            read, theirs = load_backbone(place / WEIGHTS_FILE, "cpu")
            found = reference(read, theirs, pictures)
        parity = compare(reference(backbone, card, pictures), found)
        refuse_unlike(parity, card.form)
        files = tuple((file.name, file.stat().st_size) for file in sorted(place.iterdir()))
        listed = ", ".join(f"{name} ({byte_size(size)})" for name, size in files)
        terminal.say(f"{'would send' if out else 'sending'} to {repo}: {listed}")
        if out is None:
            address = _send(place, repo, [name for name, _ in files], public=public)
        else:
            address = None
            refuse_used(out, option="--dry-run", overwrite=None, is_folder=True)
    return Pushed(
        repo=repo,
        address=address,
        folder=out,
        files=files,
        difference=parity.difference,
        sentence=parity.sentence,
    )


@contextlib.contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    """Yield the folder to write to: that of a dry run, or one that is gone afterwards."""
    if out is not None:
        with writing_folder(out) as place:
            yield place
    else:
        with (
            writing_errors(Path("a temporary folder"), "free some space, or name another place in TMPDIR"),
            tempfile.TemporaryDirectory(prefix="diptych-push-") as place,
        ):
            yield Path(place)


def _write(place: Path, backbone: FrozenBackbone, card: HandoffCard, readme: str) -> None:
    if card.form == "timm":
        write_timm(place, backbone.module, card)
    else:
        write_weights(place / WEIGHTS_FILE, backbone.module, card)
        write_json(place / CONFIG_FILE, {KEY: to_dict(card)})
    write_text(place / README, readme)


def _measured(run: RunFolder, told: Told) -> list[tuple[str, str]]:
    measured = []
    for path in sorted(run.evaluation.glob("*.json")):
        result = read_versioned(path)
        try:
            measured.append(measured_in(result, told(result)))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunFolderError(
                f"{path} is damaged ({type(error).__name__}: {error}): delete it, or type `diptych evaluate` again"
            ) from error
    return measured


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("push needs huggingface_hub: type `pip install 'diptych[hub]'`") from error
    return huggingface_hub


def _refuse_without_token(run: str | Path, repo: str) -> None:
    if not _hub().get_token():
        dry = typed("diptych push", run, repo, "--dry-run", "FOLDER")
        raise HubError(f"there is no token of the Hugging Face hub: {TOKEN}; or see what would be sent: {dry}")


def _send(place: Path, repo: str, names: list[str], *, public: bool) -> str:
    """Send the files of those names, in one commit; returns the address of the page."""
    api = _hub().HfApi(library_name="diptych")
    from huggingface_hub.errors import HfHubHTTPError as refused

    broken: Any = refused.__bases__[0]  # of httpx or requests, by the version of huggingface_hub
    try:
        address = str(api.create_repo(repo, private=not public, exist_ok=True))
        api.upload_folder(
            repo_id=repo, folder_path=place, allow_patterns=names, commit_message="Backbone pretrained with diptych"
        )
    except refused as error:
        code = error.response.status_code
        why = f"the hub refused to write {repo} ({code})"
        if code in (401, 403):
            raise HubError(f"{why}: the token is not valid, or may not write there; {TOKEN}") from error
        raise HubError(f"{why}: {_last_line(error)}; type the command again, or keep the files with {DRY}") from error
    except (broken, OSError) as error:
        raise HubError(
            f"the hub at {api.endpoint} cannot be reached ({type(error).__name__}): check the network and type the "
            f"command again; or keep what would be sent with {DRY}"
        ) from error
    except Exception as error:  # what huggingface_hub itself refuses, or cannot read, has no class in common
        raise HubError(
            f"huggingface_hub did not send {repo} to {api.endpoint} ({_last_line(error)}): keep the files with {DRY}"
        ) from error
    return address


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
