"""Chat templates: what they may use, what they may not, and what they can do wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamtok.errors import InvalidRequest, ModelError
from streamtok.testing import byte_tokenizer, write_model
from streamtok.text.template import PromptOptions
from streamtok.text.templates.chat import JinjaTemplate
from streamtok.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).with_name("golden") / "templates"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>ü</b>"}]
Make = Callable[..., JinjaTemplate]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function from the settings of tokenizer_config.json to a template."""

    def make(**settings: Any) -> JinjaTemplate:
        byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return JinjaTemplate(Tokenizer(tmp_path))

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
    with pytest.raises(ModelError, match="none is the default"):
        make(chat_template=[{"name": "rag", "template": "a"}])
    with pytest.raises(ModelError, match="expected text, or a list"):
        make(chat_template=[{"name": "rag"}])


def test_the_training_tag_shows_its_contents(make: Make) -> None:
    source = "{% generation %}<{{ messages[0].role }}>{% endgeneration %}"
    assert make(chat_template=source).render(MESSAGES) == f"<{MESSAGES[0]['role']}>"


def test_a_template_in_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages | length }} messages")
    assert JinjaTemplate(Tokenizer(folder)).render(MESSAGES) == f"{len(MESSAGES)} messages"


def test_files_of_templates_come_before_the_settings(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools | length }}")
    with pytest.raises(ModelError, match="tool_use none is the default"):
        JinjaTemplate(Tokenizer(folder))
    (folder / "chat_template.jinja").write_text("no tools")
    template = JinjaTemplate(Tokenizer(folder))
    assert template.render(MESSAGES) == "no tools"
    assert template.render(MESSAGES, [{"type": "function"}] * 2) == "2"


def test_special_tokens_have_their_names(make: Make) -> None:
    source = (
        "{{ image_token }}{{ audio_token }}{{ cls_token }}"
        "{{ sep_token is defined }}{{ add_bos_token is defined }}"
    )
    settings = {
        "image_token": "<i>",
        "extra_special_tokens": {"audio_token": "<a>"},
        "cls_token": {"__type": "AddedToken", "content": "<c>"},
        "sep_token": None,
        "add_bos_token": True,
    }
    assert make(chat_template=source, **settings).render(MESSAGES) == "<i><a><c>FalseFalse"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt"])
def test_what_has_a_field_is_no_variable(make: Make, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"use the field {name}") as caught:
        make().render(MESSAGES, (), PromptOptions(variables={name: []}))
    assert caught.value.param == f"chat_template_kwargs.{name}"


# What transformers renders; scripts/golden/templates.py made it


def golden_cases() -> Iterator[Any]:
    golden = json.loads((GOLDEN / "prompts.json").read_text("utf-8"))
    for template, prompts in golden["prompts"].items():
        for name, prompt in prompts.items():
            chat = golden["conversations"][name]
            yield pytest.param(template, chat, prompt, id=f"{template}, {name}")


@pytest.fixture(scope="module")
def golden_templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, JinjaTemplate]:
    tokens = json.loads((GOLDEN / "prompts.json").read_text("utf-8"))["tokens"]
    made = {}
    for path in GOLDEN.glob("*.jinja"):
        folder = tmp_path_factory.mktemp(path.stem)
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
        (folder / "chat_template.jinja").write_bytes(path.read_bytes())
        made[path.stem] = JinjaTemplate(Tokenizer(folder))
    return made


@pytest.mark.parametrize(("template", "chat", "prompt"), list(golden_cases()))
def test_prompts_are_those_of_transformers(
    golden_templates: dict[str, JinjaTemplate],
    template: str,
    chat: dict[str, Any],
    prompt: str | None,
) -> None:
    arguments = chat["arguments"]
    names = ("add_generation_prompt", "continue_final_message")
    fields = {name: arguments[name] for name in names if name in arguments}
    others = {name: value for name, value in arguments.items() if name not in names}
    options = PromptOptions(**fields, variables=others)
    render = golden_templates[template].render
    if prompt is None:
        with pytest.raises(InvalidRequest):
            render(chat["messages"], chat["tools"], options)
    else:
        assert render(chat["messages"], chat["tools"], options) == prompt
