from pathlib import Path

from parallax.errors import HubError


def push_folder(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a model folder to the Hugging Face hub, making the repository if need be.

    Args:
        folder: every file in it is uploaded, in one commit.
        name: OWNER/NAME, or NAME under the account of the token.
        private: visibility of a repository that is made; one that exists keeps its own.

    Returns:
        The address of the repository.

    Raises:
        HubError: no token, not allowed, or unreachable; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Export from Parallax")
    except Exception as error:  # the library passes on whatever its HTTP client and its uploader raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HubError(
            f"{name} was not pushed to {api.endpoint}: {reason}; {folder} is complete: check the connection and "
            f"the token (HF_TOKEN, or `hf auth login`), then: hf upload {name} {folder}"
        ) from error
    return str(url)
