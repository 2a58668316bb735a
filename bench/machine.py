"""The machine of the benchmark: its description, processes, CPU time and memory."""

import ctypes
import fcntl
import glob
import itertools
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROXY_CPU = 0
LOAD_CPU = 1
DESCRIPTORS = 65536
NICE = -10
PR_SET_PDEATHSIG = 1
#: A listening socket in /proc/net/tcp.
LISTEN = "0A"
TCP_CONGESTION = getattr(socket, "TCP_CONGESTION", 13)
IN_NAMESPACE = "RINGWAY_BENCH_NAMESPACE"


def enter_namespace(mounts=False):
    """Starts this program again in its own network namespace, if the system allows that.

    There it can select the congestion control cubic for all sockets without a change of the machine's
    settings, and no other traffic, port or TIME_WAIT of the machine interferes. With `mounts` it also
    gets its own mount namespace, in which it can replace files of the system.
    """
    if os.environ.get(IN_NAMESPACE) or not shutil.which("unshare"):
        return
    unshare = ["unshare", "--net"] + ["--mount"] * mounts
    unshare += ["--map-root-user"] * (os.geteuid() != 0)
    if subprocess.run(unshare + ["true"], capture_output=True).returncode == 0:
        os.environ[IN_NAMESPACE] = "1"
        os.execvp(unshare[0], unshare + [sys.executable] + sys.argv)


