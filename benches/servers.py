"""What the driver starts: each in a folder of its own, on a port of the system's choice, pinned to a core."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_CORE = "0"
LOAD_CORE = "1"
START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 5
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# In a request: the key, which goes round.
KEY = "KEY"


class Process:
    """A program that listens on `self.port`. `command` is called with it and the folder."""

    def __init__(self, name, folder, core, command):
        self.name = name
        self.run = folder / name
        self.run.mkdir(parents=True)
        self.port = free_port()
        self.output = open(self.run / "output", "w")
        self.process = subprocess.Popen(["taskset", "-c", core, *map(str, command(self.port, self.run))],
                                        stdout=self.output, stderr=self.output)
        self.wait_until_it_listens()

    def wait_until_it_listens(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.fail("does not start")

    def fail(self, what):
        self.output.flush()
        said = (self.run / "output").read_text()
        log = self.run / "error.log"
        said += log.read_text() if log.exists() else ""
        sys.exit(f"benches/run: {self.name} {what}\n{said[-2000:]}")

    def stop(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(sign)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                pass
        self.output.close()


class Redis(Process):
    """A Redis with one key of 1 KiB, on the core of the load."""

    def __init__(self, folder):
        super().__init__("redis", folder, LOAD_CORE, lambda port, run: [
            "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", run])
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT_S) as connection:
            connection.sendall(b"SET key " + b"v" * 1024 + b"\r\n")
            if not connection.recv(16).startswith(b"+OK"):
                self.fail("does not take the key")


class HttpServer(Process):
    """A server that can be asked and loaded."""

    def expect(self, workload):
        """Every key once (the request, where it has none): 200, and a body and a level as the workload says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        requests = [workload["request"].replace(KEY, str(key + 1)) for key in range(int(workload.get("keys", 1)))]
        for request in requests:
            answer, body = self.ask(connection, request)
            if workload["expect"] not in body:
                self.fail(f"answers {request} with {body[:200]!r}")
        # One of the middle again: a memory that is too small has kept neither it nor what came just before.
        request = requests[len(requests) // 2]
        answer, _ = self.ask(connection, request)
        level = answer.headers["X-Cache-Level"]
        if level != workload.get("level", level):
            self.fail(f"answers {request} from {level}, not from {workload['level']}")
        connection.close()

    def ask(self, connection, request):
        connection.request("GET", request)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        if answer.status != 200:
            self.fail(f"answers {request} with {answer.status} and {body[:200]!r}")
        return answer, body

    def hits(self, level):
        """How many lookups this level of Terrace's caches has answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        _, body = self.ask(connection, "/status")
        connection.close()
        return sum(cache[level]["hits"] for cache in json.loads(body).values())

    def load(self, workload, duration_s, connections):
        before = self.cpu_us()
        wrk = subprocess.run(
            ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{duration_s}s",
             *(["-s", str(HERE / "rotate.lua")] if "keys" in workload else []),
             f"http://127.0.0.1:{self.port}{workload['request']}", "--", KEY, workload.get("keys", "1")],
            capture_output=True, text=True)
        after = self.cpu_us()
        total = re.search(r"(\d+) requests in", wrk.stdout)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", wrk.stdout)
        trouble = re.search(r"Socket errors:.*|Non-2xx.*", wrk.stdout)
        if wrk.returncode != 0 or not total or not rate or int(total[1]) == 0:
            self.fail(f"cannot be measured: {wrk.stdout}{wrk.stderr}")
        if trouble:
            self.fail(f"does not answer every request: {trouble[0].strip()}")
        return {"requests": int(total[1]), "requests_a_second": float(rate[1]),
                "user_us": after[0] - before[0], "system_us": after[1] - before[1]}

    def cpu_us(self):
        """User and system time so far, in microseconds, of the server's processes with all their threads."""
        user = system = 0
        pending = [self.process.pid]
        while pending:
            pid = pending.pop()
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    pending += [int(child) for child in children.read_text().split()]
            except FileNotFoundError:
                continue
            user += int(fields[11])
            system += int(fields[12])
        return user * 1e6 / TICKS_A_SECOND, system * 1e6 / TICKS_A_SECOND


class Nginx(HttpServer):
    """nginx, or Terrace in its place, with one worker. `workload` is what stands inside frame.conf."""

    def __init__(self, name, program, workload, folder, options, places, core=SERVER_CORE):
        def command(port, run):
            conf = run / "nginx.conf"
            conf.write_text(fill(workload, program, options, {"RUN": run, "PORT": port, **places}))
            return [program, "-p", run, "-c", conf, "-e", run / "error.log", "-g", "daemon off;"]

        super().__init__(name, folder, core, command)


class Varnish(HttpServer):
    """Varnish with its defaults in front of the upstream; it keeps what comes from there for ten minutes."""

    def __init__(self, program, folder, places):
        # Without a jail: its user could not enter the folder.
        super().__init__("varnish", folder, SERVER_CORE, lambda port, run: [
            program, "-F", "-j", "none", "-n", run / "work", "-T", "none", "-a", f"127.0.0.1:{port}",
            "-b", f"127.0.0.1:{places['UPSTREAM_PORT']}", "-s", "malloc,64m", "-t", "600"])


def fill(workload, program, options, places):
    """frame.conf with its places filled."""
    is_nginx = Path(program).name == "nginx"
    modules = ["ndk_http_module.so", "ngx_http_lua_module.so"] if is_nginx else []
    temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] if is_nginx else []
    places = {
        "MODULES": "\n".join(f"load_module {options.nginx_modules / module};" for module in modules),
        "USER": "user root;" if os.geteuid() == 0 else "",
        "NGINX_ONLY": "\n".join(f"    {kind}_temp_path {places['RUN']}/{kind};" for kind in temporary),
        **places,
    }
    text = (HERE / "frame.conf").read_text().replace("@WORKLOAD@", workload)
    for place, value in places.items():
        text = text.replace(f"@{place}@", str(value))
    return text


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
