"""What templates are given of tools: their own way where it is known, or our text."""

import json
from pathlib import Path
from typing import Any

import pytest

from streamtok.errors import InvalidRequest
from streamtok.testing import byte_tokenizer
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.template import ToolChatTemplate

GOLDEN = Path(__file__).with_name("golden") / "templates"
PROMPTS = json.loads((GOLDEN / "prompts.json").read_text("utf-8"))
NATIVE = ("json_calls", "xml_calls", "arguments_xml")
UNFIT = ("refusing", "everything")  # show no messages
OTHERS = sorted({path.stem for path in GOLDEN.glob("*.jinja")} - {*NATIVE, *UNFIT})
WITH_TOOLS = [name for name, chat in PROMPTS["conversations"].items() if chat["tools"]]


def load(folder: Path, name: str) -> ToolChatTemplate:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(PROMPTS["tokens"]))
    (folder / "chat_template.jinja").write_bytes((GOLDEN / f"{name}.jinja").read_bytes())
    return ToolChatTemplate(Tokenizer(folder))


def chat_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    chat = PROMPTS["conversations"][name]
    return chat["messages"], chat["tools"]


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("template", NATIVE)
def test_a_way_that_is_known_is_the_templates_own(tmp_path: Path, template: str, name: str) -> None:
    assert load(tmp_path, template).render(*chat_of(name)) == PROMPTS["prompts"][template][name]


@pytest.mark.parametrize("template", NATIVE)
def test_arguments_as_text_are_given_as_the_template_reads_them(
    tmp_path: Path, template: str
) -> None:
    messages, tools = chat_of("call")
    text = json.loads(json.dumps(messages))
    function = text[1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])
    made = load(tmp_path, template)
    assert made.render(text, tools) == made.render(messages, tools)


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("template", OTHERS)
def test_all_else_is_text_in_one_form(tmp_path: Path, template: str, name: str) -> None:
    messages, tools = chat_of(name)
    prompt = load(tmp_path, template).render(messages, tools)
    assert prompt.count("You can call functions.") == 1
    for tool in tools:
        assert prompt.count(json.dumps(tool, ensure_ascii=False)) == 1
    for message in messages:
        if message["role"] == "tool":
            assert f"<tool_response>\n{message['content']}\n</tool_response>" in prompt
        elif message.get("content"):
            assert message["content"].strip() in prompt
        for call in message.get("tool_calls") or ():
            written = json.dumps(call["function"], ensure_ascii=False)
            assert f"<tool_call>\n{written}\n</tool_call>" in prompt


def test_without_a_system_role_the_user_is_told_of_tools(tmp_path: Path) -> None:
    template = load(tmp_path, "alternating")
    user = {"role": "user", "content": "hi"}
    tool = {"type": "function", "function": {"name": "f"}}
    prompt = template.render([user], [tool])
    assert prompt.startswith("<|endoftext|><start_of_turn>user\nYou can call functions.")
    assert prompt.endswith("\n\nhi<end_of_turn>\n<start_of_turn>model\n")
    with_system = template.render([{"role": "system", "content": "Be brief."}, user], [tool])
    assert with_system == prompt.replace("You can", "Be brief.\n\nYou can", 1)
    with pytest.raises(InvalidRequest, match="System role not supported"):  # as it says itself
        template.render([{"role": "system", "content": "Be brief."}, user])


def test_results_and_what_the_user_says_next_are_one_turn(tmp_path: Path) -> None:
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {}}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ]
    prompt = load(tmp_path, "alternating").render(messages, [])
    assert "\n</tool_response>\nAnd?<end_of_turn>" in prompt
