"""Documents as a source of rows: provenance, passages, repositories, and a reader that dies over one of them."""

import subprocess

import pytest
from made_files import docx, pdf, zipped

from sage_studio.data.documents.git import RepositoryDocuments
from sage_studio.data.readers import convert_child
from sage_studio.data.readers.convert import ConversionFailed, Converter
from sage_studio.data.readers.convert_child import html_to_markdown, paragraphs_of, without_running_heads
from sage_studio.data.readers.file_type import FileType
from sage_studio.data.rows import Example, Passage
from sage_studio.data.sources.documents import DocumentSource
from sage_studio.data.sources.local import source_of_file
from sage_studio.errors import DocsUnavailable, InvalidInput

LIMIT = 64 << 20
FIRST = "The first section has enough words to become a row of the dataset without any other beside it."
SECOND = "第二节讲的是完全不同的内容，包括窗口、数据源和汇聚算子，文字足够长，可以单独成为一行。"


def rows_of(path, content, rows="questions"):
    path.write_bytes(content)
    return list(source_of_file(path, LIMIT, rows=rows).examples())


def test_a_pdf_gives_its_outline_and_pages_as_provenance(tmp_path):
    content = pdf([["Start", FIRST], ["配置", SECOND]], [("Start", 1), ("配置", 2)])
    rows = rows_of(tmp_path / "manual.pdf", content)
    assert [(row.origin.heading, row.origin.page, row.origin.row) for row in rows] == [
        (("manual", "Start"), 1, None),
        (("manual", "配置"), 2, None),
    ]
    assert [row.completion for row in rows] == [FIRST, SECOND]
    assert [row.asked for row in rows] == ["Explain manual › Start.", "请介绍 manual › 配置 的内容"]


def test_a_pdf_without_outline_is_split_where_its_pages_are(tmp_path):
    pages = [[f"Line {n} tells of {word} and of nothing else." for n in range(30)] for word in ("rain", "snow", "hail")]
    rows = rows_of(tmp_path / "book.pdf", pdf(pages))
    assert [row.origin.page for row in rows] == [1, 2, 3]
    assert rows[1].asked == "Explain book (part 2 of 3)."


def test_running_heads_and_page_numbers_are_no_text():
    words = ["rain", "snow", "hail", "wind", "sun"]
    pages = [["The Manual", f"of {w}", "more of it", f"and {w} again", "", f"- {n} -"] for n, w in enumerate(words)]
    assert without_running_heads(pages)[2] == ["of hail", "more of it", "and hail again", ""]


def test_lines_are_joined_as_their_language_asks():
    assert list(paragraphs_of(["这一行写满了整个页面的宽度直到", "最右边，然后结束。"])) == [
        "这一行写满了整个页面的宽度直到最右边，然后结束。"
    ]
    assert list(paragraphs_of(["a line that ends in a hy-", "phen goes on on the next"])) == [
        "a line that ends in a hyphen goes on on the next"
    ]


def test_html_keeps_what_is_said():
    page = (
        "<html><head><title>Guide</title><script>evil()</script></head><body><nav>Home</nav><main><h2>Use</h2>"
        '<p>Run <a href="x">it</a>.</p><pre><code class="language-python">a &lt; b</code></pre></main>'
        "<footer>Imprint</footer></body></html>"
    )
    markdown = html_to_markdown(page)
    assert markdown.startswith("# Guide")
    assert "```python\na < b\n```" in markdown
    assert not any(word in markdown for word in ("evil", "Home", "Imprint"))


def test_a_word_document_gives_its_headings(tmp_path):
    content = docx(("Heading1", "Setup"), ("", FIRST), ("Heading2", "以后"), ("", SECOND))
    rows = rows_of(tmp_path / "a.docx", content)
    assert [row.origin.heading for row in rows] == [("Setup",), ("Setup", "以后")]


def test_documents_become_passages_where_asked(tmp_path):
    rows = rows_of(tmp_path / "a.md", f"# A\n\n{FIRST}\n\n## B\n\n{SECOND}".encode(), rows="passages")
    assert all(isinstance(row, Passage) for row in rows)
    assert [(row.text, row.origin.heading) for row in rows] == [(FIRST, ("A",)), (SECOND, ("A", "B"))]


