"""Writes chat_builtins.txt: what llama.cpp's built-in chat templates print, for the rows of chat_builtins that it has too.

Run from the repository root with a Python that has llama-cpp-python (0.3.36 was used). Records as in template_cases.py:
    vars NAME N              N bytes of JSON: messages, generate
    output NAME VARS N       N bytes of result; NAME is our row
"""
import ctypes
import json

import llama_cpp

# our row -> llama.cpp's name
ROWS = {
    "chatml": "chatml", "llama2": "llama2-sys", "llama3": "llama3", "mistral-v1": "mistral-v1", "mistral": "mistral-v3",
    "mistral-tekken": "mistral-v3-tekken", "mistral-v7": "mistral-v7", "gemma": "gemma", "phi3": "phi3", "phi4": "phi4", "zephyr": "zephyr",
    "vicuna": "vicuna", "deepseek": "deepseek3", "deepseek2": "deepseek2", "deepseek-coder": "deepseek", "command-r": "command-r", "glm4": "chatglm4",
}
CONVERSATIONS = {
    "plain": ([("user", "Hello")], True),
    "system": ([("system", "Be brief."), ("user", "What is 2+2?")], True),
    "multi": ([("system", "Be brief."), ("user", "One"), ("assistant", "1"), ("user", "Two"), ("assistant", "2"), ("user", "Three")], True),
    "closed": ([("user", "Hello"), ("assistant", "Hi.")], False),
    "no_system": ([("user", "Grüße 世界 🎉"), ("assistant", "a\nb"), ("user", "q")], True),
    "spaces": ([("system", " s "), ("user", "  u\n"), ("assistant", "\n a "), ("user", "\tv ")], True),
}


def apply(name, messages, generate):
    keep = [(role.encode(), content.encode()) for role, content in messages]
    array = (llama_cpp.llama_chat_message * len(keep))(*[llama_cpp.llama_chat_message(role=r, content=c) for r, c in keep])
    buffer = ctypes.create_string_buffer(65536)
    n = llama_cpp.llama_chat_apply_template(name.encode(), array, len(keep), generate, buffer, len(buffer))
    assert 0 <= n < len(buffer), (name, n)
    return buffer.raw[:n]


with open("tests/golden/chat_builtins.txt", "wb") as f:
    for vars_name, (messages, generate) in CONVERSATIONS.items():
        text = json.dumps({"messages": [{"role": r, "content": c} for r, c in messages], "generate": generate}, ensure_ascii=False).encode()
        f.write(f"vars {vars_name} {len(text)}\n".encode() + text + b"\n")
        for row, name in ROWS.items():
            text = apply(name, messages, generate)
            f.write(f"output {row} {vars_name} {len(text)}\n".encode() + text + b"\n")
