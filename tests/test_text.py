"""Messages: lazy, with values, in every language that has a catalogue."""

import pytest

from sage_studio import text
from sage_studio.text import Text, multilingual, verbatim
from scripts import translations


def test_every_message_is_translated_and_the_compiled_catalogues_are_of_today(capsys):
    assert translations.main(["--check"]) == 0, capsys.readouterr().out


def test_messages_are_english():
    assert [message for _, message in translations.messages() if is_chinese(message)] == []


def test_values_are_put_in_when_the_text_is_shown():
    rule = Text("it must be greater than {gt}", gt=0)
    said = Text("{name}{value}: {rule}", name="epochs", value=" = 0", rule=rule)
    assert (said.en, said.zh) == ("epochs = 0: it must be greater than 0", "epochs = 0：必须大于 0")


def test_the_parts_of_a_list_have_the_comma_of_the_language():
    said = Text("Its keys: {keys}.", keys=["a", "b"])
    assert (said.en, said.zh) == ("Its keys: a, b.", "可用的字段：a、b。")


def test_the_same_english_in_two_contexts():
    assert Text("Rows").zh == "行数"
    assert Text("Rows", context="column").zh == "行"


def test_braces_of_a_text_without_values_and_of_a_value_stay():
    assert verbatim('{"a": 1}').zh == '{"a": 1}'
    assert Text("Its keys: {keys}.", keys="{0}").en == "Its keys: {0}."


def test_stored_words_are_the_text_again():
    said = Text("it must be greater than {gt}", gt=2)
    assert multilingual(said.translations()) == said == verbatim(*said.pair())
    assert hash(said) == hash(verbatim(*said.pair()))
    assert not verbatim("")
    assert not Text()


def test_a_message_without_translation_is_said_in_english():
    assert Text("no such message of {what}", what="ours").zh == "no such message of ours"
    assert Text("no such message").in_("xx") == "no such message"


def test_a_third_language_is_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(translations, "LOCALE", tmp_path)
    monkeypatch.setattr(translations, "PROJECT", tmp_path)
    monkeypatch.setattr(translations, "messages", lambda: {("", "{count} files"): {"count"}})
    assert translations.main(["--add", "de"]) == 1  # nothing is translated yet
    catalogue = tmp_path / "de" / "LC_MESSAGES" / "sage_studio.po"
    catalogue.write_text(catalogue.read_text().replace('msgstr ""', 'msgstr "{count} Dateien"'), encoding="utf-8")
    assert translations.main([]) == 0
    monkeypatch.setattr(text, "LOCALE", tmp_path)
    monkeypatch.setattr(text, "LANGUAGES", text.found_languages())
    text.catalogue.cache_clear()
    assert text.LANGUAGES == ("en", "de")
    assert text.language_of("de-AT, en") == "de"
    assert Text("{count} files", count=3).translations() == {"en": "3 files", "de": "3 Dateien"}
    text.catalogue.cache_clear()


@pytest.mark.parametrize(
    ("translation", "said"),
    [("", "not translated"), ("{many} Dateien", "has no value many"), ("{count Dateien", "is no template")],
)
def test_a_translation_that_does_not_fit_is_told(translation, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(translations, "LOCALE", tmp_path)
    monkeypatch.setattr(translations, "PROJECT", tmp_path)
    monkeypatch.setattr(translations, "messages", lambda: {("", "{count} files"): {"count"}})
    translations.main(["--add", "de"])
    catalogue = tmp_path / "de" / "LC_MESSAGES" / "sage_studio.po"
    catalogue.write_text(f'msgid "{{count}} files"\nmsgstr "{translation}"\n', encoding="utf-8")
    assert translations.main(["--check"]) == 1
    assert said in capsys.readouterr().out


def is_chinese(words: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in words)
