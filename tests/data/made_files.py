"""Small real files for the tests: records in every container, PDF with pages, DOCX with headings, zips of all kinds."""

import csv
import io
import json
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
CONTENT_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)


def array(*records: Any, **options: Any) -> bytes:
    return json.dumps(records, ensure_ascii=False, **options).encode()


def lines(*records: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + end for record in records).encode()


def table(*records: dict[str, Any], delimiter: str = ",", end: str = "\n") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in record.items()}
        for record in records
    )
    return file.getvalue().encode()


def parquet(*records: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), file, **options)
    return file.getvalue()


def parquet_of(*columns: tuple[str, list[Any]]) -> bytes:
    """A Parquet file of these columns, whatever their names."""
    file = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays([pa.array(values) for _, values in columns], [name for name, _ in columns]), file
    )
    return file.getvalue()


def recoded(content: bytes, encoding: str) -> bytes:
    return content.decode().encode(encoding)


def pdf(pages: list[list[str]], outline: list[tuple[str, int]] = (), *, locked: bool = False) -> bytes:
    """A PDF whose pages hold the given lines; a character beyond ASCII goes through a font with its own table.

    Args:
        pages: lines of each page; a page without any is a blank one, as a scan is to a reader of text.
        outline: (title, page from 1) pairs.
        locked: claim an encryption that nobody has the password for.
    """
    objects: list[bytes] = [b""] * 4  # catalog, pages, font, outline
    characters = sorted({c for page in pages for line in page for c in line})
    codes = {c: n for n, c in enumerate(characters, 1)}
    ids = []
    for lines in pages:
        shown = "".join(f"<{''.join(f'{codes[c]:04x}' for c in line)}> Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 11 Tf 50 780 Td {shown}ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        ids.append(len(objects))
    table = "".join(f"<{code:04x}> <{ord(c):04x}>\n" for c, code in codes.items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /T def "
        f"1 begincodespacerange <0000> <ffff> endcodespacerange {len(codes)} beginbfchar\n{table}endbfchar "
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    ).encode()
    objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap))
    unicode_id = len(objects)
    objects.append(
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Plain /CIDSystemInfo << /Registry (Adobe) "
        b"/Ordering (Identity) /Supplement 0 >> /DW 500 /FontDescriptor << /Type /FontDescriptor "
        b"/FontName /Plain /Flags 4 /FontBBox [0 0 500 700] /ItalicAngle 0 /Ascent 700 /Descent 0 /CapHeight 700 "
        b"/StemV 80 >> >>"
    )
    objects[2] = b"<< /Type /Font /Subtype /Type0 /BaseFont /Plain /Encoding /Identity-H " + (
        b"/DescendantFonts [%d 0 R] /ToUnicode %d 0 R >>" % (len(objects), unicode_id)
    )
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(ids), b" ".join(b"%d 0 R" % n for n in ids))
    first = len(objects) + 1
    for n, (title, page) in enumerate(outline):
        links = (b" /Prev %d 0 R" % (first + n - 1) if n else b"") + (
            b" /Next %d 0 R" % (first + n + 1) if n + 1 < len(outline) else b""
        )
        name = b"<feff" + title.encode("utf-16-be").hex().encode() + b">"
        objects.append(b"<< /Title %s /Parent 4 0 R /Dest [%d 0 R /Fit]%s >>" % (name, ids[page - 1], links))
    objects[3] = (
        b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (first, len(objects), len(outline))
        if outline
        else b"<< /Type /Outlines /Count 0 >>"
    )
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>"
    trailer = b""
    if locked:
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >>")
        trailer = b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects)
    return _with_table(objects, trailer)


def docx(*blocks: tuple[str, str]) -> bytes:
    """A Word document of (style, text) paragraphs; style ``Heading1`` … or empty."""
    styled = "".join(
        f"<w:p>{f'<w:pPr><w:pStyle w:val={style!r}/></w:pPr>' if style else ''}<w:r><w:t>{text}</w:t></w:r></w:p>"
        for style, text in blocks
    )
    body = f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{styled}</w:body></w:document>'
    return zipped({"[Content_Types].xml": CONTENT_TYPES, "_rels/.rels": RELATIONS, "word/document.xml": body})


def zipped(members: dict[str, str | bytes]) -> bytes:
    """A zip of members by their names, exactly as they are given."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def zipped_link(name: str, target: str) -> bytes:
    """A zip whose only member is a symbolic link."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, target)
    return file.getvalue()


def _with_table(objects: list[bytes], trailer: bytes) -> bytes:
    out, places = b"%PDF-1.5\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF" % (
        size,
        table,
        size,
        trailer,
        len(out),
    )