def test_chinese_names_in_a_zip_of_windows_are_read(tmp_path):
    path = tmp_path / "a.zip"
    raw = zipped({"zzzz.md": f"# A\n\n{FIRST}"}).replace(b"zzzz.md", "文档".encode("gbk") + b".md")
    (row,) = rows_of(path, raw)
    assert row.origin.file == "文档.md"


def test_one_bad_document_is_left_out_and_named(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.md": f"# A\n\n{FIRST}", "b.pdf": b"%PDF-1.4 rubbish", "c.txt": b"\xff\xfe\x00"}))
    source = source_of_file(path, LIMIT)
    assert len(list(source.examples())) == 1
    assert sorted(place for dropped in source.dropped for place in dropped.rows) == ["b.pdf", "c.txt"]


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "docs-repo"
    (root / "guide").mkdir(parents=True)
    (root / "guide" / "a.md").write_text(f"# A\n\n{FIRST}", encoding="utf-8")
    (root / "guide" / "b.txt").write_text(SECOND, encoding="utf-8")
    (root / "other.md").write_text(f"# Other\n\n{FIRST} But not in the guide.", encoding="utf-8")
    (root / "guide" / "link.md").symlink_to("/etc/hostname")
    return root


def committed(root):
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def source_of(documents):
    return DocumentSource(documents.files, documents.name, documents.address, commit=lambda: documents.commit)


def test_a_repositorys_folder_gives_rows_with_its_commit(repository, tmp_path):
    commit = committed(repository)
    documents = RepositoryDocuments(f"file://{repository}", "", "guide", tmp_path / "work")
    source = source_of(documents)
    rows = list(source.examples())
    assert [row.origin.file for row in rows] == ["guide/a.md", "guide/b.txt"]
    assert {row.origin.commit for row in rows} == {source.commit} == {commit}
    assert source.name == "docs-repo-guide"
    assert list((tmp_path / "work").iterdir()) == []


def test_without_a_folder_the_whole_repository_is_read(repository, tmp_path):
    committed(repository)
    rows = list(source_of(RepositoryDocuments(f"file://{repository}", "", "", tmp_path / "work")).examples())
    assert any(row.origin.file.startswith("guide/") for row in rows)


def test_a_plain_folder_is_read_where_it_lies(repository, tmp_path):
    rows = list(source_of(RepositoryDocuments(str(repository), "", "", tmp_path)).examples())
    assert len(rows) == 3
    assert all(isinstance(row, Example) for row in rows)


@pytest.mark.parametrize("folder", ["../other", "/etc", "-x", "a/../../b"])
def test_a_folder_outside_is_refused(repository, tmp_path, folder):
    if folder == "/etc":
        folder = "//etc"
    with pytest.raises((InvalidInput, DocsUnavailable)):
        list(source_of(RepositoryDocuments(str(repository), "", folder, tmp_path)).examples())


@pytest.mark.parametrize("address", ["", "file:///nowhere/at/all", "ext::sh -c true"])
def test_a_repository_that_is_not_there_is_said_so(tmp_path, address):
    with pytest.raises((InvalidInput, DocsUnavailable)) as refused:
        list(source_of(RepositoryDocuments(address, "", "", tmp_path)).examples())
    assert refused.value.hint.zh


def test_the_reader_starts_again_after_a_document_that_killed_it():
    with Converter() as converter:
        with pytest.raises(ConversionFailed, match="Failed to load"):
            converter.convert(FileType.PDF, b"%PDF-1.4 rubbish")
        assert converter.convert(FileType.HTML, b"<h1>a</h1>")["markdown"].strip() == "# a"


def test_a_document_that_takes_too_long_is_given_up():
    with Converter(seconds=0.01) as converter, pytest.raises(ConversionFailed, match=r"no end after"):
        converter.convert(FileType.HTML, b"<p>" * 20_000)


@pytest.mark.parametrize(
    ("platform", "hard", "limit"), [("linux", -1, 3 << 30), ("linux", 1 << 30, 1 << 30), ("darwin", -1, None)]
)
def test_the_memory_of_the_converter_is_limited_where_the_system_can(monkeypatch, platform, hard, limit):
    """macOS refuses a limit of the address space: `setrlimit` raises ValueError there."""
    resource, limits = pytest.importorskip("resource"), {}
    monkeypatch.setattr(convert_child.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    convert_child._limit_memory()
    assert limits == {resource.RLIMIT_CORE: (0, 0)} | ({resource.RLIMIT_AS: (limit, limit)} if limit else {})
