"""A real HTTP server in a process of its own that speaks the engines' protocol, ready in some tens of milliseconds.

It answers ``MODEL: WORD WORD …``, one word at a time, so that a test sees who answered. Words in the message steer it:
``slow`` pauses between words, ``die`` ends the process in mid-answer, ``long`` is refused as too long. A base named
``sluggish`` takes its time to start, one named ``sleepless`` does not know how to sleep.
"""

import argparse
import json
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for name in ("--model", "--served-model-name", "--journal", "--fail"):
    parser.add_argument(name, default="")
parser.add_argument("--uds", default="")
parser.add_argument("--port", type=int)
given = parser.parse_args()
key = os.environ["VLLM_API_KEY"]
adapters: dict[str, str] = {}
running = 0
lock = threading.Lock()


def note(**event):
    with lock, open(given.journal, "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **event}) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        return None

    def address_string(self):
        return "a client"

    def reply(self, status, content):
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/metrics":
            return self.reply(200, f'vllm:num_requests_running{{engine="0"}} {running}\n')
        if self.path == "/health":
            return self.reply(200, "")
        if self.headers.get("Authorization") != f"Bearer {key}":
            return self.reply(401, {"error": {"message": "no"}})
        return self.reply(200, {"data": [{"id": name} for name in (given.served_model_name, *adapters)]})

    def do_POST(self):
        if self.path in ("/sleep?level=1", "/wake_up"):
            note(order=self.path)
            return self.reply(404 if "sleepless" in given.model else 200, "")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            name, path = body["lora_name"], body["lora_path"]
            note(load=name, path=path)
            if os.path.exists(os.path.join(path, "adapter_config.json")) is False or "refused" in name:
                return self.reply(400, {"error": {"message": "the fake refuses it"}})
            adapters[name] = path
            return self.reply(200, "ok")
        if self.path == "/v1/unload_lora_adapter":
            note(unload=body["lora_name"])
            adapters.pop(body["lora_name"], None)
            return self.reply(200, "ok")
        if self.path == "/v1/completions":
            return self.complete(body)
        return self.chat(body)

    def complete(self, body):
        if body["model"] not in (given.served_model_name, *adapters) or "mute" in body["model"]:
            return self.reply(404, {"error": {"message": f"no model {body['model']}"}})
        return self.reply(200, {"model": body["model"], "usage": {"completion_tokens": 1}})

    def chat(self, body):
        global running
        said = body["messages"][-1]["content"]
        if body["model"] not in (given.served_model_name, *adapters) or "mute" in body["model"]:
            return self.reply(404, {"error": {"message": f"no model {body['model']}"}})
        if "long" in said:
            return self.reply(400, {"error": {"message": "This model's maximum context length is 64 tokens."}})
        with lock:
            running += 1
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        words = [body["model"] + ":", *said.split()][: body["max_tokens"]]
        try:
            for word in words:
                if word == "die":
                    os._exit(9)
                self.event({"model": body["model"], "choices": [{"delta": {"content": word + " "}}]})
                if "slow" in said:
                    time.sleep(0.05)
            self.event({"model": body["model"], "choices": [{"delta": {}, "finish_reason": "stop"}]})
            usage = {"prompt_tokens": 3, "completion_tokens": len(words)}
            self.event({"model": body["model"], "choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            note(cancelled=body["model"])
        finally:
            with lock:
                running -= 1

    def event(self, content):
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())


if given.fail and given.fail in given.model:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory.")
note(start=given.model)
if "sluggish" in given.model:
    time.sleep(3600)


class AtSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


ThreadingHTTPServer.request_queue_size = 64
server = AtSocket(given.uds, Handler) if given.uds else ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
server.serve_forever()
