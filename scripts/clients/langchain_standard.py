"""LangChain's own standard tests of a chat model, against a running server.

usage: langchain_standard.py [URL]

Needs `langchain-openai`, `langchain-anthropic`, `langchain-tests` and `pytest-asyncio`. They run
three times: by Chat Completions, by Responses and by Messages. Tests of what this server does not
have (images, audio, files) are switched off by the properties that LangChain has for that.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from serving import server

URL = os.environ.get("STREAMTOK_URL", "")


class Served(ChatModelIntegrationTests):
    """What the three have in common; answers are bounded, since the model is a small one."""

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": [], "stream": []}


class TestChatCompletions(Served):
    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "fireside",
            "base_url": f"{URL}/v1",
            "api_key": "none",
            "max_retries": 0,
            "temperature": 0,
            "max_tokens": 256,
            "stream_usage": True,
        }


class TestResponses(TestChatCompletions):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"use_responses_api": True}


class TestMessages(Served):
    @property
    def chat_model_class(self) -> type[ChatAnthropic]:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "fireside",
            "base_url": URL,
            "api_key": "none",
            "max_retries": 0,
            "temperature": 0,
            "max_tokens": 256,
        }


if __name__ == "__main__":
    with server() as url:
        os.environ["STREAMTOK_URL"] = url
        options = [
            *("-q", "-rfE", "--disable-warnings", "-p", "no:cacheprovider", "-c", os.devnull),
            os.environ.get("CLIENTS_TRACEBACK", "--tb=line"),
            # Its clients are kept from test to test, and so must the loop be that they belong to
            *("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
        ]
        sys.exit(pytest.main([__file__, *options]))
