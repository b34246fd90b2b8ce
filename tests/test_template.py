"""Chat templates: what they may use, what they may not, and what they can do wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamtok.errors import InvalidRequest, ModelError
from streamtok.testing import byte_tokenizer, write_model
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>ü</b>"}]
Make = Callable[..., ChatTemplate]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function from the settings of tokenizer_config.json to a template."""

    def make(**settings: Any) -> ChatTemplate:
        byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return ChatTemplate(Tokenizer(tmp_path))

    return make


def test_a_model_without_a_template_gets_a_plain_one(make: Make) -> None:
    assert make().render(MESSAGES) == "system: Be brief.\nuser: Hi <b>ü</b>\nassistant:"


def test_of_several_templates_the_default_is_used(make: Make) -> None:
    entries = [{"name": "rag", "template": "rag"}, {"name": "default", "template": "this"}]
    assert make(chat_template=entries).render(MESSAGES) == "this"


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        pytest.param("{{ bos_token }}{{ unk_token }}{{ eos_token }}", "<s></s>", id="tokens"),
        pytest.param("{% if add_generation_prompt %}go{% endif %}", "go", id="generation prompt"),
        pytest.param("{{ messages[1]['content'] }}", "Hi <b>ü</b>", id="no escapes"),
        pytest.param("{{ messages[1].content | tojson }}", '"Hi <b>ü</b>"', id="tojson"),
        pytest.param("{{ [1] | tojson(indent=2) }}", "[\n  1\n]", id="tojson with indent"),
        pytest.param("{{ strftime_now('%%') }}", "%", id="strftime_now"),
        pytest.param(
            "{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "system", id="break"
        ),
        pytest.param("  {% if true %}\n  a\n  {% endif %}\n", "  a\n", id="trimmed blocks"),
        pytest.param("{% if tools %}tools{% endif %}no", "no", id="undefined is false"),
    ],
)
def test_what_a_template_may_use(make: Make, source: str, prompt: str) -> None:
    template = make(chat_template=source, bos_token="<s>", eos_token={"content": "</s>"})
    assert template.render(MESSAGES) == prompt


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ ''.__class__.__mro__ }}", id="Python's classes"),
        pytest.param("{{ raise_exception.__globals__['json'] }}", id="Python's globals"),
        pytest.param("{{ messages.append(1) }}", id="changing the messages"),
        pytest.param("{{ messages[0].update(role='user') }}", id="changing a message"),
        pytest.param("{% include 'other' %}", id="other files"),
        pytest.param("{% for i in range(10 ** 9) %}{% endfor %}", id="a very long loop"),
    ],
)
def test_what_a_template_may_not_do(make: Make, source: str) -> None:
    before = json.dumps(MESSAGES)
    with pytest.raises(InvalidRequest, match="chat template cannot render"):
        make(chat_template=source).render(MESSAGES)
    assert json.dumps(MESSAGES) == before


@pytest.mark.parametrize(
    "source",
    [
        "{{ nothing.at.all }}",
        "{{ messages[0].role + 1 }}",
        "{{ 1 / 0 }}",
        "{{ '%d' | format('x') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_whatever_fails_in_a_template_is_told_to_the_client(make: Make, source: str) -> None:
    with pytest.raises(InvalidRequest, match="chat template cannot render") as caught:
        make(chat_template=source).render(MESSAGES)
    assert caught.value.param == "messages"


def test_a_template_may_refuse_messages(make: Make) -> None:
    with pytest.raises(InvalidRequest, match="Roles must alternate"):
        make(chat_template="{{ raise_exception('Roles must alternate') }}").render(MESSAGES)


def test_a_template_that_is_no_jinja_is_an_error_of_the_model(make: Make) -> None:
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: chat_template: "):
        make(chat_template="{% for %}")


def test_the_training_tag_shows_its_contents(make: Make) -> None:
    source = "{% generation %}<{{ messages[0].role }}>{% endgeneration %}"
    assert make(chat_template=source).render(MESSAGES) == f"<{MESSAGES[0]['role']}>"


def test_a_template_in_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages | length }} messages")
    assert ChatTemplate(Tokenizer(folder)).render(MESSAGES) == f"{len(MESSAGES)} messages"