def only_one():
    """Exits if another benchmark is running: each would disturb the other. Returns the lock."""
    lock = open(os.path.join(tempfile.gettempdir(), "ringway-bench.lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"another benchmark is at work ({lock.name} is locked): wait for its end")
    return lock


def prepare():
    """Raises limits and sets up the network namespace. Returns a note for each step that failed."""
    notes = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        notes.append(f"only {hard} descriptors are allowed (wanted: {DESCRIPTORS})")
    if os.environ.get(IN_NAMESPACE):
        for command in ("ip link set lo up", *CUBIC):
            try:
                run(command)
            except RuntimeError as error:
                notes.append(str(error))
        for setting in PORTS:
            try:
                run(["sysctl", "-q", "-w", setting])
            except RuntimeError as error:
                notes.append(str(error))
    else:
        notes.append("no private network (unshare --net is not allowed): the machine's own is used")
    try:
        # Then other processes disturb the benchmark less. A real-time class is no alternative: Linux
        # throttles it at 95 % of a CPU, which raises the highest latencies.
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError:
        notes.append(f"nice {NICE} is not allowed: other work on the machine shows in the figures")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmark needs two CPUs: one for the proxy, one for load and server.")
    os.sched_setaffinity(0, {LOAD_CPU})
    if congestion_control() != "cubic":
        notes.append(f"TCP congestion control is {congestion_control()}, not cubic, for everybody")
    return notes


def cubic(destination, source="127.0.0.1"):
    """The command that makes connections to a local address use the congestion control cubic."""
    return (f"ip route replace local {destination} dev lo table local proto kernel scope host"
            f" src {source} congctl cubic")


#: The commands that make all connections on loopback use cubic.
CUBIC = (cubic("127.0.0.0/8"), cubic("127.0.0.1"))


#: A connection for each request needs many ports, and ports in TIME_WAIT must be reused. The range
#: begins at the default of Linux: a sidecar uses lower ports for its clients.
PORTS = ("net.ipv4.ip_local_port_range=32768 65535", "net.ipv4.tcp_tw_reuse=1")


def congestion_control():
    """The name of the congestion control that a connection on loopback uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            name = client.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16)
            return name.split(b"\0")[0].decode()


def facts():
    """The description of the machine for the report."""
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory_gb = round(int(file.readline().split()[1]) / 1e6, 1)
    return {
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpu": model,
        "cpus": os.cpu_count(),
        "memory_gb": memory_gb,
        "virtual": "hypervisor" in open("/proc/cpuinfo").read(),
        "congestion_control": congestion_control(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "load_average_at_start": os.getloadavg()[0],
    }


_ports = iter(range(2000, 9900))


def free_port():
    """A port below the ephemeral range: no outgoing connection can take it before its listener does."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    sys.exit("no free port from 2000 to 9900 on 127.0.0.1")


class Process:
    """A child process that is pinned to a CPU, and that ends with this program, however that ends.

    With `cpu` None it may run on all CPUs, at the usual priority.
    """

    alive = []

    def __init__(self, command, cpu, log, host=None):
        self.command = command
        self.log = log
        #: The process that is measured, with its children. See `find_server`.
        self.root = None
        with open(log, "ab") as file:
            self.child = subprocess.Popen(
                [*host.inside(), *command] if host else command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=lambda: _become_child(cpu),
            )
        self.started = time.monotonic()
        Process.alive.append(self)

    def find_server(self):
        """From now on measures only the process that listens, and its children.

        The command can be a wrapper script that starts the server as its child. Then the memory and
        CPU time of the wrapper do not count. Returns the path of the server's executable.
        """
        self.root = next((pid for pid in tree(self.child.pid) if _listens(pid)), self.child.pid)
        return os.readlink(f"/proc/{self.root}/exe")

    def pids(self):
        """The measured process and its descendants."""
        return tree(self.root or self.child.pid)

    def cpu_us(self):
        """User and system time of all threads, in microseconds."""
        return sum(_cpu_us(pid) for pid in self.pids())

    def thread_us(self, name):
        """The CPU time in microseconds of the running threads whose names begin with `name`."""
        spent_ns = 0
        for pid in self.pids():
            for path in glob.glob(f"/proc/{pid}/task/*"):
                try:
                    with open(f"{path}/comm") as comm, open(f"{path}/schedstat") as times:
                        if comm.read().startswith(name):
                            spent_ns += int(times.read().split()[0])
                except OSError:
                    pass
        return spent_ns / 1e3

    def place_threads(self, name, cpu):
        """Pins the running threads whose names begin with `name` to a CPU."""
        for pid in self.pids():
            for path in glob.glob(f"/proc/{pid}/task/*"):
                try:
                    with open(f"{path}/comm") as comm:
                        if comm.read().startswith(name):
                            os.sched_setaffinity(int(os.path.basename(path)), {cpu})
                except OSError:
                    pass

    def wakeups(self):
        """How often threads of the process have slept and were woken."""
        return sum(_wakeups(path) for pid in self.pids() for path in
                   glob.glob(f"/proc/{pid}/task/*/status"))

    def memory_kb(self):
        """The sums of the resident and of the proportional set sizes of all processes, in kB."""
        rss = pss = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    for line in file:
                        if line.startswith("Rss:"):
                            rss += int(line.split()[1])
                        elif line.startswith("Pss:"):
                            pss += int(line.split()[1])
            except OSError:
                pass
        return {"rss": rss, "pss": pss}

    def stop(self):
        """Ends the process, and kills the children that are left."""
        if self in Process.alive:
            Process.alive.remove(self)
        children = tree(self.child.pid)[1:]
        if self.child.poll() is None:
            # A wrapper can end at SIGTERM without telling its child.
            for pid in {self.child.pid, self.root or self.child.pid}:
                _signal(pid, signal.SIGTERM)
            try:
                self.child.wait(3)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for pid in children:
            _signal(pid, signal.SIGKILL)

    def last_words(self):
        with open(self.log, errors="replace") as file:
            return file.read()[-800:].strip()


class Host:
    """A network namespace, connected to the one of this program by a pair of veth interfaces.

    It has no name, so it exists only as long as the process in it, which ends with this program,
    however that ends.
    """

    _numbers = itertools.count(1)

    def __init__(self, directory):
        number = next(Host._numbers)
        #: The addresses of the two interfaces: in the namespace, and on the side of this program.
        self.address, self.client = f"10.99.{number}.2", f"10.99.{number}.1"
        log = os.path.join(directory, f"host-{number}.log")
        self.holder = Process(["unshare", "--net", "sleep", "infinity"], LOAD_CPU, log)
        self._wait()
        cable = f"veth{number}"
        run(f"ip link add {cable} type veth peer name eth0 netns {self.holder.child.pid}")
        _plug_in(run, cable, self.client, self.address)
        _plug_in(self.run, "eth0", self.address, self.client)
        for command in ("ip link set lo up", *CUBIC, cubic(self.address, self.address)):
            self.run(command)
        for setting in PORTS:
            run([*self.inside(), "sysctl", "-q", "-w", setting])

    def _wait(self):
        """Waits until the process that keeps the namespace has entered it."""
        deadline = time.monotonic() + 5
        ours = os.readlink("/proc/self/ns/net")
        while time.monotonic() < deadline and self.holder.child.poll() is None:
            try:
                if os.readlink(f"/proc/{self.holder.child.pid}/ns/net") != ours:
                    return
            except OSError:
                pass
            time.sleep(0.001)
        self.stop()
        raise RuntimeError(f"no network namespace: {self.holder.last_words()}")

    def inside(self):
        """The command line that runs the command after it in this network namespace."""
        return ["nsenter", f"--net=/proc/{self.holder.child.pid}/ns/net"]

    def run(self, command):
        """Runs a command in this network namespace. Raises if it fails."""
        run([*self.inside(), *command.split()])

    def stop(self):
        self.holder.stop()


def _plug_in(run_there, interface, own, other):
    """Configures one interface of the pair. Connections to the other end use cubic."""
    for command in (
        f"ip address add {own}/32 peer {other}/32 dev {interface}",
        f"ip link set {interface} up",
        f"ip route replace {other}/32 dev {interface} src {own} congctl cubic",
    ):
        run_there(command)


def run(command):
    """Runs a command. Raises if it fails."""
    words = command.split() if isinstance(command, str) else command
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def stop_all():
    for process in list(Process.alive):
        process.stop()


def _become_child(cpu):
    os.sched_setaffinity(0, range(os.cpu_count()) if cpu is None else {cpu})
    if cpu is None:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    # The child gets SIGTERM when this program dies. nginx then ends its workers too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def tree(root):
    """A process and its descendants, parents first."""
    found = [root]
    for pid in found:
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            try:
                with open(path) as file:
                    found += [int(word) for word in file.read().split()]
            except OSError:
                pass
    return found


def _listens(pid):
    """Whether the process has a listening TCP socket."""
    listening = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        listening |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN}
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            if os.readlink(path) in listening:
                return True
        except OSError:
            pass
    return False


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _wakeups(path):
    try:
        with open(path) as file:
            found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.MULTILINE)
            return int(found.group(1))
    except OSError:
        return 0  # the thread has ended


def _cpu_us(pid):
    """The CPU time of a process in microseconds, including that of its ended threads."""
    try:
        # Python has no clock_getcpuclockid(3). This is CPUCLOCK_SCHED of the whole process.
        return time.clock_gettime((~pid << 3) | 2) * 1e6
    except OSError:
        return 0.0
