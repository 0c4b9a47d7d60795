"""Runs services of the compose file without a container engine: each in a network, mount and root of its own.

Namespaces of Linux and programs of this machine stand in for containers and images. A box has the compose service's command,
environment, configs, secrets, volumes, user and health check, an address on a bridge that is in a namespace of its own too, and
the names of the others in its /etc/hosts. Its root is read-only if the service's is. Needs root, unshare, nsenter, ip and setpriv.
"""

import itertools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import time

SUBNET = "172.30.99"
NEEDS = ("unshare", "nsenter", "ip", "setpriv", "mount", "chroot")
# Names of links are never used again: the kernel takes those of boxes that have ended away in its own time.
LINKS = itertools.count(1)


def lacking():
    """Why boxes cannot be made here, or nothing."""
    gone = [name for name in NEEDS if not shutil.which(name)]
    if gone:
        return f"{', '.join(gone)}: not installed"
    if os.geteuid() != 0:
        return "not root"
    probe = "ip link add probe type bridge && ip link add one type veth peer name other && mount -t tmpfs tmpfs /mnt"
    done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", probe], capture_output=True, text=True, timeout=30)
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else None


class Boxes:
    """All boxes of one compose file, in `folder`."""

    def __init__(self, compose, folder, names, aliases=None):
        self.compose, self.folder = compose, pathlib.Path(folder)
        self.services = compose["services"]
        self.addresses = {name: f"{SUBNET}.{10 + number}" for number, name in enumerate(names)}
        for name in names:
            for network in self.services.get(name, {}).get("networks", {}).values():
                self.addresses[name] = (network or {}).get("ipv4_address", self.addresses[name])
        hosts = [f"{address} {name} {' '.join((aliases or {}).get(name, []))}" for name, address in self.addresses.items()]
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(hosts) + "\n")
        self.running = {}
        # This process's own place on the bridge: it moved into namespaces of its own before (`enter`).
        self.sh("ip link set lo up; ip link add bridge address 02:00:00:00:00:01 type bridge; ip link set bridge up")
        self.sh(f"ip address add {SUBNET}.1/24 dev bridge")
        self.sh(f"mount --bind {self.folder}/hosts /etc/hosts")

    @staticmethod
    def sh(text):
        subprocess.run(["sh", "-ec", text], check=True, timeout=30)

    def volume(self, name, owner):
        path = self.folder / "volumes" / name
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, *owner)
            path.chmod(0o700)
        return path

    def start(self, name, programs, command=None, owner=(65532, 65532), binds=()):
        """Starts a service. `programs`: name in the box's /usr/local/bin → program here."""
        service = self.services[name]
        root = self.folder / "roots" / name
        lines = [f"root={shlex.quote(str(root))}", "until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done",
                 f"ip link set lo up; ip link set eth0 up; ip address add {self.addresses[name]}/24 dev eth0",
                 "mount --make-rprivate /", "mkdir -p $root", "mount -t tmpfs -o mode=0755 tmpfs $root"]

        def bind(source, target, options="bind,ro"):
            source, target = shlex.quote(str(source)), f"$root{target}"
            lines.append(f"if [ -d {source} ]; then mkdir -p {target}; else mkdir -p $(dirname {target}); touch {target}; fi")
            lines.append(f"mount --bind {source} {target}" + (f"; mount -o remount,{options} {target}" if "ro" in options else ""))

        for part in ("bin", "sbin", "lib", "lib64"):
            if pathlib.Path("/", part).is_symlink():
                lines.append(f"ln -s {os.readlink('/' + part)} $root/{part}")
            elif pathlib.Path("/", part).exists():
                bind(f"/{part}", f"/{part}")
        for part in ("/usr", "/etc/ssl", "/etc/passwd", "/etc/group", "/dev"):
            bind(part, part)
        lines += ["mkdir -p $root/proc $root/tmp; mount --rbind /proc $root/proc; mount -t tmpfs -o mode=1777 tmpfs $root/tmp",
                  "echo 'hosts: files' >$root/etc/nsswitch.conf", "mount -t tmpfs tmpfs $root/usr/local/bin"]
        bind(self.folder / "hosts", "/etc/hosts")
        for own, program in programs.items():
            bind(program, f"/usr/local/bin/{own}")
        for source, target, writable in binds:
            bind(source, target, "bind" if writable else "bind,ro")
        for config in service.get("configs", []):
            bind(self.compose["configs"][config["source"]]["file"], config["target"])
        for secret in service.get("secrets", []):
            target = pathlib.PurePosixPath("/run/secrets") / secret.get("target", secret["source"])
            bind(self.compose["secrets"][secret["source"]]["file"], target)
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                bind(volume["source"], volume["target"])
            else:
                bind(self.volume(volume["source"], owner), volume["target"], "bind")
        if service.get("read_only"):
            lines.append("mount -o remount,ro $root")
        environment = {**(service.get("environment") or {}), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
        words = [str(word).replace("$$", "$") for word in command or service["command"]]
        user = ["setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups", "--pdeathsig=KILL"]
        if service.get("cap_drop") == ["ALL"]:
            user += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        settings = [f"{key}={value}" for key, value in environment.items()]
        lines.append("exec " + shlex.join(["chroot", str(root), "env", "-i", *settings, *user, *words]))
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-ec", "\n".join(lines)],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.running[name] = (process, user, settings)
        while process.poll() is None and os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        link = f"v{next(LINKS)}"
        # By its address, as engines do: neighbours need not learn a new one when it starts again.
        hardware = f"02:42:ac:1e:63:{int(self.addresses[name].rpartition('.')[2]):02x}"
        self.sh(f"ip link add {link} type veth peer name eth0 address {hardware} netns {process.pid}; ip link set {link} master bridge up")
        return process

    def entering(self, name, words, more):
        process, user, settings = self.running[name]
        enter = ["nsenter", f"--target={process.pid}", "--net", "--mount", "--root", "--wd=/", "env", "-i"]
        return [*enter, *settings, *more, *user, *words]

    def inside(self, name, *words, more=(), timeout=60):
        """Runs a command in a running box, as its user, with `more` variables."""
        return subprocess.run(self.entering(name, words, more), capture_output=True, text=True, timeout=timeout)

    def succeed(self, name, *words, more=()):
        """Starts a second process in a running box, which becomes the box's own. Gives the first, which has to end by itself."""
        first, user, settings = self.running[name]
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(self.entering(name, words, more), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.running[name] = (process, user, settings)
        return first

    def healthy(self, name, patience=60):
        """Waits for the service's own health check."""
        test = [str(word).replace("$$", "$") for word in self.services[name]["healthcheck"]["test"]]
        words = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        until, said = time.monotonic() + patience, "nothing yet"
        while time.monotonic() < until:
            process = self.running[name][0]
            assert process.poll() is None, f"{name} has ended with {process.returncode}:\n{self.log(name)}"
            done = self.inside(name, *words)
            if done.returncode == 0:
                return
            said = done.stdout + done.stderr
            time.sleep(0.2)
        raise AssertionError(f"{name} is not healthy: {said}\n{self.log(name)}")

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self, name, patience=60):
        """Ends it as the engine does: SIGTERM, then SIGKILL. Gives its exit code."""
        process = self.running.pop(name)[0]
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def kill(self, name):
        process = self.running.pop(name)[0]
        process.kill()
        process.wait()

    def end(self):
        """Ends what still runs."""
        for name in reversed(list(self.running)):
            self.kill(name)

