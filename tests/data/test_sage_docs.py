"""The documentation from every kind of address, kept until a good one takes its place."""

import json
import os
import shutil
import sys
from pathlib import Path

import git
import psutil
import pytest

from sage_studio.data.documents import git as cloning
from sage_studio.data.documents.git import CloneFailed, clone
from sage_studio.data.sources.local import UploadSource
from sage_studio.data.sources.sage_docs import SAGEDocsProcessor
from sage_studio.errors import DocsUnavailable, InvalidSetting, StorageFull
from sage_studio.settings import Settings, load_settings

SECTION = "This section says something that is long enough to be a row of its own."


@pytest.fixture
def repository(tmp_path) -> Path:
    """A git repository with a documentation, another folder and a link that leads out of it."""
    folder = tmp_path / "repository"
    (folder / "docs_src").mkdir(parents=True)
    (folder / "other").mkdir()
    (folder / "docs_src" / "guide.md").write_text(f"# Guide\n\n{SECTION}\n", encoding="utf-8")
    (folder / "other" / "big.md").write_text("# Not asked for\n", encoding="utf-8")
    (tmp_path / "secret.md").write_text(f"# Secret\n\n{SECTION} Not for you.\n", encoding="utf-8")
    (folder / "docs_src" / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "docs_src" / "links").symlink_to(tmp_path)
    git.Repo.init(folder, initial_branch="main")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    repository = git.Repo(folder)
    with repository.config_writer() as config:
        config.set_value("user", "name", "test").set_value("user", "email", "test@localhost")
    repository.git.add(A=True)
    repository.git.commit("--quiet", "--allow-empty", "--message=docs")
    return repository.head.commit.hexsha


def processor(settings: Settings, address: object, **more: str) -> SAGEDocsProcessor:
    return SAGEDocsProcessor(load_settings(home=settings.home, docs_repo=str(address), **more))


def rows_of(docs: SAGEDocsProcessor, **how: bool) -> list[dict]:
    return json.loads(docs.prepare_training_data(**how).read_text(encoding="utf-8"))


def test_the_whole_documentation_becomes_good_rows(settings, docs_repository):
    docs = processor(settings, docs_repository)
    docs.download_docs()
    rows = SAGEDocsProcessor(load_settings(home=settings.home, docs_repo=docs_repository)).convert_markdown_to_qa()
    assert rows_of(docs) == rows
    assert len({row["instruction"] for row in rows}) == len(rows)
    assert len({" ".join(row["output"].split()) for row in rows}) == len(rows)
    assert max(len(row["output"]) for row in rows) <= 3000
    assert all(row["origin"]["commit"] == docs.commit and len(docs.commit) == 40 for row in rows)
    for row in rows:
        lines = (settings.docs_dir / row["origin"]["file"]).read_text(encoding="utf-8").splitlines()
        assert row["origin"]["heading"]
        assert row["input"] == ""
        assert row["origin"]["row"] == 1 or lines[row["origin"]["row"] - 1].lstrip()  # the line of a real heading
    assert any(row["instruction"].startswith("请介绍") for row in rows)
    assert any(row["instruction"].startswith("Explain") for row in rows)


def test_no_row_is_titled_by_text_inside_a_fence(settings, docs_repository):
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        from docs_quality import lines_in_fences
    finally:
        sys.path.pop(0)
    docs = processor(settings, docs_repository)
    titled = {(row["origin"]["file"], row["origin"]["row"]) for row in rows_of(docs)}
    for file in {file for file, _ in titled}:
        fenced = lines_in_fences((settings.docs_dir / file).read_text(encoding="utf-8"))
        assert not [line for name, line in titled if name == file and line in fenced - {1}]


def test_statistics_and_the_written_file_agree(settings, repository):
    docs = processor(settings, repository)
    (row,) = rows_of(docs)
    chars = len(row["instruction"]) + len(row["output"])
    stats = docs.get_stats()
    assert (stats["total_samples"], stats["total_chars"], stats["avg_chars_per_sample"]) == (1, chars, chars)
    assert 0 < stats["estimated_tokens"] < chars
    uploaded = list(UploadSource(settings.docs_data_path, 1 << 20).examples())
    assert [each.completion for each in uploaded] == [each.completion for each in docs.examples()]


