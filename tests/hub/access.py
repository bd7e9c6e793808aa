"""Who is calling, and which repository they may see, read or change."""

from .errors import HubError, login_required, repo_not_found
from .http import Call
from .state import Hub, User
from .store import Repo


def caller(hub: Hub, call: Call) -> User | None:
    """The user of the request's token; None without a token."""
    header = call.headers.get("authorization")
    if header is None:
        return None
    user = hub.users.get(header.removeprefix("Bearer "))
    if user is None:
        # The client knows this text: without it, it would report a missing repository.
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def logged_in(hub: Hub, call: Call) -> User:
    """The user of the request's token, which must be there."""
    user = caller(hub, call)
    if user is None:
        raise login_required()
    return user


def writer(hub: Hub, call: Call) -> User:
    """The user of a token that may write."""
    user = logged_in(hub, call)
    if user.read_only:
        raise HubError(403, "Forbidden: pass a token with the write role")
    return user


def visible_repo(hub: Hub, call: Call) -> Repo:
    """The repository of the request's path, for its metadata; private ones do not exist for strangers."""
    user = caller(hub, call)
    repo = hub.store.find(call.args["repo"])
    if repo is None or (repo.private and not (user and user.owns(repo.namespace))):
        raise repo_not_found(anonymous=user is None)
    return repo


def readable_repo(hub: Hub, call: Call) -> Repo:
    """The repository, for the contents of its files, which gating protects."""
    repo, user = visible_repo(hub, call), caller(hub, call)
    if not repo.gated or (user and (user.owns(repo.namespace) or user.name in repo.granted)):
        return repo
    refusal = f"Access to model {repo.id} is restricted"
    if user is None:
        raise HubError(401, f"{refusal}. You must be authenticated to access it. Please log in.", "GatedRepo")
    raise HubError(403, f"{refusal} and you are not in the authorized list.", "GatedRepo")


def writable_repo(hub: Hub, call: Call, *, contributing: bool = False) -> tuple[Repo, User]:
    """The repository and the writing user; `contributing` to a pull request takes no ownership."""
    repo, user = visible_repo(hub, call), writer(hub, call)
    if not contributing and not user.owns(repo.namespace):
        raise HubError(403, f"Forbidden: you must be a member of {repo.namespace} with write access")
    return repo, user