@pytest.mark.parametrize("kind", ["folder", "file", "bundle", "bare"])
def test_every_kind_of_git_address(settings, repository, tmp_path, kind):
    address = {
        "folder": str(repository),
        "file": repository.as_uri(),
        "bundle": str(tmp_path / "docs.bundle"),
        "bare": str(tmp_path / "bare.git"),
    }[kind]
    git.Repo(repository).git.bundle("create", str(tmp_path / "docs.bundle"), "HEAD", "main")
    git.Repo.clone_from(repository, tmp_path / "bare.git", bare=True)
    docs = processor(settings, address)
    (row,) = rows_of(docs)
    assert row["output"] == SECTION
    assert row["origin"] == {
        "file": "docs_src/guide.md",
        "row": 1,
        "heading": ["Guide"],
        "commit": git.Repo(repository).head.commit.hexsha,
    }
    assert docs.source == address


def test_only_the_folder_asked_for_is_checked_out(settings, repository):
    processor(settings, repository).download_docs()
    assert (settings.docs_dir / "docs_src" / "guide.md").is_file()
    assert not (settings.docs_dir / "other").exists()


def test_a_plain_folder_is_copied_and_known_by_its_content(settings, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a.md").write_text(f"# A\n\n{SECTION}", encoding="utf-8")
    (folder / "link.md").symlink_to("/etc/hostname")
    docs = processor(settings, folder)
    (row,) = rows_of(docs)
    assert row["origin"]["file"] == "a.md"
    assert str(docs.commit).startswith("sha256:")
    first = docs.commit
    (folder / "a.md").write_text(f"# A\n\n{SECTION} Changed.", encoding="utf-8")
    assert rows_of(docs)[0]["output"] == SECTION
    assert rows_of(docs, force_refresh=True)[0]["output"].endswith("Changed.")
    assert docs.commit != first


def test_links_are_not_followed_out_of_the_repository(settings, repository):
    assert not [row for row in rows_of(processor(settings, repository)) if "Not for you" in row["output"]]


def test_the_copy_is_used_until_a_refresh(settings, repository):
    docs = processor(settings, repository)
    first = docs.commit
    assert first is None
    rows_of(docs)
    first = docs.commit
    (repository / "docs_src" / "guide.md").write_text(f"# Guide\n\n{SECTION} Second.\n", encoding="utf-8")
    second = commit(repository)
    rows_of(docs)
    assert docs.commit == first
    assert rows_of(docs, force_refresh=True)[0]["output"].endswith("Second.")
    assert docs.commit == second


def test_a_copy_of_another_address_branch_or_folder_is_not_used(settings, repository, tmp_path):
    git.Repo(repository).git.branch("next")
    rows_of(processor(settings, repository))
    other = tmp_path / "other-docs"
    shutil.copytree(repository / "docs_src", other, symlinks=True)
    for docs in (
        processor(settings, other),
        processor(settings, repository, docs_branch="next"),
        processor(settings, repository, docs_folder="."),
    ):
        assert docs.commit is None


@pytest.mark.parametrize("fault", ["gone", "branch", "folder", "nothing usable", "disk"])
def test_a_failed_refresh_leaves_the_good_copy(settings, repository, monkeypatch, fault):
    docs = processor(settings, repository)
    rows, good = rows_of(docs), docs.commit
    expected: type[Exception] = DocsUnavailable
    if fault == "gone":
        shutil.move(repository, repository.with_name("moved"))
    elif fault == "branch":
        git.Repo(repository).git.checkout("--quiet", "--orphan", "empty")
        git.Repo(repository).git.rm("-rfq", ".")
        commit(repository)
    elif fault == "folder":
        shutil.move(repository / "docs_src", repository / "renamed")
        commit(repository)
    elif fault == "nothing usable":
        (repository / "docs_src" / "guide.md").write_text("# Guide\n", encoding="utf-8")
        commit(repository)
    else:
        expected = StorageFull
    with monkeypatch.context() as patch:
        if fault == "disk":
            patch.setattr("sage_studio.data.sources.sage_docs.write_atomically", no_room)
        with pytest.raises(expected) as caught:
            docs.prepare_training_data(force_refresh=True)
    if expected is DocsUnavailable:
        assert str(repository) in caught.value.message.en
        assert good is not None
        assert good[:14] in caught.value.hint.en
        assert good[:14] in caught.value.hint.zh
    assert docs.commit == good
    assert rows_of(processor(settings, repository)) == rows
    assert sorted(path.name for path in settings.root.iterdir()) == ["sage_docs", "sage_docs_finetune_data.json"]


def no_room(path: Path, text: str) -> None:
    raise OSError(28, os.strerror(28))


def test_no_network_says_address_cause_and_remedy_without_the_password(settings):
    docs = processor(settings, "https://me:secret@127.0.0.1:9/docs.git")
    with pytest.raises(DocsUnavailable) as caught:
        docs.prepare_training_data()
    said = caught.value.say("en") + caught.value.say("zh")
    assert "https://127.0.0.1:9/docs.git" in said
    assert "SAGE_STUDIO_DOCS_REPO" in said
    assert "secret" not in said
    assert "secret" not in docs.source
    assert not settings.docs_dir.exists()


@pytest.mark.parametrize("address", ["ext::sh -c id", "-oProxyCommand=id", "/nowhere/at/all", ""])
def test_an_address_that_is_none_is_refused(settings, address):
    with pytest.raises(DocsUnavailable):
        processor(settings, address).prepare_training_data()


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc/../..", "a/../../b", "--stdin"])
def test_a_folder_outside_the_repository_is_refused(settings, repository, folder):
    with pytest.raises(InvalidSetting, match=r"leads out of the repository"):
        processor(settings, repository, docs_folder=folder).prepare_training_data()


def test_a_copy_moved_aside_by_a_crash_is_put_back(settings, repository):
    docs = processor(settings, repository)
    rows = rows_of(docs)
    settings.docs_dir.rename(settings.docs_dir.with_name("sage_docs.old"))
    (settings.root / "sage_docs.new-left").mkdir()
    shutil.move(repository, repository.with_name("moved"))
    again = processor(settings, repository)
    with pytest.raises(DocsUnavailable):
        again.prepare_training_data(force_refresh=True)
    assert rows_of(again) == rows
    assert not (settings.root / "sage_docs.new-left").exists()


def test_progress_is_told(settings, repository, tmp_path):
    git.Repo(repository).git.bundle("create", str(tmp_path / "docs.bundle"), "HEAD", "main")
    told = []
    processor(settings, tmp_path / "docs.bundle").prepare_training_data(on_progress=lambda *each: told.append(each))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert len(told) > 0
    assert shares[-1] == 1.0
    assert all(words.en and words.zh for _, words in told)
    assert any("文档" in words.zh for _, words in told)


def test_progress_never_goes_back_when_git_begins_to_count_another_thing(tmp_path):
    told = []
    job = cloning._Clone("", "", ".", tmp_path, lambda share, _: told.append(share), 0.0, {})
    for share in (0.0, 0.5, 0.0, 0.3, 0.7):
        job.tell(share, "")
    assert told == [0.0, 0.5, 0.5, 0.5, 0.7]


def test_a_clone_without_end_is_stopped(tmp_path, monkeypatch):
    stalled = tmp_path / "bin" / "git"
    stalled.parent.mkdir()
    stalled.write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\nexec sleep 3600\n')
    stalled.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stalled.parent}:{os.environ['PATH']}")
    with pytest.raises(CloneFailed, match="no end after the time allowed"):
        clone("https://127.0.0.1:9/x.git", "", ".", tmp_path / "copy", lambda *_: None, seconds=0.3)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text())), "git was ended, not waited for"


def test_git_that_cannot_be_thrifty_clones_plainly(repository, tmp_path, monkeypatch):
    asked = []
    real = cloning._Clone.clone

    def dumb(job, options):
        asked.append(options)
        if options:
            raise git.GitCommandError("clone", 128, "fatal: dumb http transport does not support shallow capabilities")
        return real(job, options)

    monkeypatch.setattr(cloning._Clone, "clone", dumb)
    assert clone(str(repository), "", "docs_src", tmp_path / "copy", lambda *_: None)
    assert asked == [cloning.THRIFTY, ()]
    assert (tmp_path / "copy" / "other").exists()


def test_git_never_asks_for_a_password():
    assert cloning.NEVER_ASK["GIT_TERMINAL_PROMPT"] == "0"
    assert cloning.NEVER_ASK["SSH_ASKPASS_REQUIRE"] == "force"
    assert cloning.NEVER_ASK["SSH_ASKPASS"] == "false"
